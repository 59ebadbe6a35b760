"""RabbitMQ gives each group what it is owed, whatever is done; and the machine sees a bug that is planted in the adapter."""

from __future__ import annotations

from pathlib import Path
from unittest import mock

import pytest

from headwater.adapters.rabbitmq import RabbitmqChannel
from headwater.adapters.rabbitmq.partition import Item, Partition
from headwater.channel import Channel, Route
from headwater.clock import Clock
from headwater.testing.contracts.properties import ChannelProperties
from tests.servers.rabbitmq import Vhosts

pytestmark = pytest.mark.timeout(400)  # what fails is made short, which takes a while


class TestRabbitmqChannel(ChannelProperties):
    """What other processes have in hand is not counted, and the oldest is dated to the second."""

    examples = 8
    steps = 25
    exact = False
    shrink = False
    pause = 0.02

    @pytest.fixture(autouse=True)
    def server(self, rabbitmq: Vhosts) -> None:
        self.rabbitmq = rabbitmq

    async def make(self, tmp_path: Path, clock: Clock) -> Channel:
        self.rabbitmq.delete()  # that of the example before
        channel = await _opened(RabbitmqChannel(f"{self.rabbitmq.make()}?partitions=2&prefetch=5", clock))
        await channel.establish([Route("orders"), Route("payments")])
        return channel

    async def reopen(self, channel: Channel) -> Channel:
        assert isinstance(channel, RabbitmqChannel)
        return await _opened(RabbitmqChannel(channel.url, channel.clock))


async def _opened(channel: RabbitmqChannel) -> RabbitmqChannel:
    await channel.open()
    return channel


def test_the_machine_sees_messages_of_a_key_that_change_places(rabbitmq: Vhosts) -> None:
    """A bug that is found soon: what else it sees is planted in SQLite, where an example takes a hundredth of the time."""
    take = Partition.take

    def reversing(self: Partition, most: int) -> list[Item]:
        return take(self, most)[::-1]

    case = TestRabbitmqChannel()
    case.rabbitmq, case.examples = rabbitmq, 50
    with mock.patch.object(Partition, "take", reversing), pytest.raises((AssertionError, ExceptionGroup)):
        case.test_it_gives_what_it_owes()
