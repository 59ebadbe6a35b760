"""The Kafka channel keeps every promise of a channel, on a real broker."""

from __future__ import annotations

from pathlib import Path

import pytest

from headwater.adapters.kafka import KafkaChannel
from headwater.channel import Channel
from headwater.clock import Clock
from headwater.testing.contracts.channel import ChannelContract
from tests.servers.kafka import Brokers


class TestKafkaChannel(ChannelContract):
    settle = 0.6

    @pytest.fixture(autouse=True)
    def server(self, kafka: Brokers) -> None:
        self.kafka = kafka

    async def make(self, tmp_path: Path, clock: Clock) -> Channel:
        return await opened(KafkaChannel(self.kafka.url(), clock))

    async def reopen(self, channel: Channel) -> Channel:
        assert isinstance(channel, KafkaChannel)
        return await opened(KafkaChannel(channel.url, channel.clock))


async def opened(channel: KafkaChannel) -> KafkaChannel:
    await channel.open()
    return channel
