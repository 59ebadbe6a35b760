"""How a promise of a channel is run: a fresh channel in an event loop of its own, and the verbs the tests are written in."""

from __future__ import annotations

import asyncio
from collections import defaultdict
from collections.abc import Awaitable, Callable, Coroutine, Iterable, Sequence
from pathlib import Path
from typing import Any

from headwater.channel import Channel, Delivery, GroupLag, Publication, Route, Start, Subscription
from headwater.clock import Clock, SystemClock
from headwater.errors import ChannelError

ROUTES = (Route("orders", ("g",)), Route("payments"), Route("mail"), Route("late"))
"""What stands before a test begins: a channel without history keeps for a group only what comes after its route."""

Taken = list[tuple[int, Delivery]]
"""Deliveries in the order they came, each with the index of the member that got it."""


class ChannelCase:
    """The hooks by which an adapter is handed to the promises.

    `patience` is how long (in seconds) a test waits for what must happen, `settle` how long for what must not. The channel
    needs at least four partitions, where the adapter lets one choose.
    """

    patience = 15.0
    settle = 0.4

    async def make(self, tmp_path: Path, clock: Clock) -> Channel:
        """A channel without messages, opened."""
        raise NotImplementedError

    async def reopen(self, channel: Channel) -> Channel:
        """A new handle, opened, on the same data; the old one may still be open."""
        raise NotImplementedError

    async def make_limited(self, tmp_path: Path, clock: Clock, limit: int) -> Channel | None:
        """A channel that takes no more while `limit` messages are not acknowledged; None if it has no such option."""
        return None

    def clock(self) -> Clock:
        """The clock of a test."""
        return SystemClock()


class Scene:
    """One test's channel, with the little verbs that the tests are written in."""

    def __init__(self, suite: ChannelCase, channel: Channel, clock: Clock, tmp_path: Path) -> None:
        self.suite = suite
        self.channel = channel
        self.clock = clock
        self.handles = [channel]
        self.tmp_path = tmp_path

    async def another(self) -> Channel:
        """A new handle of the same data."""
        self.handles.append(await self.suite.reopen(self.channel))
        return self.handles[-1]

    async def join(
        self, group: str, *topics: str, member: str = "m1", start: Start = "beginning", channel: Channel | None = None
    ) -> Subscription:
        """A member of a group, once it gets messages."""
        joined = channel or self.channel
        await joined.establish([Route(topic, (group,)) for topic in topics])
        return await joined.subscribe(group, topics, member, start)

    async def take(self, subscription: Subscription, count: int, *, limit: int = 100) -> list[Delivery]:
        """Exactly so many deliveries, not acknowledged."""
        found: list[Delivery] = []
        end = self.clock.monotonic() + self.suite.patience
        while len(found) < count:
            assert self.clock.monotonic() < end, f"{len(found)} of {count} messages came: {bodies(found)[-10:]}"
            batch = await subscription.fetch(min(limit, count - len(found)))
            found += batch
            if not batch:
                await subscription.wait(0.1)
        return found

    async def drain(self, subscription: Subscription, count: int) -> list[Delivery]:
        """Exactly so many deliveries, acknowledged as they come."""
        return [delivery for _, delivery in await self.take_all([subscription], count, limit=count)]

    async def take_all(self, members: Sequence[Subscription], count: int, *, limit: int = 5) -> Taken:
        """So many deliveries, fetched by the members in turn and acknowledged."""
        found: Taken = []
        end = self.clock.monotonic() + self.suite.patience
        while len(found) < count:
            assert self.clock.monotonic() < end, f"{len(found)} of {count} messages came"
            for index, member in enumerate(members):
                batch = await member.fetch(limit)
                await member.acknowledge(batch)
                found += [(index, delivery) for delivery in batch]
            await self.clock.sleep(0)
        return found

    async def nothing(self, subscription: Subscription) -> None:
        """Nothing more comes, for as long as it would take."""
        end = self.clock.monotonic() + self.suite.settle
        while self.clock.monotonic() < end:
            assert bodies(await subscription.fetch(100)) == []
            await subscription.wait(0.05)

    async def until(self, holds: Callable[[], Awaitable[bool]], what: str) -> None:
        """Wait until something holds."""
        end = self.clock.monotonic() + self.suite.patience
        while not await holds():
            assert self.clock.monotonic() < end, what
            await self.clock.sleep(0.02)

    async def lag(self, group: str, topic: str) -> GroupLag:
        """How far a group is behind on a topic."""
        found = [lag for lag in await self.channel.lag(group) if lag.topic == topic]
        assert all(lag.group == group for lag in found)
        return found[0] if found else GroupLag(group, topic, 0, None)


def scenario(test: Callable[[Any, Scene], Coroutine[Any, Any, None]]) -> Callable[[ChannelCase, Path], None]:
    """A coroutine over a scene as a plain pytest test."""

    async def play(suite: ChannelCase, tmp_path: Path) -> None:
        clock = suite.clock()
        scene = Scene(suite, await suite.make(tmp_path, clock), clock, tmp_path)
        try:
            await scene.channel.establish(ROUTES)
            await test(suite, scene)
        finally:
            for handle in reversed(scene.handles):
                await handle.close()

    def run(self: ChannelCase, tmp_path: Path) -> None:
        asyncio.run(play(self, tmp_path))

    run.__name__, run.__doc__ = test.__name__, test.__doc__
    return run


def messages(
    topic: str, numbers: Iterable[int], keys: int = 1, delay: float = 0.0, group: str = ""
) -> list[Publication]:
    """Numbered messages over so many keys; a message's body is its number."""
    return [Publication(topic, f"k{n % keys}", {"id": f"{topic}-{n}"}, b"%d" % n, delay, group) for n in numbers]


def bodies(deliveries: Iterable[Delivery]) -> list[int]:
    """The numbers of such messages."""
    return [int(delivery.body) for delivery in deliveries]


def in_order(deliveries: Iterable[Delivery]) -> bool:
    """Whether the numbers of each key rise, and the positions of each partition."""
    numbers: dict[str, int] = defaultdict(lambda: -1)
    positions: dict[int, int] = defaultdict(lambda: -1)
    for delivery in deliveries:
        if int(delivery.body) <= numbers[delivery.key] or delivery.position <= positions[delivery.partition]:
            return False
        numbers[delivery.key] = int(delivery.body)
        positions[delivery.partition] = delivery.position
    return True


async def refused(attempt: Awaitable[object], error: type[ChannelError] = ChannelError) -> bool:
    """Whether an attempt fails with that error."""
    try:
        await attempt
    except error:
        return True
    return False
