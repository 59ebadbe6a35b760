"""The channel contract: routes, publish, fetch, acknowledge. A channel is disposable; the log is the truth."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from typing import Final, Literal, Protocol

from msgspec import Struct

Start = Literal["beginning", "now"]

ATTRIBUTES: Final = 1024
"""Bytes of a message on a channel besides its body, about."""


class ChannelCapabilities(Struct, frozen=True, gc=False):
    """What a channel can do: delay, keep the producer's position itself, survive its processes, and its largest message.

    `history`: a topic is a log, in which a message keeps its position, and a group that is new to it may start at its
    beginning; without, it is a queue, and the group gets what is published from then on.
    `ahead`: the next messages of a key may be fetched while those before are in hand; without, once they are acknowledged.
    `apart`: the partitions of each topic are its own; without, positions rise within a partition whatever the topic.
    `claims`: what is larger than the largest message is left elsewhere, and its message says where.
    `one_writer`: of all its processes one writes at a time, and who writes little and often is in the way of all others.
    """

    delay: bool
    producer_position: bool
    durable: bool
    max_bytes: int
    history: bool = True
    ahead: bool = True
    apart: bool = False
    claims: bool = False
    one_writer: bool = False

    @property
    def room(self) -> int:
        """Bytes that the body of a message may have, with its attributes besides."""
        return sys.maxsize if self.claims else max(self.max_bytes - ATTRIBUTES, self.max_bytes // 2)


class Route(Struct, frozen=True, gc=False):
    """A topic, and those of its groups that are known."""

    topic: str
    groups: tuple[str, ...] = ()


class Finding(Struct, frozen=True, gc=False):
    """What a channel has not, has unsafe or cannot do for a route: `what` it is about, and `why` with what to do."""

    state: Literal["missing", "unsafe", "impossible"]
    what: str
    why: str


class Publication(Struct, frozen=True, gc=False):
    """A message for a channel: CloudEvents attributes as headers. `delay` in seconds; `group`: for that group alone."""

    topic: str
    key: str
    headers: dict[str, str]
    body: bytes
    delay: float = 0.0
    group: str = ""


class Delivery(Struct, frozen=True, gc=False):
    """A message as a group gets it; `position` rises within its partition."""

    topic: str
    key: str
    headers: dict[str, str]
    body: bytes
    position: int
    partition: int


class GroupLag(Struct, frozen=True, gc=False):
    """How far a group is behind on a topic: messages not acknowledged, and when the oldest was published (microseconds)."""

    group: str
    topic: str
    messages: int
    oldest: int | None


class Subscription(Protocol):
    """A member of a group. Messages of one key come in order, to one member at a time."""

    async def fetch(self, limit: int) -> list[Delivery]:
        """The next messages that are there now, after those fetched before; empty if there are none."""
        ...

    async def wait(self, timeout: float) -> None:
        """Return when there may be something to fetch, or after so many seconds."""
        ...

    async def acknowledge(self, deliveries: Sequence[Delivery]) -> None:
        """Settle whole batches in the order they were fetched; may be written with a later publish, or shortly after."""
        ...

    async def release(self) -> None:
        """Give back what was fetched and not acknowledged: it is fetched again."""
        ...

    async def close(self) -> None:
        """Write what is acknowledged and leave the group."""
        ...


class Channel(Protocol):
    """A broker, or a file that acts as one."""

    @property
    def capabilities(self) -> ChannelCapabilities:
        """What it can do; it may learn more of that when it opens."""
        ...

    async def open(self) -> None:
        """Connect. Raises ConfigurationError or ChannelError."""
        ...

    async def close(self) -> None:
        """Finish what is under way and let go of everything."""
        ...

    async def examine(self, routes: Sequence[Route]) -> list[Finding]:
        """What is missing or unsafe for these routes, looked up and not changed. Raises ChannelError."""
        ...

    async def establish(self, routes: Sequence[Route]) -> list[str]:
        """Make what is missing for these routes, and keep what is there; the names of what was made. Raises ChannelError."""
        ...

    async def publish(
        self, publications: Sequence[Publication], *, producer: str = "", position: int = 0, epoch: int = 0
    ) -> dict[int, str]:
        """Publish durably, in order. The answer says which publications (by index) were refused for themselves, and why.

        With a producer, its position in its own log is kept in the same step, and only moves forward; a producer of an
        older epoch is refused.
        Raises ChannelError if the channel cannot take messages now; nothing is then published, or it may be: publish again.
        """
        ...

    async def producer_position(self, producer: str) -> int | None:
        """The position kept with the producer's last publish; None if the channel does not keep it."""
        ...

    async def subscribe(
        self, group: str, topics: Sequence[str], member: str, start: Start = "beginning"
    ) -> Subscription:
        """Join a group. A group that is new to a topic starts at its beginning, or now."""
        ...

    async def lag(self, group: str | None = None) -> list[GroupLag]:
        """How far groups are behind, by topic."""
        ...
