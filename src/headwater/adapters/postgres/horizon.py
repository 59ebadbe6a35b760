"""Up to where the log is settled: no position at or below it can still appear. The reader that sees no gap too few.

A position is drawn when its row is inserted, after the writer has taken the fence (shared), which it holds until its end is
visible to whoever looks next. So at a gap: the highest position seen was drawn after those below it, and whoever may still
bring one of those holds the fence *now*. When each of these holders has ended, a new look decides; what is missing then was
undone, and never comes. No time limit is needed, nobody's transaction numbers are compared, and a prepared transaction,
which has no process, is a holder as any other.
"""

from __future__ import annotations

import asyncio
from typing import Final

from headwater.adapters.postgres.rows import EVENT
from headwater.adapters.postgres.schema import FENCE
from headwater.adapters.postgres.server import Pool
from headwater.adapters.postgres.statement import Row, Statement

PAGE: Final = 1_000
TOP: Final = Statement("SELECT coalesce(max(position), 0) FROM headwater.events")
NEXT: Final = f"SELECT position FROM headwater.events WHERE position > %s ORDER BY position LIMIT {PAGE}"
FORWARDS: Final = f"SELECT {EVENT} FROM headwater.events WHERE position > %s ORDER BY position LIMIT %s"
UP_TO: Final = f"SELECT {EVENT} FROM headwater.events WHERE position > %s AND position <= %s ORDER BY position LIMIT %s"
HOLDERS: Final = Statement(
    """
SELECT virtualtransaction FROM pg_locks
WHERE locktype = 'advisory' AND classid = %s AND objid = %s AND objsubid = 2
    AND database = (SELECT oid FROM pg_database WHERE datname = current_database())
    AND pid IS DISTINCT FROM pg_backend_pid()
""",
    FENCE,
)
"""The pid of a prepared transaction is NULL: `<>` would leave it out."""


class Horizon:
    """What this process knows of it: all positions up to `position` are there, or never come."""

    def __init__(self, pool: Pool) -> None:
        self._pool = pool
        self._one_at_a_time = asyncio.Lock()
        self._noted: tuple[int, set[str]] | None = None
        self.position = 0

    def forget(self) -> None:
        """The server may be another one now, with less in its log."""
        self.position = 0
        self._noted = None

    @property
    def waiting(self) -> bool:
        """Whether a gap waits for the end of somebody's transaction."""
        return self._noted is not None

    async def read(self, after: int, limit: int) -> list[Row]:
        """Settled rows above a position, in order; none where the next one is still open."""
        known = self.position  # as it was before the look: what came into its reach since may be missing in the rows
        (found,) = await self._pool.rows(Statement(FORWARDS, (after, limit)))
        end = _contiguous([row[0] for row in found], max(after, known))
        if end == len(found):
            if found and after <= known:
                self._reach(found[-1][0])
            return found
        top = found[-1][0]
        if await self._settled(top):
            (found,) = await self._pool.rows(Statement(UP_TO, (after, top, limit)))
            return found
        return found[:end]

    async def look(self) -> int:
        """Move on as far as it goes; the position of the last settled message."""
        while True:
            known = self.position
            if not known:
                (((top,),),) = await self._pool.rows(TOP)
                if not top or await self._settled(top):
                    return self.position
            (found,) = await self._pool.rows(Statement(NEXT, (known,)))
            positions = [position for (position,) in found]
            end = _contiguous(positions, known)
            if end:
                self._reach(positions[end - 1])
            if end < len(positions) and not await self._settled(positions[-1]):
                return self.position
            if len(positions) < PAGE:
                return self.position

    def _reach(self, position: int) -> None:
        self.position = max(self.position, position)

    async def _settled(self, top: int) -> bool:
        """Whether all positions up to one that has been seen are settled; notes whose end is waited for."""
        async with self._one_at_a_time:
            if top <= self.position:
                return True
            (found,) = await self._pool.rows(HOLDERS)
            holders = {holder for (holder,) in found}
            noted, waited = self._noted or (0, set())
            waited &= holders
            if not waited:  # all that was waited for has ended; now for what has been seen since
                self._reach(noted)
                noted, waited = top, holders
            if not waited:
                self._reach(noted)
            self._noted = (noted, waited) if waited else None
            return top <= self.position


def _contiguous(positions: list[int], after: int) -> int:
    """How many positions come one after the other; those at or below `after` are settled anyhow."""
    at = after
    for index, position in enumerate(positions):
        if position > at + 1:
            return index
        at = max(at, position)
    return len(positions)
