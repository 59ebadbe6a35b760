"""Two services over a real broker, one of which ends at the worst moment: nothing is lost, nothing is done twice.

The tests see the bugs that would break this, planted in what all brokers run.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Sequence
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path
from unittest import mock

import pytest

from headwater import App, fault
from headwater.app import open_channel
from headwater.clock import SystemClock
from headwater.relay import Tallying
from tests.fault.plants import consuming, relaying
from tests.fault.plants.plant import Plant
from tests.fault.rigs.wipe import Services
from tests.flow.rig import Killed

pytestmark = pytest.mark.timeout(120)

KEYS = [f"k{number}" for number in range(30)]
PATIENCE = 15.0
SHORT = 3.0
"""Seconds in which what is lost does not come, nor is it asked for."""

Heard = dict[str, list[int]]


@pytest.fixture(params=["kafka", "rabbitmq"])
def url(request: pytest.FixtureRequest) -> str:
    """A channel on a broker."""
    server = request.getfixturevalue(request.param)
    return str(server.url() if request.param == "kafka" else server.make())


@pytest.fixture(autouse=True)
def _nothing_is_asked_for() -> Iterator[None]:
    """What is lost shows, and is not repaired by tallies."""
    with mock.patch.object(Tallying, "due", lambda *_, **__: []):
        yield


class World:
    """Both services, each in a process that can end, as far as it has one."""

    def __init__(self, services: Services, patience: float) -> None:
        self.services = services
        self.patience = patience

    @asynccontextmanager
    async def running(self, app: App) -> AsyncIterator[App]:
        """An app with all that its channel needs."""
        channel = open_channel(self.services.url, SystemClock())
        await app.connect(channel=channel)
        await channel.open()
        await channel.establish(app.routes())
        await app.start()
        try:
            yield app
        finally:
            await app.stop()

    async def dies(self, app: App, point: str, work: Callable[[App], Awaitable[None]] | None = None) -> None:
        """Run an app that ends when it comes to a fault point: what it had in hand is in no hands."""
        with ending(point) as ended:
            async with self.running(app):
                if work is not None:
                    await work(app)
                await until(ended.is_set, PATIENCE)

    async def count(self, producer: App) -> None:
        """State the next number of each key."""
        await asyncio.gather(*(producer.send(self.services.bump(key)) for key in KEYS))

    async def hears(self, consumer: App, number: int) -> Heard:
        """What was heard once the number has come of each key, or would have."""
        found: Heard = {}

        async def look() -> bool:
            found.clear()
            for one in await consumer.wiring.database.read(0, 10_000):
                event = consumer.schema.decode(one.type, one.type_version, one.data)
                found.setdefault(event.key, []).append(event.number)
            return len(found) == len(KEYS) and all(number in numbers for numbers in found.values())

        end = time.monotonic() + self.patience
        while not await look() and time.monotonic() < end:
            await asyncio.sleep(0.05)
        return found


@contextmanager
def ending(point: str) -> Iterator[asyncio.Event]:
    """The flow that first comes to a fault point ends there, and the rest of its process can do nothing for it."""
    ended = asyncio.Event()

    def at(name: str) -> None:
        if name == point and not ended.is_set():
            ended.set()
            raise Killed

    with mock.patch.object(fault, "point", at):
        yield ended


async def until(holds: Callable[[], bool], seconds: float) -> None:
    """Wait until something holds."""
    end = time.monotonic() + seconds
    while not holds():
        assert time.monotonic() < end, "nobody came to the fault point"
        await asyncio.sleep(0.01)


def once(numbers: Sequence[int]) -> Heard:
    """Each of these once for each key."""
    return {key: list(numbers) for key in KEYS}


# --- what is promised ---


def what_a_consumer_had_in_hand_comes_again(url: str, folder: Path, patience: float = PATIENCE) -> None:
    async def main() -> None:
        world = World(Services(folder, url), patience)
        async with world.running(world.services.consumer()):
            pass  # its group stands
        async with world.running(world.services.producer()) as producer:
            await world.count(producer)
            await world.dies(world.services.consumer(), "consumer.ran")
            async with world.running(world.services.consumer()) as consumer:
                assert await world.hears(consumer, 1) == once([1])

    asyncio.run(main())


def what_a_relay_had_not_published_is_published_by_the_next(url: str, folder: Path, patience: float = PATIENCE) -> None:
    async def main() -> None:
        world = World(Services(folder, url), patience)
        async with world.running(world.services.consumer()) as consumer:
            await world.dies(world.services.producer(), "relay.publishing", world.count)
            async with world.running(world.services.producer()):
                assert await world.hears(consumer, 1) == once([1])

    asyncio.run(main())


def what_comes_again_has_its_effect_once(url: str, folder: Path, patience: float = PATIENCE) -> None:
    async def main() -> None:
        world = World(Services(folder, url), patience)
        async with world.running(world.services.consumer()):
            pass
        async with world.running(world.services.producer()) as producer:
            await world.count(producer)
            await world.dies(world.services.consumer(), "feed.settled")
            async with world.running(world.services.consumer()) as consumer:
                await world.count(producer)
                assert await world.hears(consumer, 2) == once([1, 2])

    asyncio.run(main())


PROMISES = {
    what_a_consumer_had_in_hand_comes_again: consuming.acknowledge_first,
    what_a_relay_had_not_published_is_published_by_the_next: relaying.relay_moves_its_place_first,
    what_comes_again_has_its_effect_once: consuming.inbox_that_forgets,
}
"""Each with the bug that breaks it."""


@pytest.mark.parametrize("promise", PROMISES, ids=lambda one: one.__name__)
def test_over_a_broker(promise: Callable[..., None], url: str, tmp_path: Path) -> None:
    promise(url, tmp_path)


@pytest.mark.parametrize(("promise", "plant"), PROMISES.items(), ids=[plant.name for plant in PROMISES.values()])
def test_what_is_planted_is_seen(promise: Callable[..., None], plant: Plant, url: str, tmp_path: Path) -> None:
    with plant.apply(), pytest.raises(AssertionError, match="=="):
        promise(url, tmp_path, SHORT)
