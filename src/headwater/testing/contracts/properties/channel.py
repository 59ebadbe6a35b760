"""A channel beside a ledger: each group gets what it is owed, in order, to one member a key, until it is acknowledged."""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from typing import Any, Final

from hypothesis import strategies as st
from hypothesis.stateful import initialize, invariant, precondition, rule
from msgspec.structs import replace

from headwater.channel import Channel, Delivery, Publication, Route, Start, Subscription
from headwater.errors import ChannelError
from headwater.testing.contracts.channel.scene import ChannelCase
from headwater.testing.contracts.properties.ledger import Owed, Sent, rising
from headwater.testing.contracts.properties.search import Machine, Properties

GROUPS: Final = {"mail": ("orders",), "books": ("orders", "payments")}
PRODUCERS: Final = ("shop", "bänk")
MEMBERS: Final = 3
ROUNDS: Final = 100
"""How often all members of a group look, until what is owed must have come."""

publications = st.lists(
    st.builds(
        Publication,
        topic=st.sampled_from(["orders", "orders", "payments"]),
        key=st.sampled_from(["k0", "k1", "ü/💧", "k\0", "\ud800"]),
        headers=st.just({}),
        body=st.just(b""),
        delay=st.sampled_from([0.0, 0.0, 0.0, 1.0, 30.0]),
        group=st.sampled_from(["", "", "", *GROUPS]),
    ),
    max_size=12,
)


class ChannelProperties(ChannelCase, Properties):
    """A channel that goes by the injected clock gives each group what it is owed; each step is a rule of the machine.

    `keeps`: after how many seconds a group that is new may miss what all others have acknowledged. `exact`: lag counts and dates
    just what is owed, by that clock; else it is not looked at. `pause`: how long (in seconds, as `wait` counts them) a member
    waits before it looks again, where what is there is not seen at once.
    """

    keeps = float("inf")
    exact = True
    pause = 0.0

    def test_it_gives_what_it_owes(self) -> None:
        self.search(lambda: ChannelMachine(self))


class Seat:
    """A member: of which group, and what it fetched and has not acknowledged, batch by batch."""

    def __init__(self, number: int, group: str, subscription: Subscription) -> None:
        self.number = number
        self.group = group
        self.subscription = subscription
        self.batches: list[list[Delivery]] = []


class ChannelMachine(Machine):
    """Handles of one channel, members on them, and the ledger."""

    def __init__(self, case: ChannelProperties) -> None:
        super().__init__()
        self.case = case
        self.handles: list[Channel] = [self.run(case.make(self.folder, self.clock))]
        self.delays = self.handles[0].capabilities.delay
        self.began = self.clock.now()
        self.sent: list[Sent] = []
        self.producers: dict[str, tuple[int, int]] = {}
        self.owed: dict[str, Owed] = {}
        self.seats: list[Seat] = []
        self.joined = self.numbered = 0

    async def end(self) -> None:
        """Close all handles."""
        for handle in self.handles:
            await handle.close()

    # --- what is done ---

    @initialize(groups=st.lists(st.sampled_from([*GROUPS]), min_size=1, max_size=4), given=publications)
    def begin(self, groups: list[str], given: list[Publication]) -> None:
        """Members, and the first messages."""
        for group in groups:
            self.run(self._join(group, "beginning", self.handles[0]))
        self.run(self._publish(self.handles[0], self._numbered(given)))

    @rule(given=publications, handle=st.integers(0, 1))
    def publish(self, given: list[Publication], handle: int) -> None:
        """Messages over few keys; some are delayed, some for one group, some cannot go."""
        self.run(self._publish(self._handle(handle), self._numbered(given)))

    @rule(
        given=publications,
        producer=st.sampled_from(PRODUCERS),
        position=st.integers(0, 9),
        epoch=st.integers(-1, 1),
        handle=st.integers(0, 1),
    )
    def publish_as(self, given: list[Publication], producer: str, position: int, epoch: int, handle: int) -> None:
        """The same as a producer, of the epoch that there is, a newer or an older one."""
        epoch = max(self.producers.get(producer, (0, 0))[1] + epoch, 0)
        self.run(self._publish_as(self._handle(handle), self._numbered(given), producer, position, epoch))

    @rule(group=st.sampled_from([*GROUPS]), now=st.booleans(), handle=st.integers(0, 1))
    def join(self, group: str, now: bool, handle: int) -> None:
        """One more member."""
        if sum(seat.group == group for seat in self.seats) < MEMBERS:
            self.run(self._join(group, "now" if now else "beginning", self._handle(handle)))

    @precondition(lambda self: self.seats)
    @rule(which=st.integers(0, 5), limits=st.lists(st.sampled_from([2, 1, 5, 50, 0]), min_size=1, max_size=5))
    def fetch(self, which: int, limits: list[int]) -> None:
        """Members fetch in turn, whatever they have in their hands."""
        for turn, limit in enumerate(limits, start=which):
            self.run(self._fetch(self._seat(turn), limit))

    @precondition(lambda self: self.seats)
    @rule(which=st.integers(0, 5), batches=st.integers(1, 3))
    def acknowledge(self, which: int, batches: int) -> None:
        """A member settles the first batches in its hands."""
        self.run(self._acknowledge(self._seat(which), batches))

    @precondition(lambda self: self.seats)
    @rule(which=st.integers(0, 5))
    def acknowledge_a_part(self, which: int) -> None:
        """Only whole batches can be acknowledged, in order."""
        seat = self._seat(which)
        wrong = [batch[:-1] for batch in seat.batches[:1] if len(batch) > 1] + seat.batches[1:2]
        for batch in wrong:
            self.run(_refused(seat.subscription, batch))

    @precondition(lambda self: self.seats)
    @rule(which=st.integers(0, 5))
    def release(self, which: int) -> None:
        """A member gives back what it has in its hands."""
        seat = self._seat(which)
        self.run(seat.subscription.release())
        self._empty(seat)

    @precondition(lambda self: self.seats)
    @rule(which=st.integers(0, 5))
    def leave(self, which: int) -> None:
        """A member leaves."""
        seat = self._seat(which)
        self.run(seat.subscription.close())
        self._forget(seat)

    @rule(seconds=st.sampled_from([0.5, 1.0, 29.0, 90.0]))
    def advance(self, seconds: float) -> None:
        """Time goes on: what is delayed is due, what is old may be trimmed."""
        self.run(self.clock.run_for(seconds))

    @precondition(lambda self: len(self.handles) == 1)
    @rule()
    def open_another(self) -> None:
        """A second handle of the same data, as another process has."""
        self.handles.append(self.run(self.case.reopen(self.handles[0])))

    @rule()
    def restart(self) -> None:
        """All handles are closed, and one is opened again."""
        self.run(self._restart())

    @rule(group=st.sampled_from([*GROUPS]), limit=st.integers(1, 4))
    def drain(self, group: str, limit: int) -> None:
        """All that a group is owed comes, if its members go on."""
        if group in self.owed:
            self.run(self._drain(group, limit))

    # --- what must hold ---

    @invariant()
    def positions_of_producers_are_kept(self) -> None:
        """The furthest position that a producer has published is known."""
        for name, (position, _) in self.producers.items():
            kept = self.run(self.handles[-1].producer_position(name))
            assert kept == (position if self.handles[0].capabilities.producer_position else None)

    @precondition(lambda self: self.case.exact)
    @invariant()
    def lag_is_what_is_not_acknowledged(self) -> None:
        """The lag of each group counts and dates what it is owed."""
        self.run(self._look_at_lag())

    # --- how ---

    def _handle(self, number: int) -> Channel:
        return self.handles[number % len(self.handles)]

    def _seat(self, number: int) -> Seat:
        return self.seats[number % len(self.seats)]

    def _numbered(self, given: Sequence[Publication]) -> list[Publication]:
        first = self.numbered + 1
        self.numbered += len(given)
        return [
            replace(one, headers={"id": str(n)}, body=b"%d" % n, delay=one.delay if self.delays else 0.0)
            for n, one in enumerate(given, start=first)
        ]

    async def _publish(self, channel: Channel, given: Sequence[Publication], **options: Any) -> None:
        answer = await channel.publish(given, **options)
        assert sorted(answer) == [index for index, one in enumerate(given) if one.key == "\ud800"]
        now = self.clock.now()
        for index, one in enumerate(given):
            if index not in answer:
                self.sent.append(Sent(int(one.body), one, now + round(one.delay * 1_000_000)))

    async def _publish_as(
        self, channel: Channel, given: Sequence[Publication], producer: str, position: int, epoch: int
    ) -> None:
        known, at = self.producers.get(producer, (0, 0))
        if epoch < at and channel.capabilities.producer_position:
            try:
                await channel.publish(given, producer=producer, position=position, epoch=epoch)
            except ChannelError:
                return
            raise AssertionError("a producer of an older epoch is refused")
        await self._publish(channel, given, producer=producer, position=position, epoch=epoch)
        self.producers[producer] = max(known, position), epoch

    async def _join(self, group: str, start: Start, channel: Channel) -> Seat:
        if group not in self.owed:
            now = self.clock.now()
            late = now - self.began >= self.case.keeps * 1_000_000 or not channel.capabilities.history
            start = "now" if late else start
            self.owed[group] = Owed(group, GROUPS[group], start, now, self.numbered)
        self.joined += 1
        await channel.establish([Route(topic, (group,)) for topic in GROUPS[group]])
        subscription = await channel.subscribe(group, GROUPS[group], f"m{self.joined}", start)
        self.seats.append(Seat(self.joined, group, subscription))
        self.owed[group].hands[self.joined] = deque()
        return self.seats[-1]

    async def _fetch(self, seat: Seat, limit: int) -> int:
        deliveries = await seat.subscription.fetch(limit)
        if not deliveries and self.case.pause:
            await seat.subscription.wait(self.case.pause)
            deliveries = await seat.subscription.fetch(limit)
        assert len(deliveries) <= limit
        assert rising(deliveries, apart=self.handles[0].capabilities.apart)
        self.owed[seat.group].take(seat.number, deliveries, self.sent, self.clock.now())
        if deliveries:
            seat.batches.append(deliveries)
        return len(deliveries)

    async def _acknowledge(self, seat: Seat, batches: int) -> None:
        whole, seat.batches = seat.batches[:batches], seat.batches[batches:]
        await seat.subscription.acknowledge([one for batch in whole for one in batch])
        for _ in whole:
            self.owed[seat.group].acknowledge(seat.number)

    def _empty(self, seat: Seat) -> None:
        seat.batches = []
        self.owed[seat.group].hands[seat.number].clear()

    def _forget(self, seat: Seat) -> None:
        self.seats.remove(seat)
        del self.owed[seat.group].hands[seat.number]

    async def _restart(self) -> None:
        await self.end()
        self.handles = [await self.case.reopen(self.handles[0])]
        for seat in list(self.seats):
            self._forget(seat)

    async def _drain(self, group: str, limit: int) -> None:
        seats = [seat for seat in self.seats if seat.group == group]
        seats = seats or [await self._join(group, "beginning", self.handles[0])]
        for _ in range(ROUNDS):
            for seat in seats:
                await self._acknowledge(seat, len(seat.batches))
                await self._fetch(seat, limit)
            if not self.owed[group].pending(self.sent, self.clock.now()):
                return
        left = [one.number for one in self.owed[group].pending(self.sent, self.clock.now())]
        raise AssertionError(f"{group} does not get {left}")

    async def _look_at_lag(self) -> None:
        for handle in self.handles:  # an acknowledgement may wait in the handle that it was given to
            await handle.lag()
        now = self.clock.now()
        for group, owed in self.owed.items():
            lags = {lag.topic: lag for lag in await self.handles[0].lag(group) if lag.group == group}
            for topic in owed.topics:
                left = [one for one in owed.pending(self.sent, now) if one.publication.topic == topic]
                assert lags[topic].messages == len(left), f"{group} on {topic}"
                assert _dated(lags[topic].oldest, left), f"{group} on {topic}"


def _dated(oldest: int | None, left: Sequence[Sent]) -> bool:
    if oldest is None or not left:
        return oldest is None and not left
    times = [one.due for one in left]
    if any(one.publication.delay for one in left):  # how they mix with the others is not promised
        return oldest in times
    return oldest == min(times)


async def _refused(subscription: Subscription, batch: Sequence[Delivery]) -> None:
    try:
        await subscription.acknowledge(batch)
    except ChannelError:
        return
    raise AssertionError("only whole batches can be acknowledged, in order")
