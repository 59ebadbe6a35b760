"""Counted bounds on what the adapters of brokers do for a message: calls of our own functions, with no broker behind them.

`./dev bench M1 M2 --channel …` measures the same paths in time. A bound stands a little above what was counted when it was
set; whoever makes a path cheaper lowers it.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

import pytest
from confluent_kafka import Message
from pamqp import commands
from pamqp.frame import marshal

from headwater import SystemClock
from headwater.adapters.kafka import KafkaChannel, publishing
from headwater.adapters.kafka.binding import Reader, headers_of
from headwater.adapters.rabbitmq import RabbitmqChannel, frames
from headwater.adapters.rabbitmq.binding import properties
from headwater.adapters.rabbitmq.connection import Connection
from headwater.adapters.rabbitmq.partition import Partition
from headwater.adapters.rabbitmq.publishing import Publisher
from headwater.adapters.rabbitmq.session import Session
from headwater.adapters.rabbitmq.subscription import RabbitmqSubscription
from headwater.adapters.rabbitmq.url import Place
from headwater.channel import Delivery, Publication
from tests.unit.test_bench_counts import BATCH, calls, published, run

CLOCK = SystemClock()
Reported = Callable[[None, Message], None]


class Wire:
    """A transport that keeps what is written."""

    def __init__(self) -> None:
        self.written = bytearray()

    def write(self, data: bytes) -> None:
        self.written += data

    def is_closing(self) -> bool:
        return False


def connection() -> Connection:
    found = Connection(Place("rabbitmq://localhost"))
    found._transport = Wire()  # type: ignore[assignment]
    found._sessions[1] = Session(found, 1)
    return found


def test_the_calls_for_a_message_that_rabbitmq_takes() -> None:
    async def main() -> None:
        line = connection()
        messages = published(BATCH)
        channel = RabbitmqChannel("rabbitmq://localhost", CLOCK)
        channel._lines._publisher, channel._opened = Publisher(line, line._sessions[1]), True
        with calls() as called:
            sent = asyncio.create_task(channel.publish(messages))
            await asyncio.sleep(0)
            line.data_received(marshal(commands.Basic.Ack(BATCH, multiple=True), 1))
            assert await sent == {}
        assert called.total() / BATCH <= 20.7, called.most_common(8)  # of which the headers' are 12

    run(main)


def test_the_calls_for_a_message_from_rabbitmq(monkeypatch: pytest.MonkeyPatch) -> None:
    async def opened(partition: Partition, line: Connection, _: int) -> None:
        partition._connection, partition._session = line, line._sessions[1]
        partition._session.listener = partition

    monkeypatch.setattr(Partition, "open", opened)

    async def main() -> None:
        line = connection()
        subscription = RabbitmqSubscription(nobody, CLOCK, "mail", ["shop.Order"], "one")
        subscription._connection, subscription._look_at = line, float("inf")
        subscription._counts["shop.Order"] = 1
        await subscription._read("shop.Order", 0)
        came = b"".join(
            marshal(commands.Basic.Deliver("partition", number, False, "shop.Order", "7"), 1)
            + frames.content(1, properties(one.key, one.headers, 1), one.body, line.frame_max)
            for number, one in enumerate(published(BATCH), 1)
        )
        with calls() as called:
            for at in range(0, len(came), 65_536):
                line.data_received(came[at : at + 65_536])
            found = await subscription.fetch(BATCH)
            await subscription.acknowledge(found)
        assert [one.key for one in found] == [one.key for one in published(BATCH)]
        assert frames.acknowledging(1, BATCH) == bytes(line._transport.written)  # type: ignore[union-attr]
        assert called.total() / BATCH <= 12.1, called.most_common(8)

    run(main)


async def nobody() -> Connection:
    raise AssertionError("it has a connection")


class Reporting:
    """A producer of Kafka's that takes everything, and reports it when it is polled."""

    def __init__(self, *_: Any, **__: Any) -> None:
        self._due: list[Reported] = []
        self._confirmed = Message(topic="shop.Order", partition=0, offset=1)

    def produce(self, topic: str, value: bytes, key: bytes, partition: int, callback: Reported, *_: Any) -> None:
        self._due.append(callback)

    def poll(self, _: float) -> None:
        due, self._due = self._due, []
        for report in due:
            report(None, self._confirmed)

    def list_topics(self, *_: Any) -> None: ...
    def purge(self) -> None: ...
    def close(self) -> None: ...


def test_the_calls_for_a_message_that_kafka_takes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(publishing, "Producer", Reporting)

    async def main() -> None:
        channel = KafkaChannel("kafka://localhost", CLOCK)
        await channel.open()
        channel._known.add("shop.Order")
        messages = published(BATCH)
        with calls() as called:
            assert await channel.publish(messages) == {}
        assert called.total() / BATCH <= 5.1, called.most_common(8)
        await channel.close()

    run(main)


def given(one: Publication) -> list[tuple[str, str | bytes | None]]:
    """The headers as a consumer has them."""
    return [(name, str(value).encode()) for name, value in headers_of(one).items()]


def test_the_calls_for_a_message_from_kafka() -> None:
    messages = [
        Message("shop.Order", value=one.body, key=one.key.encode(), headers=given(one), partition=0, offset=offset)
        for offset, one in enumerate(published(BATCH))
    ]
    found: list[Delivery] = []
    reader = Reader({"shop.Order": "shop.Order"}, "mail")
    reader.read([messages.pop(0)], {("shop.Order", 0): 0}, found)  # its headers are known then
    with calls() as called:
        reader.read(messages, {("shop.Order", 0): 1}, found)
    assert [one.headers for one in found] == [one.headers for one in published(BATCH)]
    assert called.total() <= BATCH, called.most_common(8)  # the comprehension of its headers, up to Python 3.11
