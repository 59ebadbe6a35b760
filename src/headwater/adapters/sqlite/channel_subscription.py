"""A member of a group that reads a channel file. It waits in real time; what is delayed comes by the injected clock.

Each (group, topic, partition) has a cursor, up to which all is acknowledged. A member reads the places of its partitions in
order of position, those furthest behind first until they have caught up with the others.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Sequence
from functools import partial
from time import monotonic
from typing import Any, Final

import msgspec
from msgspec import Struct

from headwater import fault
from headwater.adapters.sqlite.channel_file import ChannelFile
from headwater.adapters.sqlite.channel_seat import Seat
from headwater.adapters.sqlite.channel_span import Span, advanced, spans
from headwater.adapters.sqlite.channel_writes import Place, Take
from headwater.adapters.sqlite.wake import subjects_of
from headwater.channel import Delivery
from headwater.errors import ChannelError

SHARE: Final = 0.25
"""Seconds between two looks at who shares the group."""
SWEEP: Final = 1_000
"""The cursors of places where nothing came are written, too, when they have fallen so far behind."""

_headers = msgspec.json.Decoder(dict[str, str]).decode


class Batch(Struct, frozen=True):
    """What was fetched and is not acknowledged: where its deliveries lie, and how far their places are read with it."""

    count: int
    first: int
    last: int
    places: set[Place]
    read: Sequence[Span]


class SqliteSubscription:
    """A member of a group; used by one task at a time."""

    def __init__(self, file: ChannelFile, group: str, topics: Sequence[str], member: str, partitions: int) -> None:
        self.closed = False
        self._file = file
        self._group = group
        self._topics = tuple(dict.fromkeys(topics))
        self._subjects = subjects_of(topics)
        self._name = f"member {member} of {group}"
        self._seat = Seat(file.path, group, member, partitions)
        self._leaving: set[int] = set()
        self._spans: list[Span] = []
        self._paused: dict[Place, int] = {}
        self._settled: dict[Place, int] = {}
        self._epochs: dict[Place, int] = {}
        self._in_hand: deque[Batch] = deque()
        self._swept = 0
        self._share_at = 0.0
        self._lost = False
        self._found = False

    async def join(self) -> None:
        """Take a seat, and the partitions that are free."""
        try:
            await self._share()
        except BaseException:
            self.closed = True
            self._forget_all()
            raise

    async def fetch(self, limit: int) -> list[Delivery]:
        self._check()
        await self._share()
        head, _ = await self._file.ready()
        rows, read, self._spans = self._read(limit, head)
        if rows:
            places = {(topic, partition) for _, topic, partition, *_ in rows}
            self._in_hand.append(Batch(len(rows), rows[0][0], rows[-1][0], places, read))
        return _deliveries(rows)

    async def wait(self, timeout: float) -> None:
        self._check()
        file, left = self._file, timeout
        end = monotonic() + timeout
        while left >= 0:
            await self._share()
            _, due = await file.ready()
            pause = left if due is None else min(left, max((due - file.clock.now()) / 1_000_000, 0.001))
            if await file.wait(partial(self._nothing_but, due), min(pause, SHARE), self._subjects) and self._found:
                return
            left = end - monotonic()

    async def acknowledge(self, deliveries: Sequence[Delivery]) -> None:
        self._check()
        done = 0
        while done < len(deliveries):
            batch = self._in_hand[0] if self._in_hand else Batch(0, 0, 0, set(), ())
            found = deliveries[done : done + batch.count]
            if not found or (batch.count, batch.first, batch.last) != (
                len(found),
                found[0].position,
                found[-1].position,
            ):
                raise ChannelError("only whole batches can be acknowledged, in the order they were fetched")
            self._settle(self._in_hand.popleft())
            done += batch.count
        if self._leaving:
            self._share_at = 0.0

    async def release(self) -> None:
        self._check()
        self._in_hand.clear()
        self._respan(self._settled)

    async def close(self) -> None:
        if self.closed:
            return
        self.closed = True
        try:
            await self._file.flush()
        finally:
            self._forget_all()

    def lose(self, place: Place, epoch: int) -> None:
        """Another member has taken a place while it was ours: nothing of what is in hand may be settled."""
        if self._epochs.get(place) == epoch:
            self._lost = True
            self._forget_all()

    # --- reading ---

    def _read(self, limit: int, head: int) -> tuple[list[tuple[Any, ...]], list[Span], list[Span]]:
        """Up to `limit` rows, what was read for them, and the spans after it."""
        rows: list[tuple[Any, ...]] = []
        read: list[Span] = []
        left = self._spans
        while left and left[0].at < head and len(rows) < limit:
            first = left[0]
            high = min(head, left[1].at) if len(left) > 1 else head
            rows += self._file.rows(first.sql, (first.at, high, self._group, limit - len(rows), *first.parameters))
            left = advanced(left, rows[-1][0] if len(rows) == limit else high)
            read.append(first.moved(left[0].at))
        return rows, read, left

    def _nothing_but(self, due: int | None) -> bool:
        """Whether there is nothing to fetch, and nothing is delayed but what was known to be.

        What is read in vain is not read again.
        """
        head, next_due = self._file.look()
        rows, _, after = self._read(1, head)
        self._found = bool(rows) or self.closed or self._lost
        if not rows:
            self._spans = after
        return not self._found and next_due == due

    def _respan(self, reached: dict[Place, int]) -> None:
        """Read on from these positions, but not in partitions that are to be handed over."""
        self._spans = spans({place: at for place, at in reached.items() if place[1] not in self._leaving})
        self._paused = {place: at for place, at in reached.items() if place[1] in self._leaving}

    def _reached(self) -> dict[Place, int]:
        return {place: span.at for span in self._spans for place in span.places} | self._paused

    # --- settling ---

    def _settle(self, batch: Batch) -> None:
        settled = self._settled
        for span in batch.read:
            for place in span.places:
                if (
                    place in settled and settled[place] < span.at
                ):  # else it was handed over meanwhile, and nothing came of it
                    settled[place] = span.at
        moved: Iterable[Place] = batch.places
        if batch.last - self._swept > SWEEP:
            self._swept = batch.last
            moved = settled
        cursors = [(self._group, *place, self._epochs[place], settled[place]) for place in moved]
        self._file.settle(cursors, self)

    # --- sharing ---

    async def _share(self) -> None:
        """Hand over what is another's share and not in hand, and take what is free of one's own."""
        now = monotonic()
        if now < self._share_at:
            return
        self._share_at = now + SHARE
        with self._file.translated():
            if not self._seat.there():
                self._forget_all()
                self._seat.sit()
            share = self._seat.share()
        leaving = self._seat.owned - share
        if leaving != self._leaving:
            self._leaving = leaving
            self._respan(self._reached())
        if free := leaving - {partition for batch in self._in_hand for _, partition in batch.places}:
            await self._file.flush()
            self._give(free)
        with self._file.translated():
            taken = [partition for partition in sorted(share - self._seat.owned) if self._seat.take(partition)]
        if taken:
            await self._take(taken)

    def _give(self, partitions: set[int]) -> None:
        for partition in partitions:
            self._seat.give(partition)
        for of_place in (self._paused, self._settled, self._epochs):
            for place in [place for place in of_place if place[1] in partitions]:
                del of_place[place]
        self._leaving = self._leaving - partitions

    async def _take(self, partitions: list[int]) -> None:
        try:
            places = await self._file.write(Take(self._group, self._topics, partitions))
            fault.point("channel.taken")
        except BaseException:
            for partition in partitions:
                self._seat.give(partition)
            raise
        positions = {place: position for place, (position, _) in places.items()}
        self._epochs |= {place: epoch for place, (_, epoch) in places.items()}
        self._settled |= positions
        self._respan(self._reached() | positions)

    def _forget_all(self) -> None:
        self._in_hand.clear()
        self._seat.leave()
        self._leaving = set()
        self._settled, self._epochs = {}, {}
        self._respan({})
        self._share_at = 0.0

    def _check(self) -> None:
        if self.closed:
            raise ChannelError(f"{self._name} has left")
        if self._lost:
            self._lost = False
            raise ChannelError(f"{self._name} was taken for dead: what it had fetched is fetched again")


def _deliveries(rows: list[tuple[Any, ...]]) -> list[Delivery]:
    try:
        return [
            Delivery(topic, key, _headers(headers), body, position, partition)
            for position, topic, partition, key, headers, body in rows
        ]
    except msgspec.MsgspecError:
        if len(rows) > 1:
            return [delivery for row in rows for delivery in _deliveries([row])]
        position, topic, partition, key, headers, body = rows[0]
        return [Delivery(topic, key, {"malformed": headers}, body, position, partition)]
