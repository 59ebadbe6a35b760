"""Who waits for a commit is woken by a hint: directly within the process, by a datagram between processes.

Each process that waits on a file binds a socket in a folder that stands for the file; after a commit every socket there
is sent a byte, without blocking. A lost hint costs latency only, for every waiting loop also looks four times a second.
"""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import os
import secrets
import socket
import stat
import tempfile
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Final

from headwater.adapters.sqlite.file import File
from headwater.errors import HeadwaterError

POLL: Final = 0.25
"""Seconds between two looks at the file when no hint comes."""
RELIST: Final = 0.5
"""Seconds for which the list of listening processes is taken as known."""
STALE: Final = 10.0
"""A socket younger than so many seconds is never taken for a dead one: its owner may be about to bind it."""
LONGEST: Final = 100
"""Bytes that the path of a socket may have."""


class Wake:
    """Hints of commits to one file. `version` gives a number that changes with every commit of anyone, cheaply."""

    def __init__(self, file: File, version: Callable[[], int]) -> None:
        self._file = file
        self._version = version
        self._folder = _folder(file.path)
        self._listeners: dict[asyncio.AbstractEventLoop, Listener] = {}
        self._sender: socket.socket | None = None
        self._others: tuple[str, ...] = ()
        self._listed = -RELIST
        self._lock = threading.Lock()

    def hint(self) -> None:
        """Tell all who wait on the file, in this process and others, to look again. From any thread; never blocks."""
        for listener in tuple(self._listeners.values()):
            listener.hint()
        if self._folder is not None:
            with self._lock, contextlib.suppress(OSError):
                self._send(self._folder)

    async def wait(self, still_waiting: Callable[[], bool], timeout: float) -> bool:
        """Wait until `still_waiting` is false, at most `timeout` seconds; whether it is. Asked after each hint."""
        self._file.check()
        if not still_waiting():
            return True
        if timeout <= 0:
            return False
        loop = asyncio.get_running_loop()
        listener = self._listeners.get(loop) or self._listen(loop)
        return await listener.wait(still_waiting, timeout)

    def close(self) -> None:
        """Stop listening; who still waits is let go when its time is over."""
        for listener in tuple(self._listeners.values()):
            listener.close()
        self._listeners.clear()
        with self._lock:
            if self._sender is not None:
                self._sender.close()
                self._sender = None

    def _listen(self, loop: asyncio.AbstractEventLoop) -> Listener:
        for old in [old for old in self._listeners if old.is_closed()]:
            self._listeners.pop(old).close()
        listener = self._listeners[loop] = Listener(loop, self._folder, self._version)
        return listener

    def _send(self, folder: Path) -> None:
        now = time.monotonic()
        if now - self._listed >= RELIST:
            self._listed = now
            own = {listener.name for listener in tuple(self._listeners.values())}
            with contextlib.suppress(OSError):
                self._others = tuple(entry.path for entry in os.scandir(folder) if entry.name not in own)
        if not self._others:
            return
        if self._sender is None:
            self._sender = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
            self._sender.setblocking(False)
        for path in self._others:
            try:
                self._sender.sendto(b"\0", path)
            except (ConnectionRefusedError, FileNotFoundError):
                self._forget(path)
            except OSError:  # its queue is full: it has been told already
                continue

    def _forget(self, path: str) -> None:
        """Nobody has this socket open: the kernel says so, and no pid is asked."""
        self._others = tuple(other for other in self._others if other != path)
        with contextlib.suppress(OSError):
            if time.time() - os.lstat(path).st_mtime > STALE:
                Path(path).unlink()


class Listener:
    """The waiters of one loop: one socket and one poll timer for all of them."""

    def __init__(self, loop: asyncio.AbstractEventLoop, folder: Path | None, version: Callable[[], int]) -> None:
        self._loop = loop
        self._version = version
        self._seen = -1
        self._waiters: dict[asyncio.Future[bool], Callable[[], bool]] = {}
        self._hinted = False
        self._timer: asyncio.TimerHandle | None = None
        self._path = folder / f"{os.getpid()}-{secrets.token_hex(4)}" if folder else None
        self._socket: socket.socket | None = None
        self.name = self._path.name if self._path else ""

    async def wait(self, still_waiting: Callable[[], bool], timeout: float) -> bool:
        """Wait for one condition."""
        waiter: asyncio.Future[bool] = self._loop.create_future()
        deadline = self._loop.call_later(timeout, self._expire, waiter)
        self._waiters[waiter] = still_waiting
        try:
            self._watch()
            return not still_waiting() or await waiter
        finally:
            deadline.cancel()
            del self._waiters[waiter]

    def hint(self) -> None:
        """From any thread: look again soon; many hints make one look."""
        if self._waiters and not self._hinted:
            self._hinted = True
            with contextlib.suppress(RuntimeError):  # the loop is closed
                self._loop.call_soon_threadsafe(self._look)

    def close(self) -> None:
        """Let all waiters go and take the socket away."""
        if self._loop.is_closed() or asyncio._get_running_loop() is self._loop:
            self._end()
        else:
            self._loop.call_soon_threadsafe(self._end)

    def _end(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        self._unbind()
        for waiter in self._waiters:
            if not waiter.done():
                waiter.set_result(False)

    def _watch(self) -> None:
        """Have a socket and a running timer."""
        if self._timer is None:
            self._timer = self._loop.call_later(POLL, self._poll)
            self._seen = self._version()
        if self._path is not None and self._socket is None:
            self._bind(self._path)

    def _look(self) -> None:
        self._hinted = False
        for waiter, still_waiting in list(self._waiters.items()):
            _ask(waiter, still_waiting, expired=False)

    def _expire(self, waiter: asyncio.Future[bool]) -> None:
        if waiter in self._waiters:
            _ask(waiter, self._waiters[waiter], expired=True)

    def _poll(self) -> None:
        self._timer = None
        if not self._waiters:
            return
        self._timer = self._loop.call_later(POLL, self._poll)
        if self._path is not None and not self._path.exists():  # cleaned away with other old files
            self._unbind()
            self._bind(self._path)
        try:
            version = self._version()
        except HeadwaterError:
            version = -1  # the waiters find out why
        if version != self._seen or version == -1:
            self._seen = version
            self._look()

    def _receive(self) -> None:
        assert self._socket is not None
        with contextlib.suppress(OSError):
            while self._socket.recv(1):
                pass
        self._look()

    def _bind(self, path: Path) -> None:
        ours = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        try:
            ours.setblocking(False)
            ours.bind(str(path))
            self._loop.add_reader(ours, self._receive)
        except (OSError, NotImplementedError):  # without hints it is slower, not wrong
            ours.close()
            return
        self._socket = ours

    def _unbind(self) -> None:
        if self._socket is None:
            return
        if not self._loop.is_closed():
            self._loop.remove_reader(self._socket)
        self._socket.close()
        self._socket = None
        assert self._path is not None
        self._path.unlink(missing_ok=True)


def _ask(waiter: asyncio.Future[bool], still_waiting: Callable[[], bool], *, expired: bool) -> None:
    if waiter.done():
        return
    try:
        over = not still_waiting()
    except Exception as error:  # noqa: BLE001 - the waiter gets it
        waiter.set_exception(error)
        return
    if over or expired:
        waiter.set_result(over)


def _folder(path: Path) -> Path | None:
    """The folder whose sockets hear of commits to a file; None where hints are not possible or not safe."""
    mark = hashlib.blake2b(os.fsencode(path), digest_size=8).hexdigest()
    ours = Path(tempfile.gettempdir()) / f"headwater-{os.getuid()}"
    try:
        ours.mkdir(mode=0o700, exist_ok=True)
        found = ours.lstat()
        if not stat.S_ISDIR(found.st_mode) or found.st_uid != os.getuid() or found.st_mode & 0o077:
            return None
        folder = ours / mark
        folder.mkdir(mode=0o700, exist_ok=True)
    except OSError:
        return None
    return folder if len(os.fsencode(folder)) + 24 <= LONGEST else None
