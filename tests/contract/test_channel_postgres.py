"""The PostgreSQL channel keeps every promise of a channel."""

from __future__ import annotations

from pathlib import Path

import pytest

from headwater.adapters.postgres import PostgresChannel
from headwater.adapters.postgres.channel_options import ChannelOptions
from headwater.channel import Channel
from headwater.clock import Clock
from headwater.testing.contracts.channel import ChannelContract
from tests.servers.postgres import Databases


class TestPostgresChannel(ChannelContract):
    @pytest.fixture(autouse=True)
    def server(self, postgres: Databases) -> None:
        self.postgres = postgres

    async def make(self, tmp_path: Path, clock: Clock) -> Channel:
        return await opened(PostgresChannel(self.postgres.make(), clock))

    async def reopen(self, channel: Channel) -> Channel:
        assert isinstance(channel, PostgresChannel)
        return await opened(PostgresChannel(channel.url, channel.clock))

    async def make_limited(self, tmp_path: Path, clock: Clock, limit: int) -> Channel:
        return await opened(PostgresChannel(self.postgres.make(), clock, ChannelOptions(limit=limit)))


async def opened(channel: PostgresChannel) -> PostgresChannel:
    await channel.open()
    return channel
