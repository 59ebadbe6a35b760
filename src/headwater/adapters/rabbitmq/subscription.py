"""A member of a group that reads a channel. It waits in real time.

It reads the partitions that are its share among the members it hears of. One that is to go to another is given out no more, and
left when all that was given out of it is settled; the server then has the rest in order for whoever reads it next. Nothing is
ever sent back one by one: what returns alone would return behind what is there.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Sequence
from time import monotonic
from typing import Final

from msgspec import Struct

from headwater.adapters.rabbitmq.binding import read
from headwater.adapters.rabbitmq.connection import Connection
from headwater.adapters.rabbitmq.lines import Lines
from headwater.adapters.rabbitmq.making import Ground
from headwater.adapters.rabbitmq.partition import Item, Partition
from headwater.adapters.rabbitmq.roster import Roster
from headwater.adapters.rabbitmq.session import Closed
from headwater.adapters.rabbitmq.topology import Names
from headwater.channel import Delivery
from headwater.clock import Clock
from headwater.errors import ChannelError

LOOK: Final = 0.5
"""Seconds between two looks at what is this member's share, when nothing has changed."""

Run = tuple[Partition, list[Item]]
"""Items of a partition that were given out one after the other."""


class Batch(Struct, frozen=True):
    """What was fetched at once and is not acknowledged."""

    first: int
    count: int
    runs: list[Run]


class RabbitmqSubscription:
    """A member of a group; used by one task at a time. It shares the connections of its channel."""

    def __init__(
        self,
        lines: Lines,
        clock: Clock,
        group: str,
        topics: Sequence[str],
        member: str,
    ) -> None:
        self.closed = False
        self.group = group
        self.topics = tuple(dict.fromkeys(topics))
        self._lines = lines
        self._clock = clock
        self._name = f"member {member} of {group}"
        self._news = asyncio.Event()
        self._roster = Roster(clock.new_id(), group, self.topics, self._look)
        self._connection: Connection | None = None
        self._names: Names
        self._counts: dict[str, int] = {}
        self._partitions: dict[tuple[str, int], Partition] = {}
        self._in_hand: deque[Batch] = deque()
        self._look_at = 0.0
        self._from = 0
        self._position = 0

    async def fetch(self, limit: int) -> list[Delivery]:
        await asyncio.sleep(0)  # what has come is taken in, where nobody waits in between
        self._check()
        await self._share()
        found: list[Delivery] = []
        runs: list[Run] = []
        ready = [one for one in self._partitions.values() if one.waiting and not one.leaving]
        self._position = max(self._position, self._clock.now())
        for turn in range(len(ready)):
            partition = ready[(self._from + turn) % len(ready)]
            if len(found) >= limit:
                break
            items = partition.take(limit - len(found))
            runs.append((partition, items))
            found += self._deliveries(partition, items)
        self._from += len(runs)
        if found:
            self._in_hand.append(Batch(found[0].position, len(found), runs))
        return found

    async def wait(self, timeout: float) -> None:
        self._check()
        end = monotonic() + timeout
        while not self.closed:
            self._news.clear()
            await self._share()
            left = end - monotonic()
            if left <= 0 or any(one.waiting and not one.leaving for one in self._partitions.values()):
                return
            try:
                await asyncio.wait_for(self._news.wait(), min(left, LOOK))
            except TimeoutError:
                continue

    async def acknowledge(self, deliveries: Sequence[Delivery]) -> None:
        self._check()
        done = 0
        while done < len(deliveries):
            batch = self._in_hand[0] if self._in_hand else None
            if batch is None or batch.first != deliveries[done].position or done + batch.count > len(deliveries):
                raise ChannelError("only whole batches can be acknowledged, in the order they were fetched")
            for partition, items in self._in_hand.popleft().runs:
                partition.settle(items)
            done += batch.count
        await self._leave_what_is_settled()

    async def release(self) -> None:
        self._check_open()
        self._take_back()
        await self._leave_what_is_settled()

    async def close(self) -> None:
        if self.closed:
            return
        self.closed = True
        self._news.set()
        self._in_hand.clear()
        try:
            for partition in self._partitions.values():
                await partition.close()
            await self._roster.leave()
        except Closed:  # the server has it all back already
            return

    # --- lag ---

    async def look_ahead(self) -> None:
        """Read ahead, so that there is something to tell."""
        if not self.closed:
            await self._share()

    def behind(self, topic: str) -> tuple[int, int | None]:
        """How much came of a topic and is not settled, and since when the oldest of it waits (microseconds), if that is known."""
        given: dict[Partition, Item] = {}
        for batch in self._in_hand:
            for partition, items in batch.runs:
                given.setdefault(partition, items[0])
        mine = [one for one in self._partitions.values() if one.topic == topic]
        times = [time for one in mine if (time := one.oldest(given.get(one))) is not None]
        return sum(one.given + len(one.waiting) for one in mine), min(times) * 1_000_000 if times else None

    # --- sharing ---

    def _look(self) -> None:
        self._look_at = 0.0
        self._news.set()

    async def _share(self) -> None:
        """Read what is this member's share, and leave the rest."""
        if self._connection is None or self._connection.closed is not None:
            await self._connect()
        elif monotonic() < self._look_at:
            return
        if not self._roster.speaks and not self._lines.blocked:
            await self._roster.speak_on((await self._lines.publishing()).connection, self._names)
        look_at = monotonic() + LOOK
        self._look_at = 0.0
        mine = {(topic, number) for topic in self.topics for number in self._roster.share(topic, self._counts[topic])}
        for place, partition in list(self._partitions.items()):
            partition.leaving = place not in mine
            if partition.lost is not None:
                del self._partitions[place]
        await self._leave_what_is_settled()
        for place in sorted(mine - self._partitions.keys()):
            await self._read(*place)
        self._look_at = look_at

    async def _connect(self) -> None:
        self._partitions = {}
        connection = await self._lines.reading()
        ground = Ground(connection)
        for topic in self.topics:
            self._counts[topic] = await ground.count(topic, self.group)
            if not self._counts[topic]:
                raise ChannelError(f"{self.group} has no queues on {topic}: make them with: headwater channel apply")
        self._names = ground.names
        await self._roster.listen(connection, ground.names)
        self._connection = connection

    async def _read(self, topic: str, number: int) -> None:
        assert self._connection is not None
        ground = Ground(self._connection)
        queue = ground.names.queue(topic, self.group, number, self._counts[topic])
        partition = Partition(topic, number, queue, self._news.set, self._look)
        await partition.open(self._connection, ground.options.prefetch)
        self._partitions[topic, number] = partition

    async def _leave_what_is_settled(self) -> None:
        for place, partition in list(self._partitions.items()):
            if partition.leaving and not partition.given:
                del self._partitions[place]
                await partition.close()

    # --- what is in hand ---

    def _deliveries(self, partition: Partition, items: list[Item]) -> list[Delivery]:
        topic, number, position = partition.topic, partition.number, self._position
        found = []
        for _, raw, body in items:
            position += 1
            content = read(raw)
            found.append(Delivery(topic, content.key, content.headers, body, position, number))
        self._position = position
        return found

    def _take_back(self) -> None:
        while self._in_hand:
            for partition, items in reversed(self._in_hand.pop().runs):
                partition.take_back(items)

    def _check(self) -> None:
        """Whether what is in hand is still this member's; where it is not, all of it is given up."""
        self._check_open()
        lost = next((p.lost for batch in self._in_hand for p, _ in batch.runs if p.lost is not None), None)
        if lost is not None:
            self._take_back()
            self._look_at = 0.0
            raise ChannelError(f"{self._name} has lost what it had fetched, which comes again: {lost}")

    def _check_open(self) -> None:
        if self.closed:
            raise ChannelError(f"{self._name} has left")
