"""One consumer: its marks, its held messages, its retries and its breaker around a worker."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Sequence

from msgspec import Struct

from headwater.clock import Clock
from headwater.consumer.arrival import Arrival, Outcome, Worker
from headwater.consumer.custody import Sorted, lane_of, sort_delivered, sort_logged
from headwater.consumer.failing import Failing
from headwater.database import Answer, Collision, Database, Failed, WriteSet
from headwater.errors import Conflict, DatabaseError, HeadwaterError
from headwater.inbox import Held, Mark, Note, Reason, Release
from headwater.lease import Fence
from headwater.message import Recorded
from headwater.retry import Retry
from headwater.source import Batch
from headwater.store import Committed
from headwater.telemetry import signal

COLLISIONS = 50
RECOUNT = 1.0

Settle = Callable[[Outcome], WriteSet]


class Limits(Struct, frozen=True):
    """How much a consumer may hold before it stops fetching, and how many crashes of the process one message may cause."""

    held_messages: int = 100_000
    held_bytes: int = 1 << 30
    crashes: int = 5


class Options(Struct, frozen=True):
    """How a consumer retries, what it may hold, whether it journals, whether new streams start now, and its topics."""

    retry: Retry = Retry()
    limits: Limits = Limits()
    journal: bool = False
    from_now: bool = False
    topics: frozenset[str] = frozenset()


class Consumer:
    """Takes messages into custody, runs its worker on those whose turn it is, and settles both in one write set."""

    def __init__(self, name: str, worker: Worker, database: Database, clock: Clock, options: Options) -> None:
        self.name = name
        self.worker = worker
        self.database = database
        self.clock = clock
        self.options = options
        self.failing = Failing(name, clock, options.retry, options.limits.crashes)
        self._turn = asyncio.Lock()
        self._counted = -RECOUNT
        self._full = False
        self._suspects: set[tuple[str, int]] | None = None

    async def blocked(self) -> bool:
        """Whether nothing should be fetched for it: its breaker is open, or it holds as much as it may."""
        if self.failing.breaker.resting():
            return True
        if self.clock.monotonic() - self._counted >= RECOUNT:
            count, size = await self.database.held_count(self.name)
            self._full = count >= self.options.limits.held_messages or size >= self.options.limits.held_bytes
            self._counted = self.clock.monotonic()
        return self._full

    async def take(
        self,
        batch: Batch,
        arrivals: Sequence[Arrival],
        note: Note | None,
        fence: Fence | None,
        crashed: Sequence[Recorded] = (),
    ) -> None:
        """Run and settle a batch; again from the start for as long as what was expected has moved meanwhile.

        `crashed` are messages that are held, not run: the process ended while they were running alone.
        """
        async with self._turn:
            for tried in range(COLLISIONS):
                if await self._take(batch, arrivals, note, fence, crashed):
                    return
                await self.clock.sleep(self.clock.random() * 0.002 * tried)
        raise Conflict(f"{self.name}: the batch collided {COLLISIONS} times with other writers")

    async def _take(
        self,
        batch: Batch,
        arrivals: Sequence[Arrival],
        note: Note | None,
        fence: Fence | None,
        crashed: Sequence[Recorded],
    ) -> bool:
        found, marks = await self._sort(batch, [arrival.message for arrival in arrivals])
        holds = found.holds
        if crashed:
            holds += [self._charge(one) for one in found.fresh if one in crashed and self.worker.wants(one)]
            found.fresh = [one for one in found.fresh if one not in crashed]
        fresh = set(map(id, found.fresh))
        mine = [one for one in arrivals if id(one.message) in fresh and self.worker.wants(one.message)]
        if self.failing.breaker.resting():
            holds += [self.failing.postponed(one.message) for one in mine]
            mine = []

        def settle(outcome: Outcome) -> WriteSet:
            return WriteSet(
                appends=outcome.appends,
                fence=fence,
                marks=[Mark(self.name, stream, to, marks.get(stream, 0)) for stream, to in found.marks.items()],
                checkpoints=(batch.checkpoint,) if batch.checkpoint else (),
                holds=[*holds, *self.failing.holds(mine, outcome)],
                timers=outcome.timers,
                cancels=outcome.cancels,
                sagas=outcome.sagas,
                upserts=outcome.upserts,
                note=note,
                journal=self._journal(mine, outcome),
            )

        return await self._run(mine, settle)

    async def _sort(self, batch: Batch, messages: Sequence[Recorded]) -> tuple[Sorted, dict[str, int]]:
        keys = list({message.key for message in messages})
        held = await self.database.held_keys(self.name, keys)
        now = self.clock.now()
        if batch.checkpoint is not None:
            return sort_logged(self.name, [one for one in messages if self.worker.wants(one)], held, now), {}
        marks = await self.database.marks(self.name, keys)
        found = sort_delivered(self.name, messages, marks, held, now, from_now=self.options.from_now)
        for row in found.holds:
            if row.reason is Reason.GAP:
                signal("consumer.gap", logging.WARNING, consumer=self.name, stream=row.key, version=row.message.version)
        return found, marks

    def _charge(self, message: Recorded) -> Held:
        now = self.clock.now()
        return self.failing.crashed(Held(self.name, message.key, message, Reason.RETRY, due=now, since=now))

    def _journal(self, arrivals: Sequence[Arrival], outcome: Outcome) -> Sequence[tuple[str, str, int]]:
        if not self.options.journal:
            return ()
        undone = outcome.failures.keys() | outcome.behind
        return [
            (self.name, one.message.stream, one.message.version)
            for index, one in enumerate(arrivals)
            if index not in undone
        ]

    async def _run(self, arrivals: Sequence[Arrival], settle: Settle) -> bool:
        """Run the worker and commit what it gives; False if the write set collided."""
        if self.worker.transactional and arrivals:
            return await self._run_inside(arrivals, settle)
        outcome = await self.worker.run(arrivals, None) if arrivals else Outcome()
        try:
            [answer] = await self.database.commit([settle(outcome)])
        except BaseException:
            self.worker.undo()
            raise
        return self._answered(answer, arrivals, outcome)

    async def _run_inside(self, arrivals: Sequence[Arrival], settle: Settle) -> bool:
        outcome = Outcome()
        try:
            async with self.database.transaction() as transaction:
                outcome = await self.worker.run(arrivals, transaction)
                [answer] = transaction.write([settle(outcome)])
                if not isinstance(answer, Committed):
                    raise _Undone(answer)
        except _Undone as undone:
            answer = undone.answer
        return self._answered(answer, arrivals, outcome)

    def _answered(self, answer: Answer, arrivals: Sequence[Arrival], outcome: Outcome) -> bool:
        if isinstance(answer, Committed):
            self.failing.settled(arrivals, outcome)
            if outcome.failures:
                self._counted = -RECOUNT
            return True
        self.worker.undo()
        if isinstance(answer, Collision):
            return False
        if isinstance(answer, Failed):
            raise answer.error
        raise DatabaseError(f"{self.name}: a batch was not settled: {answer}")

    async def retry_held(self, limit: int) -> bool:
        """Run held messages whose turn it is, key by key; whether there were any."""
        await self._recall()
        if self.failing.breaker.resting():
            return False
        most = 1 if self.failing.breaker.probing else limit
        heads = await self.database.held_due(self.name, self.clock.now(), most)
        for head in heads:
            async with self._turn:
                await self._run_lane(await self.database.held_of(self.name, head.key, most))
            if self.failing.breaker.resting():
                break
        return bool(heads)

    @property
    def _feed(self) -> str:
        return f"{self.name}/held"

    async def _recall(self) -> None:
        """Find out what was running from the held table when the process ended; charge a message that ran alone."""
        if self._suspects is not None:
            return
        noted = await self.database.noted(self._feed)
        self._suspects = set(noted)
        if len(noted) != 1:
            return
        [(stream, version)] = noted
        rows = [row for row in await self.database.held_of(self.name, stream, 1000) if row.message.version == version]
        await self.database.commit(
            [WriteSet(holds=[self.failing.crashed(row) for row in rows], note=Note(self._feed, ()))]
        )

    async def _run_lane(self, rows: Sequence[Held]) -> None:
        marks = await self.database.marks(self.name, [row.message.stream for row in rows])
        reached = dict(marks)
        lane = lane_of(rows, reached)
        if self._suspects and any((row.message.stream, row.message.version) in self._suspects for row in lane):
            reached = dict(marks)
            lane = lane_of(rows[:1], reached)
        if not lane:
            return
        arrivals = {id(row.message): Arrival(row.message, strict=True, attempt=row.attempts + 1) for row in lane}
        mine = [arrivals[id(row.message)] for row in lane if self.worker.wants(row.message)]
        await self.database.commit(
            [WriteSet(note=Note(self._feed, [(one.message.stream, one.message.version) for one in mine]))]
        )

        def settle(outcome: Outcome) -> WriteSet:
            failed = {id(mine[index].message): error for index, error in outcome.failures.items()}
            behind = {id(mine[index].message) for index in outcome.behind}
            return WriteSet(
                appends=outcome.appends,
                marks=[
                    Mark(self.name, stream, to, marks.get(stream, 0))
                    for stream, to in reached.items()
                    if to != marks.get(stream, 0)
                ],
                holds=[self.failing.failed(row, failed[id(row.message)]) for row in lane if id(row.message) in failed],
                releases=[
                    Release(self.name, row.message.stream, row.message.version)
                    for row in lane
                    if id(row.message) not in failed and id(row.message) not in behind
                ],
                timers=outcome.timers,
                cancels=outcome.cancels,
                sagas=outcome.sagas,
                upserts=outcome.upserts,
                note=Note(self._feed, ()),
                journal=self._journal(mine, outcome),
            )

        await self._run(mine, settle)


class _Undone(HeadwaterError):
    """Leaves a transaction whose write set fell."""

    def __init__(self, answer: Answer) -> None:
        super().__init__(str(answer))
        self.answer = answer
