"""The scheduler: timers that are due become messages of the log, each once. Their consumers meet them like any other."""

from __future__ import annotations

from collections.abc import Callable

import msgspec

from headwater import fault
from headwater.clock import Clock
from headwater.database import Collision, Database, WriteSet, stands
from headwater.lease import Fence
from headwater.store import ANY, Append
from headwater.timer import Cancel, Timer

BATCH = 500
LONGEST = 0.25


class Scheduler:
    """Moves due timers into the log. `step` moves those that are due."""

    def __init__(self, database: Database, clock: Clock, fence: Callable[[], Fence | None]) -> None:
        self.database = database
        self.clock = clock
        self.fence = fence

    async def begin(self) -> None:
        """Nothing is assumed."""

    async def end(self) -> None:
        """Nothing is left behind."""

    async def step(self) -> bool:
        """Move what is due; whether anything was. A timer that was cancelled or moved meanwhile stays as it is."""
        due = await self.database.timers_due(self.clock.now(), BATCH)
        if not due:
            return False
        fault.point("timer.due")
        answers = await self.database.commit([self._fire(timer) for timer in due])
        fault.point("timer.fired")
        for answer in answers:
            if not isinstance(answer, Collision):
                stands(answer)
        return True

    async def wait(self, timeout: float) -> None:
        """Until the next timer is due, at most `timeout` seconds or a quarter of one."""
        due = await self.database.next_timer()
        left = (due - self.clock.now()) / 1_000_000 if due is not None else timeout
        await self.clock.sleep(max(0.0, min(left, timeout, LONGEST)))

    def _fire(self, timer: Timer) -> WriteSet:
        return WriteSet(
            appends=[Append(timer.stream, ANY, [msgspec.structs.replace(timer.draft, time=self.clock.now())])],
            fence=self.fence(),
            cancels=[Cancel(timer.owner, timer.key, timer.name, must=True, due=timer.due)],
        )
