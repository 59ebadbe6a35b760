"""Apache Kafka as a channel: an idempotent producer, consumer groups, and topics that are looked at before they are used."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Iterator, Sequence, Set
from contextlib import AsyncExitStack

from confluent_kafka.admin import TopicDescription

from headwater.adapters.kafka import topology
from headwater.adapters.kafka.binding import headers_of
from headwater.adapters.kafka.cluster import Cluster
from headwater.adapters.kafka.faults import APPLY
from headwater.adapters.kafka.lag import lags
from headwater.adapters.kafka.offsets import begin, committed
from headwater.adapters.kafka.publishing import Publisher, Record
from headwater.adapters.kafka.subscription import KafkaSubscription
from headwater.adapters.kafka.url import Place
from headwater.channel import ChannelCapabilities, Finding, GroupLag, Publication, Route, Start
from headwater.clock import Clock
from headwater.errors import ChannelError, ConfigurationError


class KafkaChannel:
    """A channel on the cluster that `url` names; open one a process. Kafka keeps time itself: the clock is not asked."""

    def __init__(self, url: str, clock: Clock) -> None:
        self.url = url
        self.clock = clock
        self.place = Place(url)
        self.capabilities = ChannelCapabilities(
            delay=False, producer_position=False, durable=True, max_bytes=self.place.options.max_bytes, apart=True
        )
        self._publisher: Publisher | None = None
        self._cluster: Cluster | None = None
        self._known: set[str] = set()
        self._takes: dict[str, set[str]] = {}
        self._members: list[KafkaSubscription] = []

    @classmethod
    def from_url(cls, url: str, clock: Clock) -> KafkaChannel:
        """The channel of `kafka://user@host:port,host:port`; options: those of `ChannelOptions` and `SecurityOptions`."""
        return cls(url, clock)

    async def open(self) -> None:
        if self._publisher is not None:
            return
        publisher = Publisher(self.place)
        try:
            await publisher.connect()
        except BaseException:
            await publisher.close()
            raise
        self._publisher, self._cluster = publisher, Cluster(self.place)

    async def close(self) -> None:
        publisher, self._publisher, self._cluster = self._publisher, None, None
        if publisher is None:
            return
        members, self._members = self._members, []
        async with AsyncExitStack() as closing:  # all of them, whatever one may raise
            closing.push_async_callback(publisher.close)
            await asyncio.gather(*(member.close() for member in members))

    async def examine(self, routes: Sequence[Route]) -> list[Finding]:
        for route in routes:
            for group in self._names(route.groups):
                self._takes.setdefault(group, set()).update(self._names([route.topic]))
        names = self._names(one.topic for one in routes)
        impossible = [topology.impossible(name) for name in names if not topology.is_name(name)]
        there, settings, brokers = await self._topics(names)
        missing = [topology.missing(name) for name in names if topology.is_name(name) and name not in there]
        options = self.place.options
        unsafe = (topology.unsafe(topic, settings.get(name), options, brokers) for name, topic in there.items())
        return [*impossible, *missing, *(one for found in unsafe for one in found)]

    async def establish(self, routes: Sequence[Route]) -> list[str]:
        names = self._names(one.topic for one in routes)
        if wrong := [name for name in names if not topology.is_name(name)]:
            finding = topology.impossible(wrong[0])
            raise ConfigurationError(f"{finding.what}: {finding.why}")
        cluster = self._opened()
        there = await cluster.topics(names)
        wanted = [name for name in names if name not in there]
        brokers = await cluster.brokers() if wanted else 0
        return await cluster.make([topology.new_topic(name, self.place.options, brokers) for name in wanted])

    async def publish(
        self, publications: Sequence[Publication], *, producer: str = "", position: int = 0, epoch: int = 0
    ) -> dict[int, str]:
        self._opened()
        refused: dict[int, str] = {}
        topics = set(filter(topology.is_name, self._names({one.topic for one in publications})))
        await self._look_for(topics)
        assert self._publisher is not None
        order = self._publisher.places.order(publications)
        try:
            refused |= await self._publisher.publish(self._records(publications, order, topics, refused))
        except ChannelError:
            self._known.clear()  # a topic may be gone: look again before the next
            raise
        return refused

    async def producer_position(self, producer: str) -> int | None:
        self._opened()
        return None

    async def subscribe(
        self, group: str, topics: Sequence[str], member: str, start: Start = "beginning"
    ) -> KafkaSubscription:
        named = list(dict.fromkeys(topics))
        await self._look_for(self._names(named))
        starts = await self._starts(f"{self.place.options.prefix}{group}", self._names(named), start)
        subscription = KafkaSubscription(self.place, group, member, named, starts)
        self._members = [one for one in self._members if not one.closed]
        self._members.append(subscription)
        return subscription

    async def lag(self, group: str | None = None) -> list[GroupLag]:
        return await lags(self._opened(), self.place, group, lambda name: self._takes.get(name, set()))

    # --- how ---

    def _names(self, topics: Iterable[str]) -> list[str]:
        return [f"{self.place.options.prefix}{topic}" for topic in dict.fromkeys(topics)]

    async def _topics(self, names: Iterable[str]) -> tuple[dict[str, TopicDescription], dict[str, dict[str, str]], int]:
        cluster = self._opened()
        there = await cluster.topics(name for name in names if topology.is_name(name))
        settings, brokers = await asyncio.gather(cluster.settings(there), cluster.brokers())
        return there, settings, brokers

    def _records(
        self, publications: Sequence[Publication], order: Iterable[int], topics: Set[str], refused: dict[int, str]
    ) -> Iterator[Record]:
        """What can go on these topics, in an order, made when its turn has come; `refused` says why the others cannot."""
        prefix = self.place.options.prefix
        names = {name.removeprefix(prefix): name for name in topics}
        for index in order:
            one = publications[index]
            name = names.get(one.topic)
            try:
                if name is None:
                    raise ValueError(f"{prefix + one.topic!r} is no name of a topic")
                record = Record(index, name, one.key, headers_of(one), one.body)
            except UnicodeEncodeError as error:
                refused[index] = f"its key or a header is no text: {error}"
            except ValueError as error:
                refused[index] = str(error)
            else:
                yield record

    async def _look_for(self, names: Iterable[str]) -> None:
        """Raise ChannelError where a topic is missing: what is published then would wait for it, and be published in part."""
        new = set(names) - self._known
        if not new:
            return
        there = await self._opened().topics(new)
        if missing := sorted(new - there.keys()):
            raise ChannelError(f"{self.place.name} has no topic {', '.join(missing)}; {APPLY}")
        self._known |= new

    async def _starts(self, group: str, topics: Sequence[str], start: Start) -> dict[tuple[str, int], int]:
        """Where a group begins in topics that are new to it. A partition that was added to one it knows is read whole."""
        cluster = self._opened()
        places = await cluster.places(topics)
        known = {topic for topic, _ in await committed(self.place, group, places)}
        new = [one for one in places if one[0] not in known]
        starts = await (cluster.ends(new) if start == "now" else cluster.firsts(new))
        await begin(self.place, group, starts)
        return starts

    def _opened(self) -> Cluster:
        if self._cluster is None:
            raise ChannelError(f"the channel {self.place.name} is not open")
        return self._cluster
