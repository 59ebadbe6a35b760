"""Who waits for a commit is woken by a hint: directly within the process, by a datagram between processes.

A hint is of some subjects, and a waiter waits for some: both are bits of an integer. Each process that waits on a file binds a
socket in a folder that stands for the file, named after what it waits for; after a commit each that waits for a subject of it is
sent a datagram, without blocking. A lost hint costs latency only, for every waiting loop also looks four times a second.
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
import zlib
from collections.abc import Callable, Iterable
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
NAME: Final = 26
"""Bytes of them for its name."""
WIDTH: Final = 4
"""Bytes of a hint."""
EVERYTHING: Final = (1 << 8 * WIDTH) - 1
"""All subjects."""


def subjects_of(names: Iterable[str]) -> int:
    """The bits of some subjects; where two share one, their waiters are woken for nothing now and then."""
    found = 0
    for name in set(names):
        found |= 1 << zlib.crc32(name.encode()) % (8 * WIDTH)
    return found


class Wake:
    """Hints of commits to one file. `version` gives a number that changes with every commit of anyone, cheaply."""

    def __init__(self, file: File, version: Callable[[], int]) -> None:
        self._file = file
        self._version = version
        self._folder = _folder(file.path)
        self._listeners: dict[asyncio.AbstractEventLoop, Listener] = {}
        self._sender: socket.socket | None = None
        self._others: tuple[tuple[str, int], ...] = ()
        self._listed = -RELIST
        self._lock = threading.Lock()

    def hint(self, subjects: int = EVERYTHING) -> None:
        """Tell who waits for one of these, in this process and others, to look again. From any thread; never blocks."""
        for listener in tuple(self._listeners.values()):
            listener.hint(subjects)
        if self._folder is not None:
            if not self._others and time.monotonic() - self._listed < RELIST:
                return
            with self._lock, contextlib.suppress(OSError):
                self._send(self._folder, subjects)

    async def wait(self, still_waiting: Callable[[], bool], timeout: float, subjects: int = EVERYTHING) -> bool:
        """Wait until `still_waiting` is false, at most `timeout` seconds; whether it is. Asked after each hint."""
        self._file.check()
        if timeout <= 0:
            return not still_waiting()
        loop = asyncio.get_running_loop()
        listener = self._listeners.get(loop) or self._listen(loop)
        return await listener.wait(still_waiting, timeout, subjects)

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

    def _send(self, folder: Path, subjects: int) -> None:
        now = time.monotonic()
        if now - self._listed >= RELIST:
            self._listed = now
            own = {listener.name for listener in tuple(self._listeners.values())}
            with contextlib.suppress(OSError):
                found = [entry for entry in os.scandir(folder) if entry.name not in own]
                self._others = tuple((entry.path, waits_for(entry.name)) for entry in found)
        for path, wanted in self._others:
            if not wanted & subjects:
                continue
            try:
                self._socket().sendto(subjects.to_bytes(WIDTH), path)
            except (ConnectionRefusedError, FileNotFoundError):
                self._forget(path)
            except OSError:  # its queue is full: it has been told already
                continue

    def _socket(self) -> socket.socket:
        if self._sender is None:
            self._sender = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
            self._sender.setblocking(False)
        return self._sender

    def _forget(self, path: str) -> None:
        """Nobody has this socket open: the kernel says so, and no pid is asked. Its owner may have made another."""
        self._others = tuple(other for other in self._others if other[0] != path)
        self._listed = -RELIST
        with contextlib.suppress(OSError):
            if time.time() - os.lstat(path).st_mtime > STALE:
                Path(path).unlink()


class Listener:
    """The waiters of one loop: one socket and one poll timer for all of them."""

    def __init__(self, loop: asyncio.AbstractEventLoop, folder: Path | None, version: Callable[[], int]) -> None:
        self._loop = loop
        self._folder = folder
        self._version = version
        self._seen = -1
        self._waiters: dict[asyncio.Future[bool], tuple[Callable[[], bool], int]] = {}
        self._hinted = 0
        self._lock = threading.Lock()
        self._timer: asyncio.TimerHandle | None = None
        self._subjects = 0
        self._token = f"{os.getpid()}-{secrets.token_hex(4)}"
        self._path: Path | None = None
        self._socket: socket.socket | None = None

    @property
    def name(self) -> str:
        """The name of its socket."""
        return self._path.name if self._path else ""

    async def wait(self, still_waiting: Callable[[], bool], timeout: float, subjects: int) -> bool:
        """Wait for one condition."""
        waiter: asyncio.Future[bool] = self._loop.create_future()
        deadline = self._loop.call_later(timeout, self._expire, waiter)
        self._waiters[waiter] = still_waiting, subjects
        try:
            self._watch(subjects)
            return not still_waiting() or await waiter
        finally:
            deadline.cancel()
            del self._waiters[waiter]

    def hint(self, subjects: int) -> None:
        """From any thread: look again soon; many hints make one look."""
        if not self._waiters:
            return
        with self._lock:
            first, self._hinted = not self._hinted, self._hinted | subjects
        if first:
            with contextlib.suppress(RuntimeError):  # the loop is closed
                self._loop.call_soon_threadsafe(self._look_for_hints)

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

    def _watch(self, subjects: int) -> None:
        """Have a running timer, and a socket that says what is waited for."""
        if self._timer is None:
            self._timer = self._loop.call_later(POLL, self._poll)
            self._seen = self._version()
        if subjects & ~self._subjects:
            self._subjects |= subjects
            self._unbind()
        if self._socket is None:
            self._bind()

    def _look_for_hints(self) -> None:
        with self._lock:
            subjects, self._hinted = self._hinted, 0
        self._look(subjects)

    def _look(self, subjects: int = EVERYTHING) -> None:
        for waiter, (still_waiting, wanted) in list(self._waiters.items()):
            if wanted & subjects:
                _ask(waiter, still_waiting, expired=False)

    def _expire(self, waiter: asyncio.Future[bool]) -> None:
        if waiter in self._waiters:
            _ask(waiter, self._waiters[waiter][0], expired=True)

    def _poll(self) -> None:
        self._timer = None
        if not self._waiters:
            return
        self._timer = self._loop.call_later(POLL, self._poll)
        if self._path is not None and not self._path.exists():  # cleaned away with other old files
            self._unbind()
            self._bind()
        try:
            version = self._version()
        except HeadwaterError:
            version = -1  # the waiters find out why
        if version != self._seen or version == -1:
            self._seen = version
            self._look()

    def _receive(self) -> None:
        assert self._socket is not None
        subjects = 0
        with contextlib.suppress(OSError):
            while datagram := self._socket.recv(WIDTH):
                subjects |= int.from_bytes(datagram)
        self._look(subjects)

    def _bind(self) -> None:
        if self._folder is None:
            return
        self._path = self._folder / f"{self._token}-{self._subjects:x}"
        ours = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        try:
            ours.setblocking(False)
            ours.bind(str(self._path))
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


def waits_for(name: str) -> int:
    """The subjects that the name of a socket ends in; all where it does not say."""
    try:
        return int(name.rpartition("-")[2], 16)
    except ValueError:
        return EVERYTHING


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
    return folder if len(os.fsencode(folder)) + NAME <= LONGEST else None
