"""The one loop: a source feeds its consumers, batch by batch.

A feed that runs says so in one note, and takes it back when it stops: steady work pays nothing for it. A note that is found at
a start tells of a crash: what was running can only be the next messages of the source, as many as the largest batch had. They
run one at a time, each noted by itself before, and only one that was alone when the process ended is charged for it.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Sequence

from headwater import fault
from headwater.checkpoint import Checkpoint
from headwater.clock import Clock
from headwater.consumer.arrival import Arrival
from headwater.consumer.consumer import Consumer, Fallen, FenceNow, Place
from headwater.database import Database, WriteSet, stands
from headwater.inbox import Held, Note, Reason
from headwater.message import Recorded
from headwater.outbox import topic_of
from headwater.source import Batch, Malformed, Source

BATCH = 500
RUNNING = ""
"""In the place of a stream in a note: so many messages, whichever come next."""
FEW = 16


class Feed:
    """Feeds consumers from one source. `step` does one batch, if there is one; `name` is that of its note."""

    def __init__(
        self,
        name: str,
        source: Source,
        consumers: Sequence[Consumer],
        database: Database,
        clock: Clock,
        *,
        fence: FenceNow = lambda: None,
        size: int = BATCH,
    ) -> None:
        self.name = name
        self.source = source
        self.consumers = consumers
        self.database = database
        self.clock = clock
        self.fence = fence
        self.size = size
        self._next: Batch | None = None
        self._noted: Sequence[Place] | None = None
        self._largest = min(FEW, size)
        self._unsure = 0
        self._suspects: set[Place] = set()
        self._crashed: set[Place] = set()
        self._tried: list[int] = []
        self._begun = False

    async def begin(self) -> None:
        """Another member may have run it since: forget what was fetched, and look at what was in hand."""
        await self._forget()
        noted = await self.database.noted(self.name)
        self._noted = tuple(noted)
        self._suspects, self._crashed, self._unsure = set(), set(), 0
        match noted:
            case [(stream, count)] if stream == RUNNING:
                self._unsure = count
            case [place]:
                self._crashed = {place}
            case _:
                self._suspects = set(noted)
        self._begun = True

    async def end(self) -> None:
        """It stops with nothing in hand: a start after this one need not ask what was."""
        if self._begun and self._noted != ():
            await self._note(())

    async def step(self) -> int:
        """Run one batch; how many messages it had, at least 1 where there was one."""
        if not self._begun:
            await self.begin()
        if await self._blocked():
            return 0
        batch = self._next or await self._fetch()
        self._next = None
        if batch is None:
            return 0
        try:
            await self._run(batch)
        except Fallen:
            self._suspects.update(places(batch.messages))
            await self._forget()
        except BaseException:
            await self._forget()
            raise
        return max(1, len(batch.messages))

    async def wait(self, timeout: float) -> None:
        """Until there may be something to do."""
        if await self._blocked():
            await self.clock.sleep(timeout)
        else:
            await self.source.wait(timeout)

    async def _forget(self) -> None:
        self._next = self._noted = None
        await self.source.release()

    async def _fetch(self) -> Batch | None:
        """The next batch; one message to see whether an outage is over."""
        trips = self._trips()
        batch = await self.source.fetch(1 if all(trips) else self.size)
        self._tried = trips if batch is not None else []
        fault.point("feed.fetched")
        return batch

    async def _blocked(self) -> bool:
        """Stop fetching when one consumer holds as much as it may, or when the breakers of all are open.

        When their rest is over, one message is fetched; no more before it is known what became of the dependency.
        """
        full = [await consumer.full() for consumer in self.consumers]
        resting = all(consumer.failing.breaker.resting() for consumer in self.consumers)
        trips = self._trips()
        return any(full) or resting or (all(trips) and trips == self._tried)

    def _trips(self) -> list[int]:
        """How often the breaker of each consumer has opened in the present outage."""
        return [consumer.failing.breaker.trips for consumer in self.consumers]

    async def _run(self, batch: Batch) -> None:
        if batch.malformed:
            await self._bury(batch.malformed)
        while self._largest < min(len(batch.messages), self.size):
            self._largest = min(4 * self._largest, self.size)
        if self._unsure:
            await self._suspect(batch)
        if self._in_question(batch):
            await self._run_carefully(split(batch, self._suspects))
        else:
            if batch.messages and self._noted != self._running:
                await self._note(self._running)
            if len(batch.messages) >= FEW:
                self._next = await self._fetch()
            await self._take(batch, None)
        fault.point("feed.settled")
        await self.source.acknowledge(batch)
        fault.point("feed.acknowledged")

    def _in_question(self, batch: Batch) -> bool:
        """Whether a batch has messages that were in flight at a crash, or fell."""
        asked = self._suspects | self._crashed
        return bool(asked) and not asked.isdisjoint(places(batch.messages))

    async def _suspect(self, batch: Batch) -> None:
        """Of a batch that may have been in hand at a crash, suspect what is new to one of the consumers."""
        new = set(places(batch.messages))
        if batch.checkpoint is None:
            streams = list({stream for stream, _ in new})
            marks = [await self.database.marks(consumer.name, streams) for consumer in self.consumers]
            new = {(stream, version) for stream, version in new if any(version > of.get(stream, 0) for of in marks)}
        suspects = [place for place in places(batch.messages) if place in new][: self._unsure]
        self._suspects.update(suspects)
        self._unsure -= len(suspects)

    async def _run_carefully(self, parts: Sequence[Batch]) -> None:
        """Run parts of a batch one after another, each noted alone: where it can be in the commit that settles the one before."""
        notes = [
            *(places(part.messages) if len(part.messages) == 1 else self._running for part in parts),
            self._running,
        ]
        await self._note(notes[0])
        for part, after in zip(parts, notes[1:], strict=True):
            await self._take(part, after if self._alone else None)
            fault.point("feed.parted")
            if self._noted != after:
                await self._note(after)

    @property
    def _running(self) -> Sequence[Place]:
        """The note of a feed that runs: how many messages a crash may find in its hands."""
        return ((RUNNING, self._largest),)

    @property
    def _alone(self) -> bool:
        """Whether one consumer settles a whole batch; where several do, it stays noted until all have."""
        return len(self.consumers) == 1

    async def _note(self, places: Sequence[Place]) -> None:
        await self._commit(WriteSet(note=Note(self.name, places), fence=self.fence()))
        self._noted = places
        fault.point("feed.noted")

    async def _commit(self, write: WriteSet) -> None:
        [answer] = await self.database.commit([write])
        stands(answer)

    async def _take(self, batch: Batch, noted: Sequence[Place] | None) -> None:
        """Let every consumer take a batch, and wait for all; the first to settle writes the note, if one is given."""
        arrivals = [Arrival(message, strict=not self.source.ours) for message in batch.messages]
        shares = [(one, self._for(one, arrivals)) for one in self.consumers]
        first, *others = [share for share in shares if share[1] or share[0].tallies(batch)] or shares[:1]
        note = Note(self.name, noted) if noted is not None else None
        done = await asyncio.gather(
            first[0].take(batch, first[1], note, self.fence, self._crashed),
            *(one.take(batch, share, None, self.fence, self._crashed) for one, share in others),
            return_exceptions=True,
        )
        failed = [error for error in done if isinstance(error, BaseException)]
        for error in sorted(failed, key=lambda error: isinstance(error, Fallen)):
            raise error
        self._noted = self._noted if noted is None else noted
        if self._suspects or self._crashed:
            self._suspects.difference_update(places(batch.messages))
            self._crashed.difference_update(places(batch.messages))

    def _for(self, consumer: Consumer, arrivals: Sequence[Arrival]) -> Sequence[Arrival]:
        """What a consumer takes of a batch: all of it, or its topics."""
        if self._alone:
            return arrivals
        topics, listened = consumer.options.topics, consumer.options.listened
        return [one for one in arrivals if topic_of(one.message, "") in topics or one.message.type in listened]

    async def _bury(self, malformed: Iterable[Malformed]) -> None:
        """Keep what is no message as a dead letter of the source, raw."""
        now = self.clock.now()
        await self._commit(WriteSet(holds=[self._dead(one, now) for one in malformed]))
        fault.point("feed.buried")

    def _dead(self, one: Malformed, now: int) -> Held:
        stream = f"?{one.topic}/{one.partition}"
        message = Recorded(
            one.position, stream, one.position, "event", "", one.headers.get("type", ""), 0, 0, now, 0, one.body, b"{}"
        )
        return Held(
            self.source.name,
            stream,
            message,
            Reason.DEAD,
            attempts=1,
            cause=one.cause,
            since=now,
            headers=one.headers,
            raw=True,
        )


def places(messages: Iterable[Recorded]) -> list[Place]:
    """The places of messages in their streams."""
    return [(message.stream, message.version) for message in messages]


def split(batch: Batch, suspects: set[Place]) -> list[Batch]:
    """A batch in parts: each suspect alone, the rest together; each part settles its own share of the checkpoint.

    Its tallies come with the last part: they speak of what is in the others, too.
    """
    groups: list[list[Recorded]] = []
    alone = True
    for message in batch.messages:
        suspect = (message.stream, message.version) in suspects
        if suspect or alone:
            groups.append([])
        groups[-1].append(message)
        alone = suspect
    if not groups:
        return [batch]
    if batch.checkpoint is None:
        return [*map(Batch, groups[:-1]), Batch(groups[-1], tallies=batch.tallies)]
    ends = [group[-1].position for group in groups[:-1]] + [batch.checkpoint.position]
    starts = [batch.checkpoint.expect, *ends]
    return [
        Batch(group, (), Checkpoint(batch.checkpoint.name, end, start))
        for group, start, end in zip(groups, starts, ends, strict=False)
    ]
