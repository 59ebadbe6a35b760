"""What memory channels keep their messages in: topics of ordered partitions, groups with cursors, and what is delayed."""

from __future__ import annotations

import asyncio
import heapq
import zlib
from bisect import bisect_right
from collections.abc import Iterable, Sequence, Set
from typing import Protocol

from msgspec import Struct

from headwater.channel import Delivery, GroupLag, Publication, Start
from headwater.clock import Clock
from headwater.errors import ConfigurationError

Place = tuple[str, int]
"""A topic and one of its partitions."""


class Kept(Struct, frozen=True):
    """A message as the broker keeps it; `group`: for that group alone."""

    delivery: Delivery
    time: int
    group: str

    @property
    def position(self) -> int:
        """Where it stands among all messages."""
        return self.delivery.position


class Member(Protocol):
    """What a group must know of its members."""

    def holds(self, partition: int) -> bool: ...


class MemoryBroker:
    """The messages of a memory channel; several channel objects may share it."""

    def __init__(self, partitions: int = 8) -> None:
        if partitions < 1:
            raise ConfigurationError("a channel needs at least one partition")
        self.partitions = partitions
        self.position = 0
        self.groups: dict[str, Group] = {}
        self.producers: dict[str, tuple[int, int]] = {}
        self._places: dict[Place, list[Kept]] = {}
        self._delayed: list[tuple[int, int, Publication]] = []
        self._delays = 0
        self._waiting: dict[asyncio.Future[None], frozenset[str]] = {}

    def publish(self, publications: Iterable[Publication], now: int) -> None:
        """Take messages, in order."""
        self.move_due(now)
        topics = set()
        for publication in publications:
            topics.add(publication.topic)
            if publication.delay > 0:
                self._delays += 1
                due = now + round(publication.delay * 1_000_000)
                heapq.heappush(self._delayed, (due, self._delays, publication))
            else:
                self._keep(publication, now)
        self.wake(topics)

    def move_due(self, now: int) -> None:
        """Put what is due where it can be fetched."""
        while self._delayed and self._delayed[0][0] <= now:
            due, _, publication = heapq.heappop(self._delayed)
            self._keep(publication, due)

    def next_due(self) -> int | None:
        """When the next delayed message is due, in microseconds."""
        return self._delayed[0][0] if self._delayed else None

    def after(self, place: Place, position: int, group: str, limit: int) -> list[Delivery]:
        """The next messages for a group in a partition of a topic."""
        found: list[Delivery] = []
        kept = self._places.get(place)
        if not kept or kept[-1].position <= position:
            return found
        for index in range(bisect_right(kept, position, key=lambda one: one.position), len(kept)):
            if len(found) >= limit:
                break
            if kept[index].group in ("", group):
                found.append(kept[index].delivery)
        return found

    def left(self, place: Place, position: int, group: str) -> list[Kept]:
        """All messages for a group after a position."""
        kept = self._places.get(place, [])
        first = bisect_right(kept, position, key=lambda one: one.position)
        return [one for one in kept[first:] if one.group in ("", group)]

    def backlog(self) -> int:
        """How many messages the slowest group has not acknowledged."""
        return max((sum(lag.messages for lag in group.lag()) for group in self.groups.values()), default=0)

    def group(self, name: str) -> Group:
        """The group of that name."""
        return self.groups.setdefault(name, Group(self, name))

    def wake(self, topics: Set[str] | None = None) -> None:
        """Tell those that wait for one of the topics, or all, to look again."""
        for waiter, wanted in self._waiting.items():
            if not waiter.done() and (topics is None or not wanted.isdisjoint(topics)):
                waiter.set_result(None)

    async def news(self, clock: Clock, topics: frozenset[str], seconds: float) -> None:
        """Wait until something on the topics, or who has which partitions, has changed, at most so many seconds."""
        waiter: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._waiting[waiter] = topics
        time_over = asyncio.ensure_future(clock.sleep(seconds))
        try:
            await asyncio.wait({waiter, time_over}, return_when=asyncio.FIRST_COMPLETED)
        finally:
            self._waiting.pop(waiter, None)
            time_over.cancel()

    def _keep(self, publication: Publication, time: int) -> None:
        self.position += 1
        partition = zlib.crc32(publication.key.encode()) % self.partitions
        delivery = Delivery(
            publication.topic, publication.key, dict(publication.headers), publication.body, self.position, partition
        )
        kept = self._places.setdefault((publication.topic, partition), [])
        kept.append(Kept(delivery, time, publication.group))


class Group:
    """A group: how far it is in each partition of its topics, and which member has which partitions."""

    def __init__(self, broker: MemoryBroker, name: str) -> None:
        self.name = name
        self.cursors: dict[Place, int] = {}
        self._broker = broker
        self._members: list[Member] = []
        self._owners: dict[int, Member] = {}

    def add_topics(self, topics: Sequence[str], start: Start) -> None:
        """Give the topics that are new to the group a start."""
        first = self._broker.position if start == "now" else 0
        for topic in topics:
            for partition in range(self._broker.partitions):
                self.cursors.setdefault((topic, partition), first)

    def join(self, member: Member) -> None:
        """A member comes; it gets its share when the others have settled what they hold of it."""
        self._members.append(member)
        self._broker.wake()

    def leave(self, member: Member) -> None:
        """A member goes, and what it had is free."""
        self._members.remove(member)
        self._owners = {partition: owner for partition, owner in self._owners.items() if owner is not member}
        self._broker.wake()

    def partitions_of(self, member: Member) -> list[int]:
        """The partitions from which a member may fetch now."""
        return [partition for partition in range(self._broker.partitions) if self._owner(partition) is member]

    def settled(self) -> None:
        """A member has settled what it held: who waits to have its partitions may look again."""
        if any(self._members[one % len(self._members)] is not owner for one, owner in self._owners.items()):
            self._broker.wake()

    def lag(self) -> list[GroupLag]:
        """How far the group is behind on each topic."""
        left: dict[str, list[Kept]] = {}
        for place, cursor in self.cursors.items():
            left.setdefault(place[0], []).extend(self._broker.left(place, cursor, self.name))
        return [
            GroupLag(self.name, topic, len(kept), min((one.time for one in kept), default=None))
            for topic, kept in left.items()
        ]

    def _owner(self, partition: int) -> Member | None:
        """Who has a partition now; nobody while its last owner still has to settle what it fetched."""
        wanted = self._members[partition % len(self._members)]
        owner = self._owners.get(partition)
        if owner is wanted:
            return owner
        if owner is not None and owner.holds(partition):
            return None
        self._owners[partition] = wanted
        return wanted
