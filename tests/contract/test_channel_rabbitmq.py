"""The RabbitMQ channel keeps every promise of a channel, on a real server."""

from __future__ import annotations

from pathlib import Path

import pytest

from headwater.adapters.rabbitmq import RabbitmqChannel
from headwater.channel import Channel
from headwater.clock import Clock
from headwater.testing.contracts.channel import ChannelContract
from tests.servers.rabbitmq import Vhosts


class TestRabbitmqChannel(ChannelContract):
    @pytest.fixture(autouse=True)
    def server(self, rabbitmq: Vhosts) -> None:
        self.rabbitmq = rabbitmq

    async def make(self, tmp_path: Path, clock: Clock) -> Channel:
        return await opened(RabbitmqChannel(self.rabbitmq.make(), clock))

    async def reopen(self, channel: Channel) -> Channel:
        assert isinstance(channel, RabbitmqChannel)
        return await opened(RabbitmqChannel(channel.url, channel.clock))

    async def make_limited(self, tmp_path: Path, clock: Clock, limit: int) -> Channel:
        return await opened(RabbitmqChannel(f"{self.rabbitmq.make()}?partitions=1&limit={limit}", clock))


async def opened(channel: RabbitmqChannel) -> RabbitmqChannel:
    await channel.open()
    return channel
