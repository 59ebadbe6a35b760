"""A member of a group that reads a channel. It waits in real time; what is delayed comes by the injected clock.

Each (group, topic, partition) has a cursor, up to which all is acknowledged. A member reads on partition by partition,
beginning each time with the one after that of the last message, so that a full one does not starve another.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from time import monotonic
from typing import Any, Final

import msgspec
from msgspec import Struct

from headwater import fault
from headwater.adapters.postgres.bell import heard
from headwater.adapters.postgres.channel_desk import ChannelDesk
from headwater.adapters.postgres.channel_schema import FETCH
from headwater.adapters.postgres.channel_seat import Place, Seat, Shared
from headwater.adapters.postgres.facts import columns
from headwater.adapters.postgres.statement import Row, Statement
from headwater.channel import Delivery
from headwater.errors import ChannelError

SHARE: Final = 0.5
"""Seconds between two looks at who shares the group."""
POLL: Final = 0.25
"""Seconds between two looks at the channel when nothing rings."""

_headers = msgspec.json.Decoder(dict[str, str]).decode


class Batch(Struct, frozen=True):
    """What was fetched and is not acknowledged: where its deliveries lie, and the last of each place."""

    count: int
    first: tuple[Place, int]
    last: dict[Place, int]


class PostgresSubscription:
    """A member of a group; used by one task at a time."""

    def __init__(self, desk: ChannelDesk, group: str, topics: Sequence[str], seat: Seat, name: str) -> None:
        self.closed = False
        self._desk = desk
        self._group = group
        self._topics = tuple(dict.fromkeys(topics))
        self._seat = seat
        self._name = f"member {name} of {group}"
        self._reached: dict[Place, int] = {}
        self._settled: dict[Place, int] = {}
        self._epochs: dict[Place, int] = {}
        self._leaving: set[int] = set()
        self._in_hand: deque[Batch] = deque()
        self._from = -1
        self._share_at = 0.0
        self._lost = False

    async def join(self) -> None:
        """Take a seat, and the partitions that are free."""
        await self._desk.transact(self._seat.sitting())
        self._desk.bell.ring()
        await self._share()

    async def fetch(self, limit: int) -> list[Delivery]:
        self._check()
        await self._share()
        await self._desk.ready()
        rows = await self._read(limit)
        if rows:
            last: dict[Place, int] = {}
            for position, topic, partition, *_ in rows:
                last[topic, partition] = position
            self._reached |= last
            self._from = rows[-1][2]
            self._in_hand.append(Batch(len(rows), ((rows[0][1], rows[0][2]), rows[0][0]), last))
        return _deliveries(rows)

    async def wait(self, timeout: float) -> None:
        self._check()
        end = monotonic() + timeout
        with self._desk.bell.ear() as ear:
            while True:
                ear.clear()
                await self._share()
                due = await self._desk.ready()
                left = end - monotonic()
                if left <= 0 or self.closed or self._lost or await self._read(1):
                    return
                pause = POLL if due is None else min(POLL, max((due - self._desk.clock.now()) / 1_000_000, 0.001))
                await heard(ear, min(left, pause))

    async def acknowledge(self, deliveries: Sequence[Delivery]) -> None:
        self._check()
        done = 0
        while done < len(deliveries):
            batch = self._in_hand[0] if self._in_hand else None
            first = deliveries[done]
            if batch is None or batch.first != ((first.topic, first.partition), first.position):
                raise ChannelError("only whole batches can be acknowledged, in the order they were fetched")
            if done + batch.count > len(deliveries):
                raise ChannelError("only whole batches can be acknowledged, in the order they were fetched")
            self._settle(self._in_hand.popleft())
            done += batch.count
        if self._leaving:
            self._share_at = 0.0

    async def release(self) -> None:
        self._check()
        self._in_hand.clear()
        self._reached = dict(self._settled)

    async def close(self) -> None:
        if self.closed:
            return
        self.closed = True
        try:
            await self._desk.flush()
        finally:
            await self._desk.transact(self._seat.leaving())
            self._desk.bell.ring()

    def lose(self, place: Place, epoch: int) -> None:
        """Another member has taken a place while it was ours: nothing of what is in hand may be settled."""
        if self._epochs.get(place) == epoch:
            self._lost = True
            self._forget_all()

    async def _read(self, limit: int) -> list[Row]:
        places = [(*place, at) for place, at in self._reached.items() if place[1] not in self._leaving]
        if not places or limit <= 0:
            return []
        topics, partitions, after = columns(places)
        order = sorted(set(partitions), key=lambda partition: (partition <= self._from, partition))
        given: dict[str, Any] = {"order": order, "topics": topics, "partitions": partitions, "after": after}
        return await self._desk.rows(Statement(FETCH, given | {"group": self._group, "limit": limit}))

    def _settle(self, batch: Batch) -> None:
        moved = {place: position for place, position in batch.last.items() if place in self._settled}
        self._settled |= moved
        self._desk.settle(self._group, {place: (self._epochs[place], at) for place, at in moved.items()}, self)

    # --- sharing ---

    async def _share(self) -> None:
        now = monotonic()
        if now < self._share_at:
            return
        self._share_at = now + SHARE
        if self._leaving:
            await self._desk.flush()  # whoever takes a place goes on from what is written
        in_hand = {partition for batch in self._in_hand for _, partition in batch.last}
        shared = await self._desk.transact(self._seat.sharing(in_hand))
        if shared is None:
            self._lost = bool(self._in_hand)
            self._forget_all()
            await self._desk.transact(self._seat.sitting())
            shared = await self._desk.transact(self._seat.sharing(set()))
        self._keep(shared or Shared(set(), set(), {}))

    def _keep(self, shared: Shared) -> None:
        if shared.taken:
            fault.point("channel.taken")
        for of_place in (self._reached, self._settled, self._epochs):
            for place in [place for place in of_place if place[1] not in shared.owned]:
                del of_place[place]
        self._epochs |= {place: epoch for place, (_, epoch) in shared.taken.items()}
        begun = {place: position for place, (position, _) in shared.taken.items()}
        self._settled |= begun
        self._reached |= begun
        self._leaving = shared.leaving

    def _forget_all(self) -> None:
        self._in_hand.clear()
        self._reached, self._settled, self._epochs, self._leaving = {}, {}, {}, set()
        self._share_at = 0.0

    def _check(self) -> None:
        if self.closed:
            raise ChannelError(f"{self._name} has left")
        if self._lost:
            self._lost = False
            raise ChannelError(f"{self._name} was taken for dead: what it had fetched is fetched again")


def _deliveries(rows: list[Row]) -> list[Delivery]:
    found = []
    for position, topic, partition, key, headers, body in rows:
        try:
            decoded = _headers(headers)
        except msgspec.MsgspecError:
            decoded = {"malformed": headers.decode("utf-8", "backslashreplace")}
        found.append(Delivery(topic, key.decode("utf-8", "backslashreplace"), decoded, body, position, partition))
    return found
