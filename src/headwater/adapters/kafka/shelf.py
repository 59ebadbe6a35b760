"""What a member has: messages that have come and are not fetched, batches in hand, and what is settled and not written.

Two threads share it. The one that owns the consumer puts messages here, hands over partitions and writes offsets; the event
loop fetches and acknowledges. What is taken from a member is fenced: nothing of it can be acknowledged as ours any more.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Mapping, Sequence, Set
from threading import Condition
from time import monotonic
from typing import Final

from confluent_kafka import Message

from headwater.adapters.kafka.batch import Batch, mark
from headwater.adapters.kafka.binding import Place, Reader, place_of
from headwater.channel import Delivery
from headwater.errors import ChannelError, HeadwaterError

MOST: Final = 10_000
"""Messages that wait to be fetched."""
LARGEST: Final = 16 << 20
"""Bytes of them."""


class Shelf:
    """All that is known of a member's messages; `name` is the member's for messages, `ring` wakes who waits for news."""

    def __init__(self, reader: Reader, prefix: str, name: str, ring: Callable[[], None]) -> None:
        self._reader = reader
        self._prefix = prefix
        self._name = name
        self._ring = ring
        self._turn = Condition()
        self._again: deque[Batch] = deque()
        self._coming: deque[list[Message]] = deque()
        self._count = 0
        self._bytes = 0
        self._in_hand: deque[Batch] = deque()
        self._reached: dict[Place, int] = {}
        self._settled: dict[Place, int] = {}
        self._unwritten: dict[Place, int] = {}
        self._trouble: HeadwaterError | None = None
        self._for_good = False
        self.closing = False

    # --- the event loop's side ---

    @property
    def holds_news(self) -> bool:
        """Whether there may be something to fetch, or to be told."""
        return bool(self._again or self._coming) or self._trouble is not None

    def fetch(self, limit: int) -> list[Delivery]:
        """The next messages, which are then in hand. Raises what befell the member, once."""
        with self._turn:
            self._tell()
            batch = self._next(limit) if limit > 0 else None
            self._turn.notify()
            if batch is None:
                return []
            self._in_hand.append(batch)
            return list(batch.deliveries)

    def acknowledge(self, deliveries: Sequence[Delivery]) -> None:
        """Settle whole batches, in order. Raises ChannelError, also where they are no longer ours."""
        with self._turn:
            self._tell()
            done = 0
            while done < len(deliveries):
                batch = self._in_hand[0] if self._in_hand else None
                if batch is None or mark(deliveries[done]) != batch.mark or done + len(batch) > len(deliveries):
                    raise ChannelError("only whole batches can be acknowledged, in the order they were fetched")
                self._settle(self._in_hand.popleft().last)
                done += len(batch)
            self._turn.notify()

    def release(self) -> None:
        """Put back what is in hand, to be fetched first; what had befallen the member needs no telling then."""
        with self._turn:
            self._trouble = self._trouble if self._for_good else None
            self._put_back()
            self._turn.notify()

    def close(self) -> None:
        """No one fetches or acknowledges any more."""
        with self._turn:
            self.closing = True
            self._turn.notify()

    # --- the side of the thread that owns the consumer ---

    def put(self, messages: list[Message]) -> None:
        """Messages have come."""
        size = sum(map(len, messages))
        with self._turn:
            self._coming.append(messages)
            self._count += len(messages)
            self._bytes += size
        self._ring()

    @property
    def is_full(self) -> bool:
        """Whether enough waits to be fetched."""
        return self._count >= MOST or self._bytes >= LARGEST

    @property
    def is_low(self) -> bool:
        """Whether half of that has been fetched."""
        return self._count <= MOST // 2 and self._bytes <= LARGEST // 2

    def wait_for_room(self, seconds: float) -> None:
        """Wait until there is room, at the latest after so many seconds."""
        with self._turn:
            self._turn.wait_for(lambda: self.closing or not self.is_full, seconds)

    def give(self, starts: Mapping[Place, int], new: Mapping[Place, int]) -> None:
        """Partitions are ours from now on, from these offsets; where they are `new` to the group, it is to be written."""
        with self._turn:
            self._reached |= starts
            self._settled |= starts
            self._unwritten |= new

    def start_of(self, place: Place) -> int | None:
        """Where a partition that is ours begins, what is settled being done."""
        return self._settled.get(place)

    def begin_anew(self, place: Place) -> bool:
        """Whatever comes next in a partition is taken, and what is in hand of it settles nothing; whether it is ours."""
        with self._turn:
            if place not in self._settled:
                return False
            self._throw_away({place})
            for batch in self._in_hand:
                batch.last.pop(place, None)
            self._unwritten.pop(place, None)
            self._reached[place] = self._settled[place] = 0
            return True

    def drain(self, places: Set[Place], seconds: float) -> dict[Place, int]:
        """Hand over partitions: what is in hand of them has so many seconds to be settled, the rest is fenced.

        The answer is what is to be written for whoever takes them.
        """
        end = monotonic() + seconds
        with self._turn:
            self._throw_away(places)
            while self._holds(places) and not self.closing and (left := end - monotonic()) > 0:
                self._turn.wait(left)
            return self._leave(places)

    def lose(self, places: Set[Place]) -> None:
        """Partitions have been taken from us."""
        with self._turn:
            self._leave(places)
        self._ring()

    def lose_all(self) -> None:
        """We are no member any more."""
        self.lose(set(self._settled))

    def wait_for_end(self, seconds: float) -> None:
        """Wait until it is closed; for so many seconds, unless the member can do no more."""
        with self._turn:
            self._turn.wait_for(lambda: self.closing, None if self._for_good else seconds)

    def take_unwritten(self) -> dict[Place, int]:
        """What is settled and not yet written; it is taken for written then."""
        with self._turn:
            found, self._unwritten = self._unwritten, {}
            return found

    def write_again(self, offsets: Mapping[Place, int]) -> None:
        """Those offsets were not written after all."""
        with self._turn:
            ours = {place: at for place, at in offsets.items() if place in self._settled}
            self._unwritten = ours | self._unwritten

    def tell(self, trouble: HeadwaterError, *, for_good: bool = False) -> None:
        """Something befell the member that whoever fetches has to know: once, or each time, if it can do no more."""
        self._trouble = trouble
        self._for_good = self._for_good or for_good
        self._ring()

    # --- within a turn ---

    def _tell(self) -> None:
        trouble = self._trouble
        if trouble is not None:
            self._trouble = trouble if self._for_good else None
            raise trouble

    def _next(self, limit: int) -> Batch | None:
        if self._again:
            batch, rest = self._again.popleft().split(limit, self._prefix)
            if rest is not None:
                self._again.appendleft(rest)
            return batch
        found: list[Delivery] = []
        last: dict[Place, int] = {}
        while self._coming and len(found) < limit:
            last |= self._reader.read(self._take(limit - len(found)), self._reached, found)
        if found:
            return Batch(found, last)
        if self._in_hand:  # all of it was for other groups: it is settled with what is in hand before it
            self._in_hand[-1].last.update(last)
        else:
            self._settle(last)
        return None

    def _take(self, most: int) -> list[Message]:
        chunk = self._coming.popleft()
        if len(chunk) > most:
            self._coming.appendleft(chunk[most:])
            chunk = chunk[:most]
        self._count -= len(chunk)
        self._bytes -= sum(map(len, chunk))
        return chunk

    def _settle(self, last: Mapping[Place, int]) -> None:
        ours = {place: at for place, at in last.items() if place in self._settled}
        self._settled |= ours
        self._unwritten |= ours

    def _put_back(self) -> None:
        self._again.extendleft(reversed(self._in_hand))
        self._in_hand.clear()

    def _holds(self, places: Set[Place]) -> bool:
        return any(not places.isdisjoint(batch.last) for batch in self._in_hand)

    def _leave(self, places: Set[Place]) -> dict[Place, int]:
        if self._holds(places) and not self.closing:
            topics = ", ".join(sorted(f"{topic.removeprefix(self._prefix)}/{partition}" for topic, partition in places))
            self._trouble = self._trouble or ChannelError(
                f"{self._name} had messages of {topics} in hand when others took over: they are fetched again"
            )
            self._put_back()
        self._throw_away(places)
        for place in places:
            self._settled.pop(place, None)
        return {place: self._unwritten.pop(place) for place in places & self._unwritten.keys()}

    def _throw_away(self, places: Set[Place]) -> None:
        """Fetch nothing of partitions any more: were they to come back, what has come of them would leave a gap."""
        for place in places:
            self._reached.pop(place, None)
        chunks = ([one for one in chunk if place_of(one) not in places] for chunk in self._coming)
        self._coming = deque(chunk for chunk in chunks if chunk)
        self._count = sum(map(len, self._coming))
        self._bytes = sum(len(one) for chunk in self._coming for one in chunk)
        kept = (batch.without(places, self._prefix) for batch in self._again)
        self._again = deque(batch for batch in kept if batch is not None)
