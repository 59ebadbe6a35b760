"""A batch of deliveries in hand, and what comes next in each place once it is settled."""

from __future__ import annotations

from collections.abc import Iterable, Sequence, Set

from msgspec import Struct

from headwater.adapters.kafka.binding import Place
from headwater.channel import Delivery

Mark = tuple[str, int, int]


class Batch(Struct, frozen=True):
    """Deliveries, and the offset behind them in each place; what was skipped among them counts as well."""

    deliveries: Sequence[Delivery]
    last: dict[Place, int]

    def __len__(self) -> int:
        return len(self.deliveries)

    @property
    def mark(self) -> Mark:
        """By what it is known again."""
        return mark(self.deliveries[0])

    def split(self, most: int, prefix: str) -> tuple[Batch, Batch | None]:
        """The first so many, and the others."""
        if len(self) <= most:
            return self, None
        first = self.deliveries[:most]
        return Batch(first, _behind(first, prefix)), Batch(self.deliveries[most:], self.last)

    def without(self, places: Set[Place], prefix: str) -> Batch | None:
        """What is of other places."""
        if places.isdisjoint(self.last):
            return self
        kept = [one for one in self.deliveries if (prefix + one.topic, one.partition) not in places]
        last = {place: at for place, at in self.last.items() if place not in places}
        return Batch(kept, last) if kept else None


def _behind(deliveries: Iterable[Delivery], prefix: str) -> dict[Place, int]:
    return {(prefix + one.topic, one.partition): one.position + 1 for one in deliveries}


def mark(delivery: Delivery) -> Mark:
    """Where a delivery is."""
    return delivery.topic, delivery.partition, delivery.position
