"""The one loop: a source feeds its consumers, batch by batch.

Before a batch is run it is noted in the transaction that settles the batch before (an idle feed pays a commit for it). A
note that is found at a start tells what was in flight at a crash: those messages run one at a time, and only one that was
alone when the process ended is charged for it.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable, Sequence
from itertools import zip_longest

from headwater.checkpoint import Checkpoint
from headwater.clock import Clock
from headwater.consumer.arrival import Arrival
from headwater.consumer.consumer import Consumer
from headwater.database import Database, WriteSet
from headwater.inbox import Held, Note, Reason
from headwater.lease import Fence
from headwater.message import Recorded
from headwater.outbox import topic_of
from headwater.source import Batch, Malformed, Source

BATCH = 500
HELD_AT_ONCE = 100

Place = tuple[str, int]


class Feed:
    """Feeds consumers from one source. `step` does one batch, if there is one."""

    def __init__(
        self,
        name: str,
        source: Source,
        consumers: Sequence[Consumer],
        database: Database,
        clock: Clock,
        *,
        fence: Callable[[], Fence | None] = lambda: None,
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
        self._noted: Batch | None = None
        self._suspects: set[Place] | None = None
        self._crashed: set[Place] = set()

    async def step(self) -> bool:
        """Run held messages that are due and one batch; whether there was anything to do."""
        if self._suspects is None:
            await self._recall()
        worked = False
        for consumer in self.consumers:
            worked |= await consumer.retry_held(HELD_AT_ONCE)
        if await self._blocked():
            return worked
        batch = self._next or await self.source.fetch(self.size)
        self._next = None
        if batch is None:
            return worked
        try:
            await self._run(batch)
        except BaseException:
            self._next = self._noted = None
            await self.source.release()
            raise
        return True

    async def wait(self, timeout: float) -> None:
        """Until there may be something to do."""
        if await self._blocked():
            await self.clock.sleep(timeout)
        else:
            await self.source.wait(timeout)

    async def _recall(self) -> None:
        noted = await self.database.noted(self.name)
        self._crashed = set(noted) if len(noted) == 1 else set()
        self._suspects = set(noted) - self._crashed

    async def _blocked(self) -> bool:
        """Stop fetching when one consumer holds as much as it may, or when the breakers of all are open."""
        blocked = [await consumer.blocked() for consumer in self.consumers]
        outages = [consumer.failing.breaker.resting() for consumer in self.consumers]
        return any(full and not outage for full, outage in zip(blocked, outages, strict=True)) or all(outages)

    async def _run(self, batch: Batch) -> None:
        if batch.malformed:
            await self._bury(batch.malformed)
        if self._in_question(batch):
            await self._run_carefully(batch, self._suspects or set())
        else:
            if self._noted is not batch:
                await self._note(batch)
            self._next = await self.source.fetch(self.size)
            await self._take(batch, places(self._next.messages) if self._next else ())
            self._noted = self._next
        await self.source.acknowledge(batch)

    def _in_question(self, batch: Batch) -> bool:
        """Whether a batch has messages that were in flight at a crash; after the first that has none, none will come."""
        asked = (self._suspects or set()) | self._crashed
        if asked.isdisjoint(places(batch.messages)) and batch.messages:
            self._suspects, self._crashed = set(), set()
            return False
        return bool(asked)

    async def _run_carefully(self, batch: Batch, suspects: set[Place]) -> None:
        """Run what was in flight at a crash one at a time, each noted in the commit that settles the one before."""
        parts = split(batch, suspects)
        await self._note(parts[0])
        for part, after in zip_longest(parts, parts[1:]):
            await self._take(part, places(after.messages) if after else ())

    async def _note(self, batch: Batch) -> None:
        await self.database.commit([WriteSet(note=Note(self.name, places(batch.messages)))])

    async def _take(self, batch: Batch, following: Sequence[Place]) -> None:
        arrivals = [Arrival(message, strict=not self.source.ours) for message in batch.messages]
        crashed = [one for one in batch.messages if (one.stream, one.version) in self._crashed]
        note, fence = Note(self.name, following), self.fence()
        first, *others = self.consumers
        await asyncio.gather(
            first.take(batch, self._for(first, arrivals), note, fence, crashed),
            *(consumer.take(batch, self._for(consumer, arrivals), None, fence, crashed) for consumer in others),
        )
        done = set(places(batch.messages))
        self._crashed -= done
        self._suspects = (self._suspects or set()) - done

    def _for(self, consumer: Consumer, arrivals: Sequence[Arrival]) -> Sequence[Arrival]:
        """What a consumer takes of a batch: all of our own log, and its topics of a channel."""
        if self.source.ours:
            return arrivals
        return [one for one in arrivals if topic_of(one.message, "") in consumer.options.topics]

    async def _bury(self, malformed: Iterable[Malformed]) -> None:
        """Keep what is no message as a dead letter of the feed, raw."""
        now = self.clock.now()
        rows = [self._dead(one, now) for one in malformed]
        await self.database.commit([WriteSet(holds=rows)])

    def _dead(self, one: Malformed, now: int) -> Held:
        stream = f"?{one.topic}/{one.partition}"
        message = Recorded(
            one.position, stream, one.position, "event", "", one.headers.get("type", ""), 0, 0, now, 0, one.body, b"{}"
        )
        return Held(
            self.name,
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
    """A batch in parts: each suspect alone, the rest together; each part settles its own share of the checkpoint."""
    groups: list[list[Recorded]] = []
    alone = True
    for message in batch.messages:
        suspect = (message.stream, message.version) in suspects
        if suspect or alone:
            groups.append([])
        groups[-1].append(message)
        alone = suspect
    if batch.checkpoint is None or not groups:
        return [Batch(group) for group in groups] or [batch]
    ends = [group[-1].position for group in groups[:-1]] + [batch.checkpoint.position]
    starts = [batch.checkpoint.expect, *ends]
    return [
        Batch(group, (), Checkpoint(batch.checkpoint.name, end, start))
        for group, start, end in zip(groups, starts, ends, strict=False)
    ]
