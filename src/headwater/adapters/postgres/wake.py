"""Who waits for the log to grow is woken when it has: one task looks for all of them, when the bell rings or after a while."""

from __future__ import annotations

import asyncio
from contextlib import suppress
from typing import Final

from headwater.adapters.postgres.bell import Bell, heard
from headwater.adapters.postgres.horizon import Horizon
from headwater.adapters.postgres.replica import Published
from headwater.errors import HeadwaterError

POLL: Final = 0.25
"""Seconds between two looks at the log when no notification comes."""
SOON: Final = 0.005
"""Seconds until the next look where a gap waits for the end of a transaction."""


class Wake:
    """The waiters of one loop."""

    def __init__(self, bell: Bell, horizon: Horizon | Published) -> None:
        self._horizon = horizon
        self._bell = bell
        self._waiters: dict[asyncio.Future[bool], int] = {}
        self._came = asyncio.Event()
        self._task = asyncio.create_task(self._watch())

    def hint(self) -> None:
        """We have committed messages: look, and tell the others."""
        self._bell.ring()

    async def wait(self, after: int, timeout: float) -> bool:
        """Wait until the log is settled above a position, at most `timeout` seconds; whether it is."""
        if self._horizon.position > after or await self._horizon.look() > after:
            return True
        if timeout <= 0:
            return False
        waiter = asyncio.get_running_loop().create_future()
        self._waiters[waiter] = after
        self._came.set()
        try:
            async with asyncio.timeout(timeout):
                found: bool = await waiter
                return found
        except TimeoutError:
            return await self._horizon.look() > after
        finally:
            del self._waiters[waiter]

    async def close(self) -> None:
        """Stop, and let all waiters go."""
        self._task.cancel()
        await asyncio.gather(self._task, return_exceptions=True)
        for waiter in self._waiters:
            if not waiter.done():
                waiter.set_result(False)

    async def _watch(self) -> None:
        """Look for those who wait: when it rings, soon while a gap is open, and from time to time."""
        with self._bell.ear() as ear:
            while True:
                if not self._waiters:
                    self._came.clear()
                    await self._came.wait()
                ear.clear()
                with suppress(HeadwaterError):  # the waiters find out when their time is over
                    await self._horizon.look()
                for waiter, after in list(self._waiters.items()):
                    if self._horizon.position > after and not waiter.done():
                        waiter.set_result(True)
                await heard(ear, SOON if self._horizon.waiting else POLL)
