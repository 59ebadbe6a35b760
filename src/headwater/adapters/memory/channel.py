"""The channel contract in plain lists: no threads, no files, and the same order of things every time."""

from __future__ import annotations

import asyncio
from collections import Counter, deque
from collections.abc import Sequence
from typing import Final
from urllib.parse import parse_qsl, urlsplit
from weakref import WeakValueDictionary

from headwater.adapters.memory.broker import Group, MemoryBroker
from headwater.channel import ChannelCapabilities, Delivery, Finding, GroupLag, Publication, Route, Start
from headwater.clock import Clock
from headwater.errors import ChannelError, ChannelFull, ConfigurationError

OPTIONS: Final = {"limit": 0, "partitions": 8}

_named: WeakValueDictionary[str, MemoryBroker] = WeakValueDictionary()
"""What `memory://name` names, as a path names a file: for as long as anybody holds it."""


class MemoryChannel:
    """A channel in memory; its messages lie in `broker`, which outlives the object. Injected: the clock, for delays.

    With a `limit`, it takes nothing while a group has so many messages not acknowledged.
    """

    capabilities = ChannelCapabilities(delay=True, producer_position=True, durable=False, max_bytes=16 << 20)

    def __init__(self, clock: Clock, broker: MemoryBroker | None = None, *, limit: int = 0) -> None:
        self.clock = clock
        self.broker = MemoryBroker() if broker is None else broker
        self.limit = limit
        self._opened = False
        self._members: list[MemorySubscription] = []

    @classmethod
    def from_url(cls, url: str, clock: Clock) -> MemoryChannel:
        """The channel of `memory://` (its own messages) or `memory://name` (shared); options: `limit`, `partitions`."""
        try:
            parts = urlsplit(url)
        except ValueError as error:
            raise ConfigurationError(f"{url!r} is no URL ({error}): write memory:// or memory://name") from error
        options = dict(OPTIONS)
        for name, value in parse_qsl(parts.query, keep_blank_values=True):
            if name not in options or not value.isdecimal():
                raise ConfigurationError(
                    f"{url!r}: {name}={value} is none of the options {', '.join(options)}, whole numbers"
                )
            options[name] = int(value)
        if parts.scheme != "memory" or not url.startswith("memory://"):
            raise ConfigurationError(f"{url!r} is no URL of a memory channel: write memory:// or memory://name")
        name = parts.netloc + parts.path
        broker = MemoryBroker(options["partitions"])
        return cls(clock, _named.setdefault(name, broker) if name else broker, limit=options["limit"])

    async def open(self) -> None:
        self._opened = True

    async def close(self) -> None:
        for member in list(self._members):
            await member.close()
        self._opened = False

    def crash(self) -> None:
        """Stop as a killed process does: the broker notices that its members are gone; what they had comes again."""
        self._opened = False
        for member in list(self._members):
            member.leave()

    async def examine(self, routes: Sequence[Route]) -> list[Finding]:
        return []

    async def establish(self, routes: Sequence[Route]) -> list[str]:
        return []

    async def publish(
        self, publications: Sequence[Publication], *, producer: str = "", position: int = 0, epoch: int = 0
    ) -> dict[int, str]:
        broker = await self._turn()
        if producer and broker.producers.get(producer, (0, epoch))[1] > epoch:
            raise ChannelError(f"another relay of {producer} has taken over: this one, of epoch {epoch}, stops")
        if self.limit and publications and broker.backlog() >= self.limit:
            raise ChannelFull(
                f"a group has {self.limit} messages not acknowledged: let it catch up, or raise the limit"
            )
        answer = {index: why for index, one in enumerate(publications) if (why := self._refusal(one))}
        broker.publish([one for index, one in enumerate(publications) if index not in answer], self.clock.now())
        if producer:
            known, _ = broker.producers.get(producer, (0, epoch))
            broker.producers[producer] = (max(known, position), epoch)
        return answer

    async def producer_position(self, producer: str) -> int | None:
        broker = await self._turn()
        return broker.producers[producer][0] if producer in broker.producers else None

    async def subscribe(
        self, group: str, topics: Sequence[str], member: str, start: Start = "beginning"
    ) -> MemorySubscription:
        broker = await self._turn()
        broker.move_due(self.clock.now())
        joined = broker.group(group)
        joined.add_topics(topics, start)
        self._members.append(MemorySubscription(self, joined, topics, member))
        joined.join(self._members[-1])
        return self._members[-1]

    async def lag(self, group: str | None = None) -> list[GroupLag]:
        broker = await self._turn()
        broker.move_due(self.clock.now())
        return [lag for name, one in broker.groups.items() if group in (None, name) for lag in one.lag()]

    def expel(self) -> None:
        """As a broker does with members it has not heard of: what they have goes to others, until they fetch again."""
        for member in self._members:
            member.expel()

    def forget(self, member: MemorySubscription) -> None:
        """A member has left."""
        self._members.remove(member)

    def _refusal(self, publication: Publication) -> str:
        """Why a publication cannot go; empty if it can."""
        try:
            texts = [publication.topic, publication.key, *publication.headers.keys(), *publication.headers.values()]
            size = len(publication.body) + sum(len(text.encode()) for text in texts)
        except UnicodeEncodeError as error:
            return f"its key or a header is no text: {error}"
        most = self.capabilities.max_bytes
        return f"it has {size} bytes, and {most} is the most" if size > most else ""

    async def _turn(self) -> MemoryBroker:
        await asyncio.sleep(0)  # others run here, as they would while a disk writes
        if not self._opened:
            raise ChannelError("the channel is not open")
        return self.broker


class MemorySubscription:
    """A member of a group in memory."""

    def __init__(self, channel: MemoryChannel, group: Group, topics: Sequence[str], member: str) -> None:
        self.member = member
        self._channel = channel
        self._group = group
        self._broker = channel.broker
        self._topics = tuple(dict.fromkeys(topics))
        self._wanted = frozenset(topics)
        self._reached: dict[tuple[str, int], int] = {}
        self._in_hand: deque[list[Delivery]] = deque()
        self._of_partition: Counter[int] = Counter()
        self._closed = False
        self._expelled = False

    def holds(self, partition: int) -> bool:
        """Whether it has fetched messages of a partition and not acknowledged them."""
        return self._of_partition[partition] > 0

    async def fetch(self, limit: int) -> list[Delivery]:
        await asyncio.sleep(0)  # others run here, as they would while a disk is read
        found = self._next(limit)
        for delivery in found:
            self._reached[delivery.topic, delivery.partition] = delivery.position
            self._of_partition[delivery.partition] += 1
        if found:
            self._in_hand.append(found)
        return list(found)

    async def wait(self, timeout: float) -> None:
        clock = self._channel.clock
        end = clock.monotonic() + timeout
        while not self._next(1) and (left := end - clock.monotonic()) > 0:
            due = self._broker.next_due()
            left = left if due is None else min(left, max(due - clock.now(), 1) / 1_000_000)
            await self._broker.news(clock, self._wanted, left)

    async def acknowledge(self, deliveries: Sequence[Delivery]) -> None:
        self._check()
        done = 0
        while done < len(deliveries):
            batch = self._in_hand[0] if self._in_hand else []
            if not batch or deliveries[done : done + len(batch)] != batch:
                raise ChannelError("only whole batches can be acknowledged, in the order they were fetched")
            for delivery in self._in_hand.popleft():
                self._group.cursors[delivery.topic, delivery.partition] = delivery.position
                self._of_partition[delivery.partition] -= 1
            done += len(batch)
        self._group.settled()

    async def release(self) -> None:
        self._check()
        self._give_back()

    async def close(self) -> None:
        self.leave()

    def leave(self) -> None:
        """Leave the group; what was fetched and not acknowledged comes again, to another."""
        if not self._closed:
            self.expel()
            self._closed = True
            self._channel.forget(self)

    def expel(self) -> None:
        """Lose the partitions, and what was fetched and not acknowledged, until the next fetch."""
        if not self._expelled:
            self._expelled = True
            self._give_back()
            self._group.leave(self)

    def _give_back(self) -> None:
        self._in_hand.clear()
        self._of_partition.clear()
        self._reached.clear()
        self._broker.wake()

    def _next(self, limit: int) -> list[Delivery]:
        """The next messages of the partitions that are and stay with this member."""
        self._check()
        if self._expelled:
            self._expelled = False
            self._group.join(self)
        self._broker.move_due(self._channel.clock.now())
        found: list[Delivery] = []
        for partition in self._group.partitions_of(self):
            for topic in self._topics:
                place = (topic, partition)
                reached = max(self._reached.get(place, 0), self._group.cursors[place])
                found += self._broker.after(place, reached, self._group.name, limit)
        found.sort(key=lambda delivery: delivery.position)
        return found[: max(limit, 0)]

    def _check(self) -> None:
        if self._closed:
            raise ChannelError(f"the subscription of {self.member} is closed")
