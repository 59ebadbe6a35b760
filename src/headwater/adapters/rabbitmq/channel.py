"""A RabbitMQ server as a channel: quorum queues, publisher confirms, one queue a partition of a group."""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from typing import Final

from msgspec.structs import replace

from headwater.adapters.rabbitmq import frames
from headwater.adapters.rabbitmq.binding import properties
from headwater.adapters.rabbitmq.connection import connect
from headwater.adapters.rabbitmq.lines import Lines
from headwater.adapters.rabbitmq.making import Ground
from headwater.adapters.rabbitmq.publishing import Publisher
from headwater.adapters.rabbitmq.session import Closed
from headwater.adapters.rabbitmq.subscription import RabbitmqSubscription
from headwater.adapters.rabbitmq.topology import Names, fault_of, slot
from headwater.adapters.rabbitmq.url import Place
from headwater.channel import ChannelCapabilities, Finding, GroupLag, Publication, Route, Start
from headwater.clock import Clock
from headwater.errors import ChannelError, ConfigurationError

LARGEST: Final = 16 << 20
"""Bytes of a body that servers of every version take unless they are told otherwise."""
TOO_LARGE: Final = re.compile(r"message size \d+ is larger than configured max size (\d+)")
WRONG: Final = {403: "user or password", 530: "vhost, or what the user may do there"}
"""What is to be mended in the URL, by the code with which the server refuses a connection."""


class RabbitmqChannel:
    """A channel on the server that `url` names; open one a process. Injected: the clock, for when a message was published."""

    def __init__(self, url: str, clock: Clock) -> None:
        self.url = url
        self.clock = clock
        self.place = Place(url)
        self.names = Names(self.place.options.prefix)
        self.capabilities = ChannelCapabilities(
            delay=False, producer_position=False, durable=True, max_bytes=LARGEST, history=False
        )
        self._groups: dict[str, set[str]] = defaultdict(set)
        self._found: set[tuple[str, str]] = set()
        self._members: list[RabbitmqSubscription] = []
        self._opened = False
        self._lines = Lines(self.place)

    @classmethod
    def from_url(cls, url: str, clock: Clock) -> RabbitmqChannel:
        """The channel of `rabbitmq://user:password@host:port/vhost`; options: `ChannelOptions`."""
        return cls(url, clock)

    async def open(self) -> None:
        if self._opened:
            return
        try:
            await self._lines.publishing()
        except Closed as error:
            if error.code in WRONG:
                raise ConfigurationError(f"{self.place.name} refuses: {error}; check the {WRONG[error.code]}") from None
            raise
        self._opened = True

    async def close(self) -> None:
        self._opened = False
        for member in self._members:
            await member.close()
        await self._lines.close()

    # --- routes ---

    async def examine(self, routes: Sequence[Route]) -> list[Finding]:
        self._check()
        found: list[Finding] = []
        if not self.place.local and not self.place.encrypted:
            found.append(Finding("unsafe", self.place.name, "passwords and messages go there as plain text (tls=off)"))
        async with self._ground() as ground:
            for route in routes:
                found += await ground.examine(route)
        self._know(routes)
        return found

    async def establish(self, routes: Sequence[Route]) -> list[str]:
        self._check()
        async with self._ground() as ground:
            made = await ground.establish(routes)
        self._know(routes)
        return made

    def _know(self, routes: Sequence[Route]) -> None:
        for route in routes:
            self._groups[route.topic].update(route.groups)

    # --- publishing ---

    async def publish(
        self, publications: Sequence[Publication], *, producer: str = "", position: int = 0, epoch: int = 0
    ) -> dict[int, str]:
        self._check()
        publisher = await self._lines.publishing()
        messages: list[bytes] = []
        exchanges: set[str] = set()
        answer: dict[int, str] = {}
        now = self.clock.now() // 1_000_000
        await self._look_for({(one.topic, one.group) for one in publications if one.group})
        for index, one in enumerate(publications):
            try:
                exchange, message = self._message(publisher, one, now)
            except ValueError as error:
                answer[index] = str(error)
                continue
            if not one.group or (one.topic, one.group) in self._found:
                exchanges.add(exchange)
                messages.append(message)
        if messages:
            try:
                self._check_routed(await publisher.publish(messages, frozenset(exchanges)))
            except Closed as error:
                self._learn(error)
                raise
        return answer

    async def _look_for(self, groups: set[tuple[str, str]]) -> None:
        """Which groups are there: what is for one that is not is nobody's."""
        if not groups - self._found:
            return
        ground = Ground(await self._lines.reading())
        for topic, group in groups - self._found:
            if not fault_of(self.names.group(topic, group)) and await ground.has_group(topic, group):
                self._found.add((topic, group))

    def _learn(self, error: Closed) -> None:
        """How large a body may be, where the server takes less than others; and that a group may be gone."""
        self._found.clear()
        if found := TOO_LARGE.search(str(error)):
            self.capabilities = replace(self.capabilities, max_bytes=min(int(found[1]), LARGEST))

    def _message(self, publisher: Publisher, one: Publication, now: int) -> tuple[str, bytes]:
        """The exchange that a publication goes to, and its frames. Raises ValueError, saying why it cannot go."""
        exchange = self.names.group(one.topic, one.group) if one.group else self.names.topic(one.topic)
        if why := fault_of(exchange) or ("" if one.topic else "it has no topic"):
            raise ValueError(why)
        try:
            key = slot(one.key.encode())
            head = properties(one.key, one.headers, now)
        except UnicodeEncodeError as error:
            raise ValueError(f"its key or a header is no text: {error}") from None
        most = self.capabilities.max_bytes
        if len(one.body) > most:
            raise ValueError(f"it has {len(one.body)} bytes, and {most} is the most")
        if len(head) > publisher.largest - 3 * frames.OVERHEAD:
            raise ValueError(f"its key and headers have {len(head)} bytes, and {publisher.largest} is the most")
        method = frames.publishing(publisher.number, exchange, str(key))
        return exchange, method + frames.content(publisher.number, head, one.body, publisher.largest)

    def _check_routed(self, nowhere: set[str]) -> None:
        """Facts that nobody takes are nobody's loss; what a group is known for must have got there."""
        for topic, groups in self._groups.items():
            if groups and self.names.topic(topic) in nowhere:
                raise ChannelError(
                    f"no queue takes what is published to {topic}, where {', '.join(sorted(groups))} should have some: "
                    "make them with: headwater channel apply"
                )
        for topic, group in self._found:
            if self.names.group(topic, group) in nowhere:
                raise ChannelError(f"no queue of {group} on {topic} takes it: make them with: headwater channel apply")

    async def producer_position(self, producer: str) -> int | None:
        return None

    # --- reading ---

    async def subscribe(
        self, group: str, topics: Sequence[str], member: str, start: Start = "beginning"
    ) -> RabbitmqSubscription:
        self._check()
        ground = Ground(await self._lines.reading())
        for topic in topics:
            if not await ground.count(topic, group):
                raise ChannelError(f"{group} has no queues on {topic}: make them with: headwater channel apply")
        self._know([Route(topic, (group,)) for topic in topics])
        self._members = [one for one in self._members if not one.closed]
        self._members.append(RabbitmqSubscription(self._lines, self.clock, group, topics, member))
        return self._members[-1]

    async def lag(self, group: str | None = None) -> list[GroupLag]:
        """How far the groups are behind that this channel has been told of; what members elsewhere have in hand is not seen."""
        self._check()
        members = [one for one in self._members if not one.closed and group in (None, one.group)]
        for one in members:
            await one.look_ahead()
        found: list[GroupLag] = []
        ground = Ground(await self._lines.reading())
        for topic, groups in self._groups.items():
            for name in sorted(groups if group is None else groups & {group}):
                mine = [one.behind(topic) for one in members if one.group == name and topic in one.topics]
                waiting = await ground.waiting(topic, name)
                times = [time for _, time in mine if time is not None]
                count = waiting + sum(behind for behind, _ in mine)
                found.append(GroupLag(name, topic, count, min(times) if times and count else None))
        return found

    # --- connections ---

    def _check(self) -> None:
        if not self._opened:
            raise ChannelError(f"the channel {self.place.name} is not open")

    @asynccontextmanager
    async def _ground(self) -> AsyncIterator[Ground]:
        """What stands on the server, by a connection for the moment."""
        connection = await connect(self.place)
        try:
            yield Ground(connection)
        finally:
            await connection.close()
