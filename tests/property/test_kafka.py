"""Kafka gives each group what it is owed, whatever is done; and the machine sees a bug that is planted in the adapter."""

from __future__ import annotations

from pathlib import Path
from unittest import mock

import pytest

from headwater.adapters.kafka import KafkaChannel
from headwater.adapters.kafka.batch import Batch
from headwater.adapters.kafka.shelf import Shelf
from headwater.channel import Channel, Route
from headwater.clock import Clock
from headwater.testing.contracts.properties import ChannelProperties
from tests.servers.kafka import Brokers

pytestmark = pytest.mark.timeout(400)  # what fails is made short, which takes a while


class TestKafkaChannel(ChannelProperties):
    """A broker goes by its own time. Members keep what they have in hand for as long as they like: `drain`."""

    examples = 10
    steps = 25
    exact = False
    shrink = False
    pause = 0.1

    @pytest.fixture(autouse=True)
    def server(self, kafka: Brokers) -> None:
        self.kafka = kafka

    async def make(self, tmp_path: Path, clock: Clock) -> Channel:
        self.kafka.clear()  # the topics of the example before
        channel = await _opened(KafkaChannel(self.kafka.url(partitions=2, drain=240), clock))
        await channel.establish([Route("orders"), Route("payments")])
        return channel

    async def reopen(self, channel: Channel) -> Channel:
        assert isinstance(channel, KafkaChannel)
        return await _opened(KafkaChannel(channel.url, channel.clock))


async def _opened(channel: KafkaChannel) -> KafkaChannel:
    await channel.open()
    return channel


def test_the_machine_sees_messages_of_a_key_that_change_places(kafka: Brokers) -> None:
    """A bug that is found soon: what else it sees is planted in SQLite, where an example takes a hundredth of the time."""
    next_of = Shelf._next

    def reversing(self: Shelf, limit: int) -> Batch | None:
        found = next_of(self, limit)
        return found and Batch(found.deliveries[::-1], found.last)

    case = TestKafkaChannel()
    case.kafka, case.examples = kafka, 50
    with mock.patch.object(Shelf, "_next", reversing), pytest.raises((AssertionError, ExceptionGroup)):
        case.test_it_gives_what_it_owes()
