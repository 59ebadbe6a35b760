"""One connection of a process that listens, and one that notifies: after commits and never within one, for all of them.

A transaction that notifies takes a lock of the whole server at its COMMIT, so commits are told of as often as it comes
round. A lost notification costs latency only: who waits looks from time to time.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from typing import Final

import psycopg

from headwater.adapters.postgres.server import Pool
from headwater.adapters.postgres.statement import Statement
from headwater.errors import HeadwaterError

NOTIFY: Final = "SELECT pg_notify(%s, '')"
PAUSE: Final = 0.01
"""Seconds between two notifications."""
RECONNECT: Final = 1.0
"""Seconds between two attempts to listen."""
AGAIN: Final = 0.05
"""Seconds until the first attempt after the connection was lost."""


class Bell:
    """Rings in all processes that have one of this name; `first` runs on the listening connection whenever it is made.

    On a replica, where nobody may listen or notify, it is `mute` and rings here alone.
    """

    def __init__(self, pool: Pool, name: str, first: Sequence[Statement] = (), *, mute: bool = False) -> None:
        self._pool = pool
        self._name = name
        self._first = [*first, Statement(f"LISTEN {name}")]
        self._ears: set[asyncio.Event] = set()
        self._rung = asyncio.Event()
        self.listening = asyncio.Event()
        self._tasks = [asyncio.create_task(one()) for one in (() if mute else (self._listen, self._notify))]

    def ring(self) -> None:
        """Wake who waits here, and soon those who wait elsewhere."""
        self._wake()
        self._rung.set()

    @contextmanager
    def ear(self) -> Iterator[asyncio.Event]:
        """An event that is set whenever it rings: clear it, look, and wait for it."""
        event = asyncio.Event()
        self._ears.add(event)
        try:
            yield event
        finally:
            self._ears.discard(event)

    async def close(self) -> None:
        """Stop."""
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    def _wake(self) -> None:
        for event in self._ears:
            event.set()

    async def _listen(self) -> None:
        while True:
            with suppress(HeadwaterError, psycopg.Error):
                async with await self._pool.server.connect() as connection:
                    await connection.exchange(self._first)
                    self.listening.set()
                    self._wake()
                    async for _ in connection.notifies():
                        self._wake()
            pause = AGAIN if self.listening.is_set() else RECONNECT
            self.listening.clear()
            await asyncio.sleep(pause)

    async def _notify(self) -> None:
        while True:
            await self._rung.wait()
            self._rung.clear()
            with suppress(HeadwaterError):
                await self._pool.rows(Statement(NOTIFY, (self._name,)))
            await asyncio.sleep(PAUSE)


async def heard(ear: asyncio.Event, seconds: float) -> None:
    """Wait until it rings, at most so many seconds."""
    with suppress(TimeoutError):
        async with asyncio.timeout(seconds):
            await ear.wait()
