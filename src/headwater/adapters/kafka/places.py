"""Where keys have gone, so that messages of one partition are given one after another.

A request carries those of one partition alone, and brokers answer one after another: what comes mixed goes out in twice as
many requests. librdkafka chooses the partition of a key, and its reports say which. Where that is not known, or was so once,
it costs time and never order.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from headwater.channel import Publication

KNOWN: Final = 50_000
"""Keys that are remembered, 10 MB; with one more it begins anew."""
UNKNOWN: Final = -1


class Places:
    """`known`: the place of each key, a number for a topic and partition."""

    def __init__(self) -> None:
        self.known: dict[str, int] = {}
        self._numbers: dict[tuple[str, int], int] = {}

    def learn(self, key: str, topic: str, partition: int) -> None:
        """A message with that key went there."""
        if len(self.known) >= KNOWN:
            self.known.clear()
        self.known[key] = self._numbers.setdefault((topic, partition), len(self._numbers))

    def order(self, publications: Sequence[Publication]) -> list[int]:
        """Their indices in the order in which to give them: those of a place together, and those of a key as they are."""
        number = self.known.get
        numbers = [number(one.key, UNKNOWN) for one in publications]
        return sorted(range(len(numbers)), key=numbers.__getitem__)
