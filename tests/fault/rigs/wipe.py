"""`wipe`: the last message of each of a thousand streams is dropped on the channel, and all come back with no human.

In real time. By seed, the first tallies are dropped, too, and the producer or the consumer ends and starts anew meanwhile. A
trial is a stream; `--channel` has it on a broker.
"""

from __future__ import annotations

import asyncio
import random
import tempfile
import time
import uuid
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from unittest import mock

from headwater import App, Command, Event
from headwater.app import open_channel
from headwater.channel import Channel, Publication
from headwater.clock import SystemClock
from headwater.decider import Decider
from headwater.inbox import Held, Reason
from headwater.relay import tallying
from headwater.repair import asking
from headwater.tally import TYPE
from tests.fault.rigs.trial import TrialResult

COUNT = 5_000
CHANNELS = True
STREAMS = 1_000
PATIENCE = 60.0
LOOK = 0.1
AT_ONCE = 100


def one_trial(seed: int, channel: str = "", streams: int = STREAMS) -> TrialResult:
    """Lose the last message of so many streams, on a channel that is a file or a given one."""
    with tempfile.TemporaryDirectory(prefix="headwater-wipe-") as folder:
        return asyncio.run(Scene(Path(folder), channel, random.Random(seed), streams).play())


@contextmanager
def hurried() -> Iterator[None]:
    """Tell, and ask, after parts of a second."""
    with (
        mock.patch.multiple(tallying, NEWS=0.2, QUIET=0.5, AGAIN=(0.5, 1.0)),
        mock.patch.multiple(asking, WAIT=300_000, PAUSE=0.1),
    ):
        yield


@dataclass
class Loss:
    """What a channel swallows: the last message of each stream, and some tallies."""

    last: dict[str, int]
    tallies: int
    lost: set[str] = field(default_factory=set)

    def swallows(self, one: Publication) -> bool:
        """Whether a publication never arrives; what is published again for a group does."""
        if one.headers["type"] == TYPE:
            self.tallies -= 1
            return self.tallies >= 0
        place = one.headers["subject"], int(one.headers["streamversion"])
        if one.group or place not in self.last.items():
            return False
        self.lost.add(one.key)
        return True

    def between(self, channel: Channel) -> Channel:
        """The channel, with losses."""
        publish: Any = channel.publish

        async def lossy(publications: Sequence[Publication], **options: Any) -> Any:
            return await publish([one for one in publications if not self.swallows(one)], **options)

        channel.publish = lossy  # type: ignore[method-assign]
        return channel


class Services:
    """Two services with names that nobody else has on the channel: one counts, the other writes down what it hears of it."""

    def __init__(self, folder: Path, channel: str) -> None:
        tag = uuid.uuid4().hex[:12]
        self.counting, self.hearing = f"counting-{tag}", f"hearing-{tag}"
        self.folder, self.url = folder, channel or f"sqlite:///{folder / 'channel.db'}"

        class Bump(Command, service=self.counting):
            key: str

        class Bumped(Event, service=self.counting, category="Count"):
            key: str
            number: int

        class Heard(Event, service=self.hearing):
            key: str
            number: int

        self.bump, self.bumped, self.heard = Bump, Bumped, Heard

    def stream(self, key: str) -> str:
        """Where the events of a key are."""
        return f"{self.counting}.Count/{key}"

    def producer(self) -> App:
        """The service that counts."""
        app = App(self.counting, store=f"sqlite:///{self.folder / 'counting.db'}", channel=self.url)
        app.add(
            Decider(
                "Count",
                "key",
                lambda: 0,
                {self.bump: lambda number, command: self.bumped(command.key, number + 1)},
                {self.bumped: lambda _, event: event.number},
            )
        )
        return app

    def consumer(self) -> App:
        """The service that hears."""
        app = App(self.hearing, store=f"sqlite:///{self.folder / 'hearing.db'}", channel=self.url)
        app.add(self.heard)

        async def hear(event: Any) -> Any:
            return self.heard(event.key, event.number)

        app.on(self.bumped)(hear)
        return app


class Scene:
    """One trial: what is lost, who ends in between, and what has come in the end."""

    def __init__(self, folder: Path, channel: str, chance: random.Random, streams: int) -> None:
        self.services = Services(folder, channel)
        self.chance = chance
        self.versions = {f"k{index}": chance.randint(1, 3) for index in range(streams)}
        last = {self.services.stream(key): number for key, number in self.versions.items()}
        self.loss = Loss(last, tallies=chance.choice((0, 1, 2)))
        self.restarted = chance.choice(("", "producer", "consumer"))

    async def play(self) -> TrialResult:
        """Count, lose, wait until all has come, and look."""
        began = time.monotonic()
        async with (
            self._running(self.services.consumer()) as consumer,
            self._running(self.services.producer()) as producer,
        ):
            keys = list(self.versions)
            await self._count(producer, keys[::2])
            await asyncio.sleep(1.5 * tallying.NEWS)
            await self._count(producer, keys[1::2])
            again = {"producer": producer, "consumer": consumer}.get(self.restarted)
            if again is not None:
                await self._restart(again)
            counted = time.monotonic()
            found = await self._come(consumer)
        facts = {
            "seconds to count": round(counted - began, 1),
            "seconds until all had come": round(time.monotonic() - counted, 1),
        }
        return TrialResult(len(self.loss.lost) == len(self.versions), found, len(self.loss.lost), facts)

    @asynccontextmanager
    async def _running(self, app: App) -> AsyncIterator[App]:
        await self._start(app)
        try:
            yield app
        finally:
            await app.stop()

    async def _start(self, app: App) -> None:
        channel = self.loss.between(open_channel(self.services.url, SystemClock()))
        await app.connect(channel=channel)
        await channel.open()
        await channel.establish(app.routes())
        await app.start()

    async def _restart(self, app: App) -> None:
        """Stop one of the services after a while, and start it anew."""
        await asyncio.sleep(self.chance.uniform(0, 1.5 * tallying.NEWS))
        await app.stop()
        await self._start(app)

    async def _count(self, producer: App, keys: Sequence[str]) -> None:
        bumps = [self.services.bump(key) for key in keys for _ in range(self.versions[key])]
        self.chance.shuffle(bumps)
        for first in range(0, len(bumps), AT_ONCE):
            await asyncio.gather(*map(producer.send, bumps[first : first + AT_ONCE]))

    async def _come(self, consumer: App) -> list[str]:
        """Wait until everything was heard and nothing is held; what is wrong after that."""
        end = time.monotonic() + PATIENCE
        wanted = sum(self.versions.values())
        while time.monotonic() < end:
            database = consumer.wiring.database
            if await database.head() >= wanted and not await database.held_list(None, list(Reason), 1):
                break
            await asyncio.sleep(LOOK)
        heard: dict[str, list[int]] = {}
        for one in await consumer.wiring.database.read(0, 10 * wanted):
            event = consumer.schema.decode(one.type, one.type_version, one.data)
            heard.setdefault(event.key, []).append(event.number)
        return self._wrong(heard, await consumer.wiring.database.held_list(None, list(Reason), 3))

    def _wrong(self, heard: dict[str, list[int]], held: Sequence[Held]) -> list[str]:
        found = []
        for key, number in self.versions.items():
            got = heard.get(key, [])
            if missing := set(range(1, number + 1)) - set(got):
                found.append(f"{key}: {sorted(missing)} never came back")
            elif got != list(range(1, number + 1)):
                found.append(f"{key}: heard {got} of {number}")
        return found[:20] or [f"still held: {row.consumer} {row.key} {row.reason}" for row in held]
