"""The CloudEvents SDK and ours on one broker: it reads what a service of ours states, and a service of ours what it does."""

from __future__ import annotations

import asyncio
from datetime import datetime
from pathlib import Path
from typing import Any
from uuid import uuid4

import pytest
from cloudevents.core.base import BaseCloudEvent
from cloudevents.core.bindings.kafka import KafkaMessage, from_kafka, to_binary, to_structured
from cloudevents.core.formats.json import JSONFormat
from cloudevents.core.v1.event import CloudEvent
from confluent_kafka import Consumer, Producer

from headwater import App, Event
from tests.contract.foreign import TOPIC, Hearer, attributes, running
from tests.flow.shop import Bump, shop
from tests.servers.kafka import Brokers


def prefix_of(url: str) -> str:
    return url.partition("prefix=")[2].partition("&")[0]


def read(kafka: Brokers, topic: str, count: int) -> list[BaseCloudEvent]:
    """The first events of a topic, as the SDK has them."""
    group = {"group.id": uuid4().hex, "auto.offset.reset": "earliest", "enable.auto.commit": False}
    consumer = Consumer({"bootstrap.servers": kafka.address, **group})
    consumer.subscribe([topic])
    found: list[BaseCloudEvent] = []
    try:
        while len(found) < count:
            messages = consumer.consume(count - len(found), timeout=20)
            assert messages, f"{len(found)} of {count} events came"
            for one in messages:
                headers: Any = dict(one.headers() or ())
                message = KafkaMessage(headers, one.key(), one.value() or b"")
                found.append(from_kafka(message, JSONFormat(), CloudEvent))
    finally:
        consumer.close()
    return found


def state(kafka: Brokers, topic: str, messages: list[KafkaMessage]) -> None:
    producer = Producer({"bootstrap.servers": kafka.address})
    for one in messages:
        producer.produce(topic, value=one.value, key=one.key, headers=list(one.headers.items()))
    assert producer.flush(20) == 0


def event(receipt: str, version: int, cents: int) -> CloudEvent:
    named = attributes(receipt, version)
    return CloudEvent(named | {"time": datetime.fromisoformat(named["time"])}, {"receipt": receipt, "cents": cents})


def test_the_sdk_reads_what_a_service_of_ours_states(kafka: Brokers, tmp_path: Path) -> None:
    url = kafka.url()

    async def main() -> list[BaseCloudEvent]:
        async with running(shop(store=f"sqlite:///{tmp_path}/shop.db", channel=url)) as app:
            await app.send(Bump("ключ", "one"))
            await app.send(Bump("ключ", "two"))
            return await asyncio.to_thread(read, kafka, f"{prefix_of(url)}shop.Counter", 2)

    first, second = asyncio.run(main())
    assert (first.get_type(), first.get_source(), first.get_subject()) == ("shop.Bumped", "shop", "shop.Counter/ключ")
    assert first.get_datacontenttype() == "application/json"
    assert first.get_data() == {"key": "ключ", "n": 1, "say": "one"}
    assert first.get_time() is not None
    assert first.get_id() != second.get_id()
    assert second.get_data() == {"key": "ключ", "n": 2, "say": "two"}
    assert [one.get_extension("streamversion") for one in (first, second)] == ["1", "2"]
    assert {one.get_extension("partitionkey") for one in (first, second)} == {"shop.Counter/ключ"}


def test_a_service_of_ours_hears_what_the_sdk_states(kafka: Brokers, tmp_path: Path) -> None:
    url = kafka.url()
    stated = [event("r1", 1, 10), event("r2", 1, 20), event("r1", 2, 30)]

    async def main() -> list[tuple[str, int]]:
        hearer = Hearer(tmp_path, url)
        async with running(hearer.app):
            messages = [to_binary(one, JSONFormat()) for one in [*stated, stated[0]]]
            await asyncio.to_thread(state, kafka, f"{prefix_of(url)}{TOPIC}", messages)
            await hearer.hears(3)
            last = to_binary(event("r1", 3, 40), JSONFormat())
            await asyncio.to_thread(state, kafka, f"{prefix_of(url)}{TOPIC}", [last])
            return await hearer.hears(4)

    heard = asyncio.run(main())
    assert [cents for receipt, cents in heard if receipt == "r1"] == [10, 30, 40], "each once, in order"
    assert [cents for receipt, cents in heard if receipt == "r2"] == [20]


@pytest.mark.parametrize("mode", [to_binary, to_structured])
def test_a_service_of_ours_listens_to_events_of_the_sdk_without_our_attributes(
    mode: Any, kafka: Brokers, tmp_path: Path
) -> None:
    url = kafka.url()

    class Sold(Event, service="till", category="sales"):
        sku: str
        cents: int

    async def main() -> None:
        app = App("books", store=f"sqlite:///{tmp_path}/books.db", channel=url)
        app.listen("Sales", Sold, key="sku")
        heard: list[tuple[str, int]] = []
        done = asyncio.Event()

        @app.on(Sold)
        async def enter(event: Sold) -> None:
            heard.append((event.sku, event.cents))
            if len(heard) == 3:
                done.set()

        async with running(app):
            named = {
                "type": "com.example.sold",
                "source": "/tills/7",
                "specversion": "1.0",
                "datacontenttype": "application/json",
            }
            events = [
                CloudEvent(named | {"id": str(cents), "partitionkey": sku}, {"sku": sku, "cents": cents})
                for sku, cents in (("a", 1), ("b", 2), ("a", 3))
            ]
            messages = [mode(one, JSONFormat()) for one in events]
            await asyncio.to_thread(state, kafka, f"{prefix_of(url)}Sales", messages)
            await asyncio.wait_for(done.wait(), 20)
        assert sorted(heard) == [("a", 1), ("a", 3), ("b", 2)]
        assert [cents for sku, cents in heard if sku == "a"] == [1, 3]

    asyncio.run(main())
