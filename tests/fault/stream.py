"""What the tests of harm to brokers share: a stream of messages in, out of it, and what must hold of both."""

from __future__ import annotations

import asyncio
import time
from collections import Counter, defaultdict
from collections.abc import AsyncIterator, Iterable
from contextlib import asynccontextmanager
from typing import TypeVar

from headwater.channel import Channel, Delivery, Publication, Route, Subscription
from headwater.clock import SystemClock
from headwater.errors import ChannelError

KEYS = 11
BATCH = 30
SOON = 0.05
PATIENCE = 30.0
BOUNDED = 20.0  # seconds: what is told within a time limit of one or two is told by then, on any machine
CLOCK = SystemClock()
ROUTE = Route("orders", ("g",))

Some = TypeVar("Some", bound=Channel)


@asynccontextmanager
async def opened(channel: Some, *, made: bool = True) -> AsyncIterator[Some]:
    """A channel, open, on which `orders` and its group `g` stand."""
    await channel.open()
    try:
        if made:
            await channel.establish([ROUTE])
        yield channel
    finally:
        await channel.close()


def publications(numbers: Iterable[int], size: int = 0) -> list[Publication]:
    """Numbered messages over some keys: each is the next of its key."""
    return [
        Publication("orders", f"k{n % KEYS}", {"id": str(n), "place": str(n // KEYS)}, b"%d" % n + b" " * size)
        for n in numbers
    ]


async def drained(member: Subscription, count: int, seconds: float = 10.0) -> list[Delivery]:
    """So many deliveries, acknowledged as they come."""
    found: list[Delivery] = []
    end = time.monotonic() + seconds
    while len(found) < count:
        assert time.monotonic() < end, f"{len(found)} of {count} messages came"
        batch = await member.fetch(100)
        await member.acknowledge(batch)
        found += batch
        if not batch:
            await member.wait(0.1)
    return found


async def publish_surely(channel: Channel, batch: list[Publication], seconds: float = PATIENCE) -> int:
    """Publish as the relay does: the same again, until it stands; how often it failed."""
    end, failures = time.monotonic() + seconds, 0
    while True:
        try:
            assert await channel.publish(batch) == {}
            return failures
        except ChannelError:
            assert time.monotonic() < end, "publishing does not work again"
            failures += 1
            await asyncio.sleep(SOON)


class Ledger:
    """What came of each key: never one before the one that precedes it; what comes again is counted."""

    def __init__(self) -> None:
        self.places: dict[str, int] = defaultdict(lambda: -1)
        self.seen: set[int] = set()
        self.times: Counter[int] = Counter()

    def take(self, deliveries: Iterable[Delivery]) -> None:
        """Look at what was fetched."""
        for one in deliveries:
            place, number = int(one.headers["place"]), int(one.body)
            assert place <= self.places[one.key] + 1, f"{number} of {one.key} came before the one that precedes it"
            self.places[one.key] = max(self.places[one.key], place)
            self.seen.add(number)
            self.times[number] += 1

    @property
    def repeated(self) -> int:
        """How many came more than once."""
        return sum(count > 1 for count in self.times.values())

    async def drain(self, member: Subscription, count: int, *, limit: int = 50, seconds: float = PATIENCE) -> int:
        """Take until all of so many messages have come, whatever fails meanwhile; how often something did."""
        end, failures = time.monotonic() + seconds, 0
        while len(self.seen) < count:
            assert time.monotonic() < end, f"{len(self.seen)} of {count} messages came"
            try:
                batch = await member.fetch(limit)
                self.take(batch)
                await member.acknowledge(batch)
                if not batch:
                    await member.wait(0.2)
            except ChannelError:
                failures += 1
                await asyncio.sleep(SOON)
        assert self.seen == set(range(count))
        return failures


async def refusal(attempt: object) -> str:
    """What a ChannelError says."""
    try:
        await attempt  # type: ignore[misc]
    except ChannelError as error:
        return str(error)
    raise AssertionError("it was not refused")


class Publishing:
    """Publishes batch after batch, each until it stands, until it is told to stop."""

    def __init__(self, channel: Channel, seconds: float = PATIENCE) -> None:
        self.channel = channel
        self.seconds = seconds
        self.stood = 0
        self.failures = 0
        self._stopping = False
        self._task = asyncio.create_task(self._run())

    async def _run(self) -> None:
        while not self._stopping:
            batch = publications(range(self.stood, self.stood + BATCH))
            self.failures += await publish_surely(self.channel, batch, self.seconds)
            self.stood += BATCH
            await asyncio.sleep(0.002)

    async def reach(self, count: int) -> None:
        """Until so many more stand."""
        wanted, end = self.stood + count, time.monotonic() + 40
        while self.stood < wanted:
            assert time.monotonic() < end, f"{self.stood} stand, {wanted} are wanted"
            await asyncio.sleep(0.01)

    async def stop(self) -> int:
        """Finish the last batch; how many stand."""
        self._stopping = True
        await self._task
        return self.stood


async def follow(member: Subscription, ledger: Ledger) -> None:
    """Take what comes, for ever."""
    while True:
        try:
            batch = await member.fetch(20)
            ledger.take(batch)
            await member.acknowledge(batch)
            if not batch:
                await member.wait(0.2)
        except ChannelError:
            await asyncio.sleep(SOON)
