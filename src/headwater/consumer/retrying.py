"""Runs what a consumer holds when its turn has come, key by key.

One member of a service does it, under the consumer's lease: two that try a message at the same time would call the outside
twice. The lane that runs is noted before, as a feed notes its batch.
"""

from __future__ import annotations

from collections.abc import Sequence

from headwater import fault
from headwater.consumer.arrival import Arrival, Outcome
from headwater.consumer.consumer import Consumer, Fallen, FenceNow, Place
from headwater.consumer.custody import lane_of
from headwater.database import WriteSet, stands
from headwater.inbox import Held, Mark, Note, Release

AT_ONCE = 100
HEAD_START = 0.5


class Retrying:
    """Retries for one consumer. `step` runs the lanes that are due."""

    def __init__(self, consumer: Consumer, fence: FenceNow = lambda: None) -> None:
        self.consumer = consumer
        self.database = consumer.database
        self.clock = consumer.clock
        self.fence = fence
        self.name = f"{consumer.name}/held"
        self._due: int | None = None
        self._suspects: set[Place] | None = None

    async def begin(self) -> None:
        """Another member may have run it since: look again at what was in hand."""
        self._suspects = None

    async def end(self) -> None:
        """Nothing is left behind."""

    async def step(self) -> bool:
        """Run held messages whose turn it is, key by key; whether there were any."""
        if self._suspects is None:
            self._suspects = await self._recall()
        most = self._allowed()
        self._due = await self.database.next_due(self.consumer.name)
        if not most or self._due is None or self._due > self.clock.now():
            return False
        for head in await self.database.held_due(self.consumer.name, self.clock.now(), most):
            async with self.consumer.turn:
                if not self.consumer.failing.allowed():
                    break
                await self._run_key(head.key, most, self._suspects)
        return True

    def _allowed(self) -> int:
        """How many may be tried; what is new goes first when an outage may be over: what is held has failed before."""
        breaker = self.consumer.failing.breaker
        if breaker.probing and self.clock.monotonic() < breaker.until + HEAD_START:
            return 0
        return self.consumer.failing.allowed(AT_ONCE)

    async def wait(self, timeout: float) -> None:
        """Until the next retry is due, at most `timeout` seconds."""
        idle = self._due is None or not self._allowed()
        left = timeout if idle else ((self._due or 0) - self.clock.now()) / 1_000_000
        await self.clock.sleep(min(timeout, max(left, 0.0)))

    async def _recall(self) -> set[Place]:
        """What was running when the process ended; a message that ran alone is charged for it."""
        noted = await self.database.noted(self.name)
        if len(noted) == 1:
            [(stream, version)] = noted
            rows = await self.database.held_of(self.consumer.name, stream, AT_ONCE)
            lane, marks = await self._lane([row for row in rows if row.message.version == version])
            charged = [self.consumer.failing.crashed(row) for row in lane]
            fault.point("retry.charging")
            await self._commit(WriteSet(fence=self.fence(), marks=marks, holds=charged, note=Note(self.name, ())))
            fault.point("retry.charged")
        return set(noted)

    async def _lane(self, rows: Sequence[Held]) -> tuple[list[Held], list[Mark]]:
        """The rows of a key that may run now, and the marks as they are once these rows wait for nothing but their turn."""
        name = self.consumer.name
        marks = await self.database.marks(name, [row.message.stream for row in rows])
        reached = dict(marks)
        lane = lane_of(rows, reached)
        moved = {stream: to for stream, to in reached.items() if to != marks.get(stream, 0)}
        return lane, [Mark(name, stream, to, marks.get(stream, 0)) for stream, to in moved.items()]

    async def _run_key(self, key: str, most: int, suspects: set[Place]) -> None:
        rows = await self.database.held_of(self.consumer.name, key, most)
        if any(place_of(row) in suspects for row in rows):
            rows = rows[:1]
        try:
            await self._run_lane(rows)
        except Fallen:
            suspects.update(map(place_of, rows))

    async def _commit(self, write: WriteSet) -> None:
        [answer] = await self.database.commit([write])
        stands(answer)

    async def _run_lane(self, rows: Sequence[Held]) -> None:
        consumer, failing = self.consumer, self.consumer.failing
        lane, marks = await self._lane(rows)
        if not lane:
            return
        wanted = [row for row in lane if consumer.worker.wants(row.message)]
        mine = [Arrival(row.message, strict=True, attempt=row.attempts + 1) for row in wanted]
        fence = self.fence()
        fault.point("retry.due")
        await self._commit(WriteSet(fence=fence, note=Note(self.name, list(map(place_of, lane)))))
        fault.point("retry.noted")

        def settle(outcome: Outcome) -> WriteSet:
            failed = {id(wanted[index]): error for index, error in outcome.failures.items()}
            behind = {id(wanted[index]) for index in outcome.behind}
            return WriteSet(
                appends=outcome.appends,
                conditions=outcome.conditions,
                fence=fence,
                marks=marks,
                checkpoints=outcome.checkpoints,
                holds=[failing.failed(row, failed[id(row)]) for row in lane if id(row) in failed],
                releases=[Release(consumer.name, *place_of(row)) for row in lane if id(row) not in behind],
                timers=outcome.timers,
                cancels=outcome.cancels,
                sagas=outcome.sagas,
                upserts=outcome.upserts,
                note=Note(self.name, ()),
                journal=consumer.journal(mine, outcome),
            )

        await consumer.run(mine, settle)
        fault.point("retry.settled")


def place_of(row: Held) -> Place:
    """The place of a held message in its stream."""
    return row.message.stream, row.message.version
