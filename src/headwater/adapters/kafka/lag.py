"""How far groups are behind: the ends of partitions against what the groups have committed."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping, Set
from time import monotonic
from typing import Final

from confluent_kafka import TIMESTAMP_NOT_AVAILABLE, Consumer, TopicPartition

from headwater.adapters.kafka.binding import Place as TopicPlace
from headwater.adapters.kafka.cluster import Cluster
from headwater.adapters.kafka.offsets import committed
from headwater.adapters.kafka.url import Place, Properties
from headwater.channel import GroupLag

LOOKING: Final[Properties] = {
    "group.id": "headwater-lag",
    "enable.auto.commit": False,
    "auto.offset.reset": "earliest",
    "log_level": 0,
    "fetch.wait.max.ms": 10,
    "queued.max.messages.kbytes": 1_024,
    "max.partition.fetch.bytes": 4_096,  # a message is given whole, whatever it has
}
"""A consumer that is in no group, and reads one message of a partition."""
LOOK: Final = 2.0
"""Seconds that it may take; what was not seen by then has no time."""


class Behind:
    """A group behind on a topic: from where to where in each partition."""

    def __init__(self) -> None:
        self.starts: dict[TopicPlace, int] = {}
        self.messages = 0

    def add(self, place: TopicPlace, at: int, first: int, end: int) -> None:
        """One of the partitions; what is no longer kept is not counted."""
        at = max(at, first)
        if end > at:
            self.starts[place] = at
            self.messages += end - at


async def lags(cluster: Cluster, place: Place, group: str | None, takes: Callable[[str], Set[str]]) -> list[GroupLag]:
    """The lag of a group or of all; `takes` says which topics a group takes, though nothing may be written of it there yet."""
    prefix = place.options.prefix
    names = [f"{prefix}{group}"] if group is not None else await cluster.groups()
    names = [name for name in names if name.startswith(prefix)]
    topics = [one for one in await cluster.all_topics() if one.startswith(prefix)]
    places = await cluster.places(topics)
    found = [await committed(place, name, places) for name in names]
    firsts, ends = await asyncio.gather(cluster.firsts(places), cluster.ends(places))
    behind: dict[tuple[str, str], Behind] = {}
    for name, offsets in zip(names, found, strict=True):
        begun = {topic for topic, _ in offsets} | takes(name)
        for one in (one for one in ends if one[0] in begun):
            key = name.removeprefix(prefix), one[0].removeprefix(prefix)
            behind.setdefault(key, Behind()).add(one, offsets.get(one, 0), firsts.get(one, 0), ends[one])
    wanted = {(one, at) for found in behind.values() for one, at in found.starts.items()}
    times = await asyncio.to_thread(_times, place, wanted) if wanted else {}
    return [
        GroupLag(*key, found.messages, min((times[one] for one in found.starts.items() if one in times), default=None))
        for key, found in sorted(behind.items())
    ]


def _times(place: Place, wanted: set[tuple[TopicPlace, int]]) -> Mapping[tuple[TopicPlace, int], int]:
    """When messages were published, in microseconds; as many as can be read in time."""
    found: dict[tuple[TopicPlace, int], int] = {}
    end = monotonic() + LOOK
    consumer = Consumer({**place.properties, **LOOKING})
    try:
        left = set(wanted)
        while left and monotonic() < end:
            now = dict(sorted(left))  # of a partition that is asked for twice, one at a time
            consumer.assign([TopicPartition(*one, at) for one, at in now.items()])
            while now and monotonic() < end:
                message = consumer.poll(0.1)
                if message is None or message.error() is not None:
                    continue
                one = (message.topic() or "", message.partition() or 0)
                if one in now:
                    kind, time = message.timestamp()
                    at = now.pop(one)
                    left.discard((one, at))
                    if kind != TIMESTAMP_NOT_AVAILABLE:
                        found[one, at] = time * 1_000
    finally:
        consumer.close()
    return found
