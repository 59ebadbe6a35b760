"""Where keys have gone, so that messages of one partition are given one after another.

A request carries those of one partition alone, and brokers answer one after another: what comes mixed goes out in more and
smaller requests. librdkafka chooses the partition of a key, and its reports say which. Where that is not known, or was so
once, it costs time and never order.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from headwater.channel import Publication

KNOWN: Final = 50_000
"""Keys that are remembered, some 8 MB; with more it begins anew."""
UNKNOWN: Final = -1


class Places:
    """`partitions`: that of each key, as the last report about it said."""

    def __init__(self) -> None:
        self.partitions: dict[str, int] = {}

    def order(self, publications: Sequence[Publication]) -> list[int]:
        """Their indices in the order in which to give them: those of a place together, and those of a key as they are."""
        if len(self.partitions) > KNOWN:
            self.partitions.clear()
        partition_of = self.partitions.get
        partitions = [partition_of(one.key, UNKNOWN) for one in publications]
        topics = [one.topic for one in publications]
        order = sorted(range(len(publications)), key=partitions.__getitem__)
        if len(set(topics)) > 1:
            order.sort(key=topics.__getitem__)
        return order
