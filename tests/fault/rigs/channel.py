"""`channel`: a channel keeps its contract, and gives each group what it is owed whatever is done to it.

`--channel URL` says which; for `kafka` or `rabbitmq` alone, a broker is started for it.
A trial is a test of the contract suite, each in its turn, or an example of the state machine, by its seed.
"""

from __future__ import annotations

import tempfile
import uuid
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

from examples.shop.folder import with_prefix
from headwater.app import open_channel
from headwater.channel import Channel, Route
from headwater.clock import Clock
from headwater.config import scheme_of
from headwater.testing.contracts.channel import ChannelContract
from headwater.testing.contracts.properties import ChannelProperties
from tests.fault.rigs.on_broker import with_option
from tests.fault.rigs.on_server import fresh_databases
from tests.fault.rigs.trial import TrialResult
from tests.servers.postgres import Databases

CHANNELS = True
FILES: Final = ("sqlite", "memory", "")
SERVERS: Final = ("postgresql", "postgres")
KAFKA: Final = "kafka"
STEPS = 25


class Place:
    """Where a trial has channels without messages: in its folder, in databases of a server, or on a broker under prefixes."""

    settle = 0.6
    databases: Databases

    def __init__(self, url: str) -> None:
        self.url = url
        self.urls: dict[int, str] = {}

    async def make(self, tmp_path: Path, clock: Clock) -> Channel:
        """A channel without messages."""
        scheme = scheme_of(self.url) if self.url else ""
        if scheme in FILES:
            url = f"sqlite:///{tmp_path / uuid.uuid4().hex}.db"
        elif scheme in SERVERS:
            url = self.databases.make()
        else:
            url = with_prefix(self.url, f"t{uuid.uuid4().hex[:12]}-")
        return await self._opened(url, clock)

    async def reopen(self, channel: Channel) -> Channel:
        """Another handle of it."""
        clock: Any = getattr(channel, "clock")  # noqa: B009 - no part of the contract, and all of ours have it
        return await self._opened(self.urls[id(channel)], clock)

    async def _opened(self, url: str, clock: Clock) -> Channel:
        channel = open_channel(url, clock)
        self.urls[id(channel)] = url
        await channel.open()
        return channel


class Contract(Place, ChannelContract):
    """The contract suite there."""


class Examples(Place, ChannelProperties):
    """One example of the state machine there, in real time; a broker counts its messages in its own time.

    Members of Kafka keep what they have in hand for as long as the machine likes, and those that left are missed after a while.
    """

    examples = 1
    steps = STEPS
    shrink = False

    def __init__(self, url: str, seed: int) -> None:
        scheme = scheme_of(url) if url else ""
        super().__init__(with_option(url, "drain", 240) if scheme == KAFKA else url)
        self.seed = seed
        self.exact = scheme in (*FILES, *SERVERS)
        self.pause = 0.1 if scheme == KAFKA else 0.02

    async def make(self, tmp_path: Path, clock: Clock) -> Channel:
        """With the routes of its topics."""
        channel = await super().make(tmp_path, clock)
        await channel.establish([Route("orders"), Route("payments")])
        return channel


TESTS: Final = sorted(name for name in dir(ChannelContract) if name.startswith("test_"))
COUNT = 2 * len(TESTS)


def one_trial(seed: int, channel: str = "") -> TrialResult:
    """A test of the suite, or an example of the machine."""
    number, example = divmod(seed - 1, 2)
    name = "an example" if example else TESTS[number % len(TESTS)]
    with tempfile.TemporaryDirectory(prefix="headwater-channel-") as folder:
        case = Examples(channel, seed) if example else Contract(channel)
        if channel and scheme_of(channel) in SERVERS:
            with fresh_databases(channel) as case.databases:
                return _tried(name, _play(case, name, Path(folder)))
        return _tried(name, _play(case, name, Path(folder)))


def _play(case: Contract | Examples, name: str, folder: Path) -> Callable[[], None]:
    if isinstance(case, Examples):
        return case.test_it_gives_what_it_owes
    return lambda: getattr(case, name)(folder)


def _tried(name: str, play: Callable[[], None]) -> TrialResult:
    try:
        play()
    except Exception as error:  # noqa: BLE001 - whatever falls out of a test is a broken promise
        return TrialResult(True, [f"{name}: {type(error).__name__}: {str(error)[:300]}"])
    return TrialResult(True, [])
