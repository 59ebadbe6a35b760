"""A proxy before a server that cuts connections: as it is told, or when a client has sent a COMMIT, or so many bytes."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable, Coroutine
from contextlib import suppress
from dataclasses import dataclass
from enum import Enum
from typing import Any, Protocol, TypeVar
from urllib.parse import urlsplit

Result = TypeVar("Result")


class Cut(Enum):
    """When a connection is cut over a COMMIT: once it is passed on, once the server has answered, or the server's side too."""

    AT_ONCE = "at once"
    ANSWERED = "answered"
    BOTH = "both"


def never() -> Cut | None:
    """No COMMIT is cut."""
    return None


class Watch(Protocol):
    """Follows what a client sends."""

    def commits(self, data: bytes) -> int:
        """How many COMMITs, or whatever stands for them, are complete with these bytes."""
        ...


class Sieve(Protocol):
    """Loses some of what a client sends."""

    def keep(self, data: bytes) -> bytes:
        """What is to be passed on, with these bytes and those before."""
        ...


class Meter:
    """Each so many bytes stand for a COMMIT."""

    def __init__(self, every: int) -> None:
        self._every = every
        self._seen = 0

    def commits(self, data: bytes) -> int:
        """How often the number was passed."""
        before = self._seen // self._every
        self._seen += len(data)
        return self._seen // self._every - before


class Proxy:
    """Carries bytes between clients and a server, in a thread of its own: a client may block its loop.

    `at_commit` is asked at each COMMIT that a client sends, in that thread; `watching` makes what sees them, and `sieving` what
    loses some of it, for each connection. It listens on a `port`, or any that is free.
    """

    def __init__(
        self,
        url: str,
        at_commit: Callable[[], Cut | None] = never,
        watching: Callable[[], Watch] | None = None,
        port: int = 0,
        sieving: Callable[[], Sieve] | None = None,
    ) -> None:
        self._parts = urlsplit(url)
        self._at_commit = at_commit
        self._watching = watching or Frontend
        self._sieving = sieving
        self._port = port
        self._lines: set[_Line] = set()
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, daemon=True)
        self.cuts = 0

    def __enter__(self) -> Proxy:
        self._thread.start()
        self._server = self._run(asyncio.start_server(self._serve, "127.0.0.1", self._port))
        return self

    def __exit__(self, *_: object) -> None:
        self._run(self._end())
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()

    @property
    def url(self) -> str:
        """The URL for clients."""
        port = self._server.sockets[0].getsockname()[1]
        user = self._parts.netloc.rpartition("@")[0] or "postgres"
        return self._parts._replace(netloc=f"{user}@127.0.0.1:{port}").geturl()

    def cut(self) -> None:
        """Cut all clients off; what they have sent still reaches the server."""
        self._loop.call_soon_threadsafe(self._cut)

    def _cut(self) -> None:
        for line in self._lines:
            self._sever(line)

    def _run(self, work: Coroutine[Any, Any, Result]) -> Result:
        return asyncio.run_coroutine_threadsafe(work, self._loop).result()

    async def _end(self) -> None:
        self._server.close()
        tasks = asyncio.all_tasks() - {asyncio.current_task()}
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    async def _serve(self, reader: asyncio.StreamReader, client: asyncio.StreamWriter) -> None:
        there, server = await asyncio.open_connection(self._parts.hostname, self._parts.port)
        line = _Line(client, server)
        self._lines.add(line)
        try:
            await asyncio.gather(self._send(reader, line), self._answer(there, line))
        finally:
            self._lines.discard(line)
            for one in (server, client):
                one.transport.abort()
                with suppress(OSError):
                    await one.wait_closed()

    async def _send(self, reader: asyncio.StreamReader, line: _Line) -> None:
        seen, sieve = self._watching(), self._sieving() if self._sieving else None
        with suppress(OSError):
            while data := await reader.read(65_536):
                commits = seen.commits(data)
                line.fate = line.fate or (self._at_commit() if commits else None)
                line.server.write(sieve.keep(data) if sieve else data)
                await line.server.drain()
                if line.fate in (Cut.AT_ONCE, Cut.BOTH):
                    self._sever(line)
        with suppress(OSError):
            line.server.close()

    async def _answer(self, reader: asyncio.StreamReader, line: _Line) -> None:
        with suppress(OSError):
            while data := await reader.read(65_536):
                if line.fate is Cut.ANSWERED:
                    self._sever(line)
                if line.fate is None:
                    line.client.write(data)
                    await line.client.drain()
        with suppress(OSError):
            line.client.close()

    def _sever(self, line: _Line) -> None:
        if line.severed:
            return
        line.severed = True
        self.cuts += 1
        line.client.transport.abort()
        if line.fate is Cut.BOTH:
            line.server.transport.abort()


@dataclass(eq=False)
class _Line:
    """A client's connection and the server's that belongs to it."""

    client: asyncio.StreamWriter
    server: asyncio.StreamWriter
    fate: Cut | None = None
    severed: bool = False


class Frontend:
    """Follows the messages that a client sends, to see its COMMITs."""

    def __init__(self) -> None:
        self._rest = b""
        self._begun = False
        self._named: set[bytes] = set()
        self._bound = False

    def commits(self, data: bytes) -> int:
        """How many COMMITs are complete with these bytes."""
        self._rest += data
        found = 0
        while (head := 1 if self._begun else 0) + 4 <= len(self._rest):
            end = head + int.from_bytes(self._rest[head : head + 4])
            if len(self._rest) < end:
                break
            found += self._begun and self._is_commit(self._rest[:1], self._rest[5:end])
            self._begun = self._begun or self._rest[4:8] == b"\x00\x03\x00\x00"
            self._rest = self._rest[end:]
        return found

    def _is_commit(self, kind: bytes, body: bytes) -> bool:
        """Parse names a statement, Bind takes it up, Execute runs it; Query does all of it."""
        if kind == b"P":
            name, sql, *_ = body.split(b"\0")
            (self._named.add if sql == b"COMMIT" else self._named.discard)(name)
        elif kind == b"B":
            _, name, *_ = body.split(b"\0", 2)
            self._bound = name in self._named
        return (kind == b"E" and self._bound) or (kind == b"Q" and body == b"COMMIT\0")
