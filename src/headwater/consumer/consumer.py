"""One consumer: its marks, its breaker and its custody around a worker."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Collection, Sequence
from itertools import chain

from msgspec import Struct

from headwater import fault
from headwater.claims import Claims
from headwater.clock import Clock
from headwater.consumer.arrival import Arrival, Outcome, Worker
from headwater.consumer.custody import Sorted, sort_delivered, sort_logged
from headwater.consumer.failing import Failing
from headwater.consumer.tallying import Checking
from headwater.database import Answer, Collision, Database, Failed, WriteSet, stands
from headwater.errors import Conflict, HeadwaterError, Unknown
from headwater.inbox import Held, Mark, Note, Reason
from headwater.lease import Fence
from headwater.message import CLAIM, Recorded
from headwater.retry import Retry
from headwater.source import Batch, Tally
from headwater.store import Committed
from headwater.telemetry import signal

COLLISIONS = 50
RECOUNT = 1.0

Place = tuple[str, int]
Settle = Callable[[Outcome], WriteSet]
FenceNow = Callable[[], Fence | None]


class Limits(Struct, frozen=True):
    """How much a consumer may hold before it stops fetching, and how many crashes of the process one message may cause."""

    held_messages: int = 100_000
    held_bytes: int = 1 << 30
    crashes: int = 5


class Options(Struct, frozen=True):
    """How a consumer retries, what it may hold, whether it journals, whether new streams start now, and its topics.

    `listened` are types of events whose topics are not ours, `claims` where bodies are that did not come with their messages.
    """

    retry: Retry = Retry()
    limits: Limits = Limits()
    journal: bool = False
    from_now: bool = False
    topics: frozenset[str] = frozenset()
    listened: frozenset[str] = frozenset()
    claims: Claims | None = None


class Fallen(HeadwaterError):
    """A batch fell as a whole, and nobody knows by which message: they are run one at a time."""

    retryable = True


class Consumer:
    """Takes messages into custody, runs its worker on those whose turn it is, and settles both in one write set."""

    def __init__(self, name: str, worker: Worker, database: Database, clock: Clock, options: Options) -> None:
        self.name = name
        self.worker = worker
        self.database = database
        self.clock = clock
        self.options = options
        self.failing = Failing(name, clock, options.retry, options.limits.crashes)
        self.checking = Checking(name, database, clock, from_now=options.from_now)
        self.turn = asyncio.Lock()
        self._counted = -RECOUNT
        self._full = False

    async def full(self) -> bool:
        """Whether it holds as much as it may."""
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
        fence: FenceNow,
        crashed: Collection[Place] = (),
    ) -> None:
        """Run and settle a batch; again from the start for as long as what was expected has moved meanwhile.

        `crashed` are places of messages that are held, not run: the process ended while they were running alone. Raises
        Conflict where another process has taken the batch, Fallen where the batch must be taken one message at a time.
        """
        async with self.turn:
            for tried in range(COLLISIONS):
                if await self._take(batch, arrivals, note, fence, crashed):
                    return
                await self._check_place(batch)
                await self.clock.sleep(self.clock.random() * 0.002 * tried)
        raise Conflict(f"{self.name}: the batch collided {COLLISIONS} times with other writers")

    async def _check_place(self, batch: Batch) -> None:
        place = batch.checkpoint
        if place is not None and await self.database.checkpoint(place.name) != place.expect:
            raise Conflict(f"{self.name}: another process has taken the batch")

    async def _take(
        self,
        batch: Batch,
        arrivals: Sequence[Arrival],
        note: Note | None,
        fence: FenceNow,
        crashed: Collection[Place],
    ) -> bool:
        held_by = fence()
        found, marks = await self._sort(batch, [arrival.message for arrival in arrivals])
        told = await self.checking.check(self.tallies(batch), found.marks, marks)
        if not (arrivals or batch.checkpoint or note or told.marks or told.holds):
            return True
        fresh = set(map(id, found.fresh))
        wanted = [one for one in arrivals if id(one.message) in fresh and self.worker.wants(one.message)]
        mine, kept = self._allowed(wanted, crashed)

        def settle(outcome: Outcome) -> WriteSet:
            return WriteSet(
                appends=outcome.appends,
                conditions=outcome.conditions,
                fence=held_by,
                marks=[
                    Mark(self.name, stream, to, marks.get(stream, 0))
                    for stream, to in chain(found.marks.items(), told.marks.items())
                ],
                checkpoints=[*((batch.checkpoint,) if batch.checkpoint else ()), *outcome.checkpoints],
                holds=[*found.holds, *told.holds, *kept, *self.failing.holds(mine, outcome)],
                timers=outcome.timers,
                cancels=outcome.cancels,
                sagas=outcome.sagas,
                upserts=outcome.upserts,
                note=note,
                journal=self.journal(mine, outcome),
            )

        settled = await self.run(mine, settle)
        if settled:
            self.checking.moved(found.marks)
        return settled

    async def _sort(self, batch: Batch, messages: Sequence[Recorded]) -> tuple[Sorted, dict[str, int]]:
        """Sort messages by what is known of their keys: the marks first, since who holds a message has moved its mark."""
        keys = list({message.key for message in messages})
        now = self.clock.now()
        if batch.checkpoint is not None:
            wanted = [one for one in messages if self.worker.wants(one)]
            return sort_logged(self.name, wanted, await self.database.held_keys(self.name, keys), now), {}
        marks = await self.database.marks(self.name, keys)
        held = await self.database.held_keys(self.name, keys)
        found = sort_delivered(self.name, messages, marks, held, now, from_now=self.options.from_now)
        for row in found.holds:
            if row.reason is Reason.GAP:
                signal("consumer.gap", logging.WARNING, consumer=self.name, stream=row.key, version=row.message.version)
        return found, marks

    def tallies(self, batch: Batch) -> Sequence[Tally]:
        """The tallies of a batch that are about its topics."""
        return [one for one in batch.tallies if one.topic in self.options.topics]

    def _allowed(self, wanted: Sequence[Arrival], crashed: Collection[Place]) -> tuple[Sequence[Arrival], list[Held]]:
        """What may run now, and the rest as it is held: what took the process with it, what is behind that, an outage."""
        failing = self.failing
        most = failing.allowed()
        if len(wanted) <= most and not crashed:
            return wanted, []
        run: list[Arrival] = []
        holds: list[Held] = []
        struck: set[str] = set()
        for one in wanted:
            message = one.message
            if message.key in struck:
                holds.append(failing.row(message, Reason.BEHIND))
            elif (message.stream, message.version) in crashed:
                holds.append(failing.crashed(failing.row(message, Reason.RETRY)))
                struck.add(message.key)
            elif len(run) < most:
                run.append(one)
            else:
                holds.append(failing.row(message, Reason.RETRY))
        return run, holds

    def journal(self, arrivals: Sequence[Arrival], outcome: Outcome) -> Sequence[tuple[str, str, int]]:
        """The lines of the journal for the messages whose effect is in an outcome, where the consumer keeps one."""
        if not self.options.journal:
            return ()
        undone = outcome.failures.keys() | outcome.behind
        return [
            (self.name, one.message.stream, one.message.version)
            for index, one in enumerate(arrivals)
            if index not in undone
        ]

    async def run(self, arrivals: Sequence[Arrival], settle: Settle) -> bool:
        """Run the worker and commit what it gives; False if the write set collided.

        A message that falls alone has failed; where several fall together, raises Fallen.
        """
        outcome = Outcome()
        if elsewhere := [one for one in arrivals if one.message.codec == CLAIM]:
            await asyncio.gather(*(one.redeem(self.options.claims) for one in elsewhere))
        try:
            outcome, answer = await self._run(arrivals, settle)
            if isinstance(answer, Failed):
                raise answer.error
        except Exception as error:
            self.worker.undo()
            if not arrivals or isinstance(error, Unknown):
                raise
            if len(arrivals) > 1:
                raise Fallen(f"{self.name}: {len(arrivals)} messages fell together: {error}") from error
            outcome = Outcome(failures={0: error})
            fault.point("consumer.fell")
            [answer] = await self.database.commit([settle(outcome)])
        except BaseException:
            self.worker.undo()
            raise
        return self._answered(answer, arrivals, outcome)

    async def _run(self, arrivals: Sequence[Arrival], settle: Settle) -> tuple[Outcome, Answer]:
        if self.worker.transactional and arrivals:
            return await self._run_inside(arrivals, settle)
        outcome = await self.worker.run(arrivals, None) if arrivals else Outcome()
        fault.point("consumer.ran")
        [answer] = await self.database.commit([settle(outcome)])
        return outcome, answer

    async def _run_inside(self, arrivals: Sequence[Arrival], settle: Settle) -> tuple[Outcome, Answer]:
        outcome = Outcome()
        try:
            async with self.database.transaction() as transaction:
                outcome = await self.worker.run(arrivals, transaction)
                fault.point("consumer.ran_inside")
                [answer] = transaction.write([settle(outcome)])
                fault.point("consumer.wrote_inside")
                if not isinstance(answer, Committed):
                    raise _Undone(answer)
        except _Undone as undone:
            answer = undone.answer
        return outcome, answer

    def _answered(self, answer: Answer, arrivals: Sequence[Arrival], outcome: Outcome) -> bool:
        if not isinstance(answer, Committed):
            self.worker.undo()
        if isinstance(answer, Collision):
            return False
        stands(answer)
        fault.point("consumer.committed")
        self.failing.settled(arrivals, outcome)
        if outcome.failures:
            self._counted = -RECOUNT
        return True


class _Undone(HeadwaterError):
    """Leaves a transaction whose write set fell."""

    def __init__(self, answer: Answer) -> None:
        super().__init__(str(answer))
        self.answer = answer
