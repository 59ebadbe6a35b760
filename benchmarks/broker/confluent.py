"""Other clients of Kafka on confluent-kafka: it by itself, and FastStream on it. Both write and read our topic."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from functools import partial
from typing import Any

from confluent_kafka import Consumer, KafkaError, KafkaException, Message, Producer
from faststream.confluent import KafkaBroker, KafkaMessage

from headwater.adapters.kafka.binding import headers_of
from headwater.channel import Publication

from .client import BATCH, Handle, Send, decode, ended
from .faststream_kafka import FastStreamKafka
from .server import Place
from .typed import Line, Store, StoreMany

LARGE = 2_000
"""Messages that the raw client takes at once, and after which it commits."""
POLL = 0.001
TURN = 0.1
ID = "ce_id"
DURABLE = {"acks": "all", "enable.idempotence": True}


class Bridge:
    """From confluent-kafka's delivery callbacks to futures: bare, looked at by the event loop."""

    def __init__(self, address: str) -> None:
        self._loop = asyncio.get_running_loop()
        settings = DURABLE | {"linger.ms": 0, "partitioner": "murmur2_random"}
        self._producer = Producer({"bootstrap.servers": address, "queue.buffering.max.messages": 1_000_000, **settings})
        self._task = asyncio.create_task(self._look())

    def send(self, prepared: dict[str, Any]) -> asyncio.Future[None]:
        future: asyncio.Future[None] = self._loop.create_future()
        self._producer.produce(on_delivery=partial(_report, future), **prepared)
        return future

    async def close(self) -> None:
        await ended(self._task)
        self._producer.flush()

    async def _look(self) -> None:
        while True:
            self._producer.poll(0)
            await asyncio.sleep(POLL)


def _report(future: asyncio.Future[None], error: KafkaError | None, _: Message) -> None:
    if error is None:
        future.set_result(None)
    else:
        future.set_exception(KafkaException(error))


class Confluent:
    """The raw client: it takes up to 2,000 at once, or `each` message alone, and commits; `awaited`: it waits for that."""

    batches = False

    def __init__(self, *, each: bool = False, awaited: bool = False) -> None:
        self._each = each
        self._awaited = awaited

    def prepared(self, place: Place, publication: Publication) -> dict[str, Any]:
        return {
            "topic": place.topic,
            "value": publication.body,
            "key": publication.key.encode(),
            "headers": headers_of(publication),
        }

    @asynccontextmanager
    async def publishing(self, place: Place) -> AsyncIterator[Send]:
        bridge = Bridge(place.address)
        try:
            yield bridge.send
        finally:
            await bridge.close()

    @asynccontextmanager
    async def consuming(self, place: Place, handle: Handle) -> AsyncIterator[None]:
        """In a thread of its own, with no event loop."""
        left = threading.Event()
        thread = threading.Thread(target=self._consume, args=(place, handle, left.is_set))
        thread.start()
        try:
            yield
        finally:
            left.set()
            await asyncio.to_thread(thread.join)

    def _consume(self, place: Place, handle: Handle, left: Callable[[], bool]) -> None:
        consumer = _consumer(place)
        since = 0
        while not left():
            for one in _next(consumer, 1 if self._each else LARGE):
                handle(decode(one.value() or b""))
                since += 1
            if since >= (1 if self._each else LARGE):
                consumer.commit(asynchronous=not self._awaited)
                since = 0
        if since:
            consumer.commit(asynchronous=False)
        consumer.close()

    @asynccontextmanager
    async def keeping(self, place: Place, store: StoreMany) -> AsyncIterator[None]:
        """Calls `store` with the ids and the events of up to 500 messages at once."""
        consumer = _consumer(place)

        async def keep() -> None:
            while True:
                if batch := await asyncio.to_thread(_next, consumer, BATCH):
                    ids = [_id(one) for one in batch]
                    await store(ids, [decode(one.value() or b"") for one in batch])
                    consumer.commit(asynchronous=True)

        task = asyncio.create_task(keep())
        try:
            yield
        finally:
            await ended(task)
            await asyncio.to_thread(consumer.close)


def _consumer(place: Place) -> Consumer:
    settings = {"enable.auto.commit": False, "auto.offset.reset": "earliest", "session.timeout.ms": 10_000}
    consumer = Consumer({"bootstrap.servers": place.address, "group.id": place.group_id, **settings})
    consumer.subscribe([place.source])
    return consumer


def _id(message: Message) -> str:
    headers: Any = dict(message.headers() or ())
    return str(headers[ID], "utf-8")


def _next(consumer: Consumer, most: int) -> list[Message]:
    found = consumer.consume(most, TURN)
    for one in found:
        if (error := one.error()) is not None:
            raise KafkaException(error)
    return found


class FastStreamConfluent(FastStreamKafka):
    """FastStream on confluent-kafka: a handler for each message, or for `batches` of so many; acknowledged as `policy` says.

    Its default acknowledges before the handler has run. Of what its documentation offers, NACK_ON_ERROR loses nothing.
    """

    broker = KafkaBroker

    @asynccontextmanager
    async def storing(self, place: Place, store: Store) -> AsyncIterator[None]:
        """Calls `store` with the id of each message and the event."""
        broker = KafkaBroker(place.address, logger=None)

        @broker.subscriber(place.source, group_id=place.group_id, **self._settings)
        async def take(event: Line, message: KafkaMessage) -> None:
            await store(message.headers[ID], event)

        async with broker:
            await broker.start()
            yield

    @asynccontextmanager
    async def keeping(self, place: Place, store: StoreMany) -> AsyncIterator[None]:
        """Calls `store` with the ids and the events of a batch."""
        broker = KafkaBroker(place.address, logger=None)

        @broker.subscriber(place.source, group_id=place.group_id, **self._settings)
        async def take(events: list[Line], message: KafkaMessage) -> None:
            await store([one[ID] for one in message.batch_headers], events)

        async with broker:
            await broker.start()
            yield
