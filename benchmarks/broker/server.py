"""The broker of a run, and the topics that the works take from it: one group, and as many partitions or queues for all."""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator, Sequence
from contextlib import AbstractContextManager, asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from benchmarks.ours import CLOCK
from benchmarks.works.consume import TOPIC
from headwater.app.adapters import open_channel
from headwater.channel import Channel, Publication, Route

GROUP = "bench"
AT_ONCE = 1_000


@dataclass(frozen=True)
class Place:
    """Where a measurement finds its messages: by the URL of our channel and our group, and what others call all that."""

    url: str
    group: str
    address: str
    topic: str
    source: str
    """What other clients read: the topic again, or the queue."""
    group_id: str


class Broker(Protocol):
    """A server, and how topics are made on it."""

    name: str

    def facts(self) -> dict[str, Any]:
        """What its version is, and how it keeps messages."""
        ...

    def cpu(self) -> float:
        """Seconds of CPU that it has used so far; 0 of a server elsewhere."""
        ...

    def empty(self, partitions: int = ...) -> AbstractContextManager[Place]:
        """A topic with nothing in it, for one measurement."""
        ...

    def filled(self, messages: Sequence[Publication]) -> AbstractContextManager[Place]:
        """A topic with these messages, none of which the group has read, for one measurement."""
        ...


@asynccontextmanager
async def opened(url: str) -> AsyncIterator[Channel]:
    """Our channel at a URL."""
    channel = open_channel(url, CLOCK)
    await channel.open()
    try:
        yield channel
    finally:
        await channel.close()


def establish(url: str) -> list[str]:
    """Make the topic and its group; what our channel finds unsafe about them."""

    async def make() -> list[str]:
        routes = [Route(TOPIC, (GROUP,))]
        async with opened(url) as channel:
            await channel.establish(routes)
            return [f"{one.state}: {one.what}: {one.why}" for one in await channel.examine(routes)]

    return asyncio.run(make())


def fill(url: str, messages: Sequence[Publication]) -> None:
    """Publish messages."""

    async def publish() -> None:
        async with opened(url) as channel:
            for start in range(0, len(messages), AT_ONCE):
                refused = await channel.publish(messages[start : start + AT_ONCE])
                assert not refused, refused

    asyncio.run(publish())


async def left(place: Place) -> int:
    """How many messages the group has not acknowledged."""
    async with opened(place.url) as channel:
        await channel.examine([Route(TOPIC, (place.group,))])
        return sum(one.messages for one in await channel.lag(place.group))


def cpu_of(pid: int) -> float:
    """Seconds of CPU of a process with all its threads."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return sum(int(one) for one in fields[11:13]) / os.sysconf("SC_CLK_TCK")
