"""A channel gives each group what it is owed, whatever is done; and the machine sees bugs that are planted."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import Any
from unittest import mock

import apsw
import pytest
from msgspec import structs

from headwater.adapters.sqlite import SqliteChannel, channel_schema, channel_span, channel_subscription
from headwater.adapters.sqlite.channel_file import ChannelFile
from headwater.adapters.sqlite.channel_options import ChannelOptions
from headwater.adapters.sqlite.channel_subscription import SqliteSubscription
from headwater.adapters.sqlite.channel_writes import Publish, Trim
from headwater.channel import Channel
from headwater.clock import Clock
from headwater.testing.contracts.properties import ChannelProperties
from tests.contract import test_channel_memory

pytestmark = pytest.mark.timeout(400)  # what fails is made short, which takes a while


class TestMemoryChannel(ChannelProperties):
    examples = 30
    steps = 30
    make = test_channel_memory.TestMemoryChannel.make
    reopen = test_channel_memory.TestMemoryChannel.reopen


@pytest.fixture(autouse=True)
def _share_at_once() -> Iterator[None]:
    """Members look at every step who shares the group, not four times a second."""
    with mock.patch.object(channel_subscription, "SHARE", 0.0):
        yield


class TestSqliteChannel(ChannelProperties):
    examples = 30
    steps = 30
    keeps = 1.0

    async def make(self, tmp_path: Path, clock: Clock) -> Channel:
        return await self._opened(SqliteChannel(tmp_path / "channel.db", clock, ChannelOptions(retention=self.keeps)))

    async def reopen(self, channel: Channel) -> Channel:
        assert isinstance(channel, SqliteChannel)
        return await self._opened(SqliteChannel(channel.path, channel.clock, channel.options))

    async def _opened(self, channel: SqliteChannel) -> Channel:
        await channel.open()
        return channel


# --- bugs, each planted from outside ---

Plant = AbstractContextManager[Any]


def lost_release() -> Plant:
    """What is given back is not fetched again."""
    return mock.patch.object(
        SqliteSubscription, "_respan", lambda self, reached: None if self._spans else respan(self, reached)
    )


respan = SqliteSubscription._respan
fetch_sql = channel_schema.fetch_sql
apply = Publish.apply
publish = SqliteChannel.publish


def fetching(changed: Callable[[str], str]) -> Plant:
    return mock.patch.object(channel_span, "fetch_sql", lambda topics: changed(fetch_sql(topics)))


def any_epoch() -> Plant:
    """Producers of every epoch may publish."""
    return mock.patch.object(
        Publish, "apply", lambda self, connection: apply(structs.replace(self, epoch=9), connection)
    )


@contextmanager
def trimming() -> Iterator[None]:
    """What is old is deleted, whether or not all groups have it: before a publish is answered, so that each run is the same."""

    def trimmed(self: Trim, connection: apsw.Connection) -> tuple[int, int]:
        connection.execute("DELETE FROM messages WHERE time < ?", (self.before,))
        return 0, 0

    async def published(self: SqliteChannel, *arguments: Any, **options: Any) -> dict[int, str]:
        answer = await publish(self, *arguments, **options)
        if self._trimming is not None:
            await asyncio.wait({self._trimming})
        return answer

    with mock.patch.object(Trim, "apply", trimmed), mock.patch.object(SqliteChannel, "publish", published):
        yield


PLANTS: dict[str, Callable[[], Plant]] = {
    "a release is lost": lost_release,
    "messages for another group are taken": lambda: fetching(lambda sql: sql.replace("for_group = ?3", "?3 <> ''")),
    "the order is reversed": lambda: fetching(lambda sql: sql.replace("ORDER BY position", "ORDER BY position DESC")),
    "what nobody has got is trimmed": trimming,
    "any producer may publish": any_epoch,
    "acknowledgements are lost at the end": lambda: mock.patch.object(
        ChannelFile, "settle", lambda self, moved, member: None
    ),
}


@pytest.mark.parametrize("plant", PLANTS)
def test_the_machine_sees(plant: str) -> None:
    case = TestSqliteChannel()
    case.examples, case.shrink = 200, False
    with PLANTS[plant](), pytest.raises((AssertionError, ExceptionGroup)):
        case.test_it_gives_what_it_owes()
