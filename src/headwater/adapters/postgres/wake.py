"""Who waits for the log to grow is woken by a notification, sent after commits and never within one; else it is looked at.

A transaction that notifies takes a lock of the whole server at its COMMIT. So one connection of the process notifies for all
of its commits, as often as it comes round, and another one listens. A lost notification costs latency only.
"""

from __future__ import annotations

import asyncio
import contextlib
from typing import Final

import psycopg

from headwater.adapters.postgres.horizon import Horizon
from headwater.adapters.postgres.server import Pool
from headwater.adapters.postgres.statement import Statement
from headwater.errors import HeadwaterError

CHANNEL: Final = "headwater"
POLL: Final = 0.25
"""Seconds between two looks at the log when no notification comes."""
SOON: Final = 0.005
"""Seconds until the next look where a gap waits for the end of a transaction."""
PAUSE: Final = 0.01
"""Seconds between two notifications, and before a broken connection is replaced times a hundred."""
NOTIFY: Final = Statement("SELECT pg_notify(%s, '')", (CHANNEL,))


class Wake:
    """The waiters of one loop."""

    def __init__(self, pool: Pool, horizon: Horizon) -> None:
        self._pool = pool
        self._horizon = horizon
        self._waiters: dict[asyncio.Future[None], int] = {}
        self._hinted = asyncio.Event()
        self._committed = asyncio.Event()
        self._tasks = [asyncio.create_task(one()) for one in (self._watch, self._listen, self._notify)]

    def hint(self) -> None:
        """We have committed messages: look, and tell the others."""
        self._hinted.set()
        self._committed.set()

    async def wait(self, after: int, timeout: float) -> bool:
        """Wait until the log is settled above a position, at most `timeout` seconds; whether it is."""
        if self._horizon.position > after or await self._horizon.look() > after:
            return True
        if timeout <= 0:
            return False
        waiter = asyncio.get_running_loop().create_future()
        self._waiters[waiter] = after
        if self._horizon.waiting:
            self._hinted.set()
        try:
            async with asyncio.timeout(timeout):
                await waiter
        except TimeoutError:
            return await self._horizon.look() > after
        finally:
            del self._waiters[waiter]
        return True

    async def close(self) -> None:
        """Stop, and let all waiters go."""
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        for waiter in self._waiters:
            if not waiter.done():
                waiter.set_exception(TimeoutError())

    async def _watch(self) -> None:
        """Look for those who wait: at a hint, soon while a gap is open, and from time to time."""
        while True:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(SOON if self._waiters and self._horizon.waiting else POLL):
                    await self._hinted.wait()
            self._hinted.clear()
            if not self._waiters:
                continue
            with contextlib.suppress(HeadwaterError):  # the waiters find out when their time is over
                await self._horizon.look()
            for waiter, after in list(self._waiters.items()):
                if self._horizon.position > after and not waiter.done():
                    waiter.set_result(None)

    async def _listen(self) -> None:
        while True:
            with contextlib.suppress(HeadwaterError, psycopg.Error):
                async with await self._pool.server.connect() as connection:
                    await connection.execute(f"LISTEN {CHANNEL}")
                    self._hinted.set()
                    async for _ in connection.notifies():
                        self._hinted.set()
            await asyncio.sleep(PAUSE * 100)

    async def _notify(self) -> None:
        while True:
            await self._committed.wait()
            self._committed.clear()
            with contextlib.suppress(HeadwaterError):
                await self._pool.rows(NOTIFY)
            await asyncio.sleep(PAUSE)
