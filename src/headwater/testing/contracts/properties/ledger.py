"""What a channel owes its groups: a model in plain lists, by what each group and member was given and has acknowledged.

The order of a key is kept among what was published without delay, and among what was delayed, by when it was due; how the
two mix is not promised.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Sequence
from operator import attrgetter

from msgspec import Struct

from headwater.channel import Delivery, Publication, Start


class Sent(Struct, frozen=True):
    """A message that was taken: its number, which is its body, and when it may first be fetched (microseconds)."""

    number: int
    publication: Publication
    due: int

    @property
    def lane(self) -> tuple[str, str, bool]:
        """What is in order: a key of a topic, with delay and without."""
        return self.publication.topic, self.publication.key, self.publication.delay > 0

    @property
    def key(self) -> tuple[str, str]:
        """What one member has at a time."""
        return self.lane[:2]


class Owed:
    """A group: what it is to get, what it has acknowledged, and what its members have in their hands."""

    def __init__(self, name: str, topics: Sequence[str], start: Start, now: int, number: int) -> None:
        self.name = name
        self.topics = topics
        self.settled: set[int] = set()
        self.hands: dict[int, deque[list[Sent]]] = {}
        self._from = (now, number) if start == "now" else (0, 0)

    def pending(self, sent: Iterable[Sent], now: int) -> list[Sent]:
        """What may be fetched by now and is not acknowledged, in order."""
        found = [one for one in sent if one.due <= now and one.number not in self.settled and self._gets(one)]
        return sorted(found, key=attrgetter("due", "number"))

    def _gets(self, one: Sent) -> bool:
        given, (time, number) = one.publication, self._from
        new = one.due > time if given.delay > 0 else one.number > number
        return new and given.topic in self.topics and given.group in ("", self.name)

    def take(self, member: int, deliveries: Sequence[Delivery], sent: Iterable[Sent], now: int) -> None:
        """A member has fetched these: each must be the next of its lane, and of no key that another has in its hands."""
        in_hand = [one for hand in self.hands.values() for batch in hand for one in batch]
        others = {one.key for other, hand in self.hands.items() if other != member for batch in hand for one in batch}
        lanes: dict[tuple[str, str, bool], deque[Sent]] = {}
        for one in self.pending(sent, now):
            if one not in in_hand:
                lanes.setdefault(one.lane, deque()).append(one)
        taken: list[Sent] = []
        for delivery in deliveries:
            heads = [lane[0] for lane in lanes.values() if lane and b"%d" % lane[0].number == delivery.body]
            assert heads, f"{self.name} got {delivery.body!r}, whose turn it was not"
            assert heads[0].key not in others, (
                f"another member of {self.name} has messages of {heads[0].key} in its hands"
            )
            _as_published(delivery, heads[0].publication)
            taken.append(lanes[heads[0].lane].popleft())
        if taken:
            self.hands[member].append(taken)

    def acknowledge(self, member: int) -> None:
        """A member has acknowledged the first batch in its hands."""
        self.settled |= {one.number for one in self.hands[member].popleft()}


def _as_published(delivery: Delivery, given: Publication) -> None:
    assert (delivery.topic, delivery.key, delivery.headers) == (given.topic, given.key, given.headers)


def rising(deliveries: Iterable[Delivery], *, apart: bool = False) -> bool:
    """Whether the positions of each partition rise; topics may have theirs apart."""
    last: dict[tuple[str, int], int] = {}
    for one in deliveries:
        place = (one.topic if apart else "", one.partition)
        if one.position <= last.get(place, -1):
            return False
        last[place] = one.position
    return True
