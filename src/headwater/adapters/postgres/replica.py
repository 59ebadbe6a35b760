"""Readers on a replica: a mark says up to where the log is settled, since they see no lock of those who write.

The mark is a row that the processes at the primary move on after commits. A replica takes over transactions in the order in
which they ended: where it has the mark, it has all that lies at or below it.
"""

from __future__ import annotations

import asyncio
from contextlib import suppress
from typing import Final

from headwater.adapters.postgres.bell import Bell, heard
from headwater.adapters.postgres.horizon import Horizon
from headwater.adapters.postgres.rows import EVENT
from headwater.adapters.postgres.server import Pool
from headwater.adapters.postgres.statement import Row, Statement
from headwater.errors import HeadwaterError

EVERY: Final = 0.5
"""Seconds between two moves of the mark."""
IDLE: Final = 5.0
"""Seconds between two looks while nothing is committed here: whoever committed elsewhere may have ended before it moved the mark."""
MARK: Final = Statement("SELECT position FROM headwater.horizon")
SETTLED: Final = f"""
SELECT {EVENT} FROM headwater.events
WHERE position > %s AND position <= (SELECT h.position FROM headwater.horizon h) ORDER BY position LIMIT %s
"""
PUBLISH: Final = """
UPDATE headwater.horizon SET position = %s FROM (SELECT set_config('synchronous_commit', 'off', true)) AS unhurried
WHERE position < %s
"""


class Published:
    """A horizon that goes by the mark."""

    waiting = False

    def __init__(self, pool: Pool) -> None:
        self._pool = pool
        self.position = 0

    def forget(self) -> None:
        """The server may be another one now, with less in its log."""
        self.position = 0

    async def read(self, after: int, limit: int) -> list[Row]:
        """Settled rows above a position, in order."""
        (found,) = await self._pool.rows(Statement(SETTLED, (after, limit)))
        return found

    async def look(self) -> int:
        """The position of the last settled message."""
        (((position,),),) = await self._pool.rows(MARK)
        self.position = max(self.position, position)
        return self.position


class Publisher:
    """Moves the mark on."""

    def __init__(self, pool: Pool, bell: Bell, horizon: Horizon) -> None:
        self._pool = pool
        self._bell = bell
        self._horizon = horizon
        self._published = 0
        self._task = asyncio.create_task(self._publish())

    async def close(self) -> None:
        """Stop; the mark is where the log is."""
        self._task.cancel()
        await asyncio.gather(self._task, return_exceptions=True)
        with suppress(HeadwaterError):
            await self._move()

    async def _publish(self) -> None:
        with self._bell.ear() as ear:
            while True:
                await heard(ear, EVERY if self._horizon.waiting else IDLE)
                ear.clear()
                with suppress(HeadwaterError):
                    await self._move()
                await asyncio.sleep(EVERY)

    async def _move(self) -> None:
        position = await self._horizon.look()
        if position != self._published:
            await self._pool.rows(Statement(PUBLISH, (position, position)))
            self._published = position
