"""What stands on a server for a route, and what it is called.

A topic is a fanout exchange of its name; a group on it is a direct exchange `<topic>/<group>` behind that, with a quorum queue
`<topic>/<group>/<number>-of-<count>` for each of its partitions. The routing key of a message is its slot, which its key
hashes to; the slots of a topic are shared out evenly among the partitions of each group. What is for one group goes to the
exchange of that group. Any other client may bind a queue of its own to a topic, and who cannot hash publishes with an empty
routing key, which leads to the first partition.

A queue has a single active consumer, so that members which know not of one another never share it. Nothing in it ends by
itself: no length is dropped, no age, no number of deliveries.
"""

from __future__ import annotations

import zlib
from collections.abc import Iterable
from typing import Any, Final

from headwater.adapters.rabbitmq.url import COUNTS, SLOTS

LONGEST: Final = 127
"""Characters of an exchange's name in AMQP 0-9-1."""
LETTERS: Final = frozenset("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789-_.:@#,/+ ")
PARTITIONS: Final = 4
"""Of a group that is new to a topic."""
UNLIMITED: Final = (4, 0)
"""The first version that gives up on a message after some deliveries, unless it is told not to."""


def slot(key: bytes) -> int:
    """Where a key belongs among all slots: CRC-32 of its UTF-8 bytes, for good."""
    return zlib.crc32(key) % SLOTS


def slots(number: int, count: int) -> range:
    """The slots of a partition."""
    return range(number, SLOTS, count)


class Names:
    """What things are called under a prefix."""

    def __init__(self, prefix: str) -> None:
        self.prefix = prefix

    def topic(self, topic: str) -> str:
        """The exchange of a topic."""
        return f"{self.prefix}{topic}"

    def group(self, topic: str, group: str) -> str:
        """The exchange of a group on a topic."""
        return f"{self.prefix}{topic}/{group}"

    def queue(self, topic: str, group: str, number: int, count: int) -> str:
        """The queue of a partition."""
        return f"{self.prefix}{topic}/{group}/{number}-of-{count}"

    @property
    def members(self) -> str:
        """The exchange on which members of a group hear of one another."""
        return f"{self.prefix}headwater.members"

    @property
    def lock(self) -> str:
        """The exclusive queue of whoever is making things."""
        return f"{self.prefix}headwater.making"


def fault_of(name: str) -> str:
    """Why a name cannot be one of an exchange; empty if it can."""
    if len(name) > LONGEST:
        return f"the name {name[:40]!r}… is longer than {LONGEST} characters"
    wrong = sorted(set(name) - LETTERS)
    return f"the name {name!r} has {wrong[0]!r}, which AMQP takes in none" if wrong else ""


def arguments(limit: int, version: tuple[int, ...]) -> dict[str, Any]:
    """What a queue is declared with."""
    found: dict[str, Any] = {"x-queue-type": "quorum", "x-single-active-consumer": True}
    if limit:  # a queue refuses when it holds more than its length
        found |= {"x-max-length": limit - 1, "x-overflow": "reject-publish"}
    if version >= UNLIMITED:
        found["x-delivery-limit"] = -1
    return found


def candidates(first: int) -> Iterable[int]:
    """The counts that a group may have, the likely one first."""
    return (first, *(count for count in COUNTS if count != first))
