"""SNS and SQS keep every promise of a channel, as far as moto shows it (see docs/how-to/use-aws.md)."""

from __future__ import annotations

from pathlib import Path

import pytest

from headwater.adapters.aws import AwsChannel
from headwater.channel import Channel
from headwater.clock import Clock
from headwater.testing.contracts.channel import ChannelContract
from tests.servers.aws import Endpoint


class TestAwsChannel(ChannelContract):
    @pytest.fixture(autouse=True)
    def server(self, aws: Endpoint) -> None:
        self.aws = aws

    async def make(self, tmp_path: Path, clock: Clock) -> Channel:
        return await opened(AwsChannel.from_url(self.aws.channel(poll=1), clock))

    async def reopen(self, channel: Channel) -> Channel:
        assert isinstance(channel, AwsChannel)
        return await opened(AwsChannel(channel.options, channel.clock))


async def opened(channel: AwsChannel) -> AwsChannel:
    await channel.open()
    return channel
