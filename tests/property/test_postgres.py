"""PostgreSQL does as the model does, as a database and as a channel; and the machines see bugs that are planted in it."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any
from unittest import mock

import pytest
from msgspec.structs import replace

from headwater.adapters.postgres import PostgresChannel, PostgresDatabase, channel_subscription, writes
from headwater.adapters.postgres.channel_options import ChannelOptions
from headwater.channel import Channel
from headwater.clock import Clock
from headwater.database import Database, Facts, Judgement, WriteSet, judge
from headwater.testing.clock import VirtualClock
from headwater.testing.contracts.properties import ChannelProperties, DatabaseProperties
from tests.contract import test_database_postgres
from tests.servers.postgres import Databases

pytestmark = pytest.mark.timeout(400)  # what fails is made short, which takes a while


@pytest.fixture(autouse=True)
def _share_at_once() -> Iterator[None]:
    """Members look at every step who shares the group, not twice a second."""
    with mock.patch.object(channel_subscription, "SHARE", 0.0):
        yield


class TestPostgresDatabase(DatabaseProperties):
    examples = 10
    reopen = test_database_postgres.TestPostgresDatabase.reopen

    @pytest.fixture(autouse=True)
    def server(self, postgres: Databases) -> None:
        self.postgres = postgres

    async def make(self, tmp_path: Path, clock: VirtualClock) -> Database:
        self.postgres.empty()  # that of the example before
        database = PostgresDatabase(self.postgres.make(), clock)
        await database.open()
        return database


class TestPostgresChannel(ChannelProperties):
    examples = 10
    steps = 30
    keeps = 1.0

    @pytest.fixture(autouse=True)
    def server(self, postgres: Databases) -> None:
        self.postgres = postgres

    async def make(self, tmp_path: Path, clock: Clock) -> Channel:
        self.postgres.empty()
        return await _opened(PostgresChannel(self.postgres.make(), clock, ChannelOptions(retention=self.keeps)))

    async def reopen(self, channel: Channel) -> Channel:
        assert isinstance(channel, PostgresChannel)
        return await _opened(PostgresChannel(channel.url, channel.clock, channel.options))


async def _opened(channel: PostgresChannel) -> PostgresChannel:
    await channel.open()
    return channel


# --- bugs, each planted from outside ---

Plant = AbstractContextManager[Any]


def judging(changed: Callable[[WriteSet], WriteSet]) -> Plant:
    def judged(sets: Sequence[WriteSet], facts: Facts) -> Judgement:
        return judge([changed(one) for one in sets], facts)

    return mock.patch.object(writes, "judge", judged)


def test_the_machine_sees_that_a_command_key_is_not_kept(postgres: Databases) -> None:
    """One that is found soon: what else it sees is planted in SQLite, where an example takes a tenth of the time."""
    case = TestPostgresDatabase()
    case.postgres = postgres
    case.examples, case.shrink = 100, False
    with judging(lambda one: replace(one, key=None)), pytest.raises((AssertionError, ExceptionGroup)):
        case.test_it_does_as_the_model_does()
