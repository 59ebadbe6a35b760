"""SNS and SQS give each group what it is owed, whatever is done; and the machine sees a bug that is planted in the adapter."""

from __future__ import annotations

from pathlib import Path
from unittest import mock

import pytest

from headwater.adapters.aws import AwsChannel
from headwater.adapters.aws.queue import Queue, Taken
from headwater.channel import Channel, Route
from headwater.clock import Clock
from headwater.testing.contracts.properties import ChannelProperties
from tests.servers.aws import Endpoint

pytestmark = pytest.mark.timeout(400)  # what fails is made short, which takes a while


class TestAwsChannel(ChannelProperties):
    """SQS counts about what there is, what is for other groups too, and dates it by its own clock."""

    examples = 8
    steps = 20
    exact = False
    shrink = False

    @pytest.fixture(autouse=True)
    def server(self, aws: Endpoint) -> None:
        self.aws = aws
        self.made = 0

    async def make(self, tmp_path: Path, clock: Clock) -> Channel:
        self.made += 1
        channel = AwsChannel.from_url(self.aws.channel(poll=1, prefix=f"{self.aws.prefix}{self.made}-"), clock)
        await channel.open()
        await channel.establish([Route("orders"), Route("payments")])
        return channel

    async def reopen(self, channel: Channel) -> Channel:
        assert isinstance(channel, AwsChannel)
        again = AwsChannel(channel.options, channel.clock)
        await again.open()
        return again


def test_the_machine_sees_messages_of_a_key_that_change_places(aws: Endpoint) -> None:
    """A bug that is found soon: what else it sees is planted in SQLite, where an example takes a hundredth of the time."""
    receive = Queue.receive

    async def reversing(self: Queue, most: int, wait: int, attempt: str) -> list[Taken]:
        return (await receive(self, most, wait, attempt))[::-1]

    case = TestAwsChannel()
    case.aws, case.made = aws, 0
    with mock.patch.object(Queue, "receive", reversing), pytest.raises((AssertionError, ExceptionGroup)):
        case.test_it_gives_what_it_owes()
