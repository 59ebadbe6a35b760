"""Other clients of RabbitMQ: aio-pika, and FastStream, which stands on it. Both publish to our topic and read our queue."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import aio_pika
from aio_pika.abc import AbstractIncomingMessage
from faststream import AckPolicy
from faststream.rabbit import Channel, ExchangeType, RabbitBroker, RabbitExchange, RabbitMessage, RabbitQueue

from headwater.adapters.rabbitmq.binding import KEY, PREFIX, TYPE
from headwater.adapters.rabbitmq.topology import slot
from headwater.channel import Publication

from .client import BATCH, Handle, Send, decode, ended
from .rabbitmq import PREFETCH
from .server import Place
from .typed import Line, Store, StoreMany


def headers_of(publication: Publication) -> dict[str, Any]:
    """The headers that our channel writes."""
    named = {f"{PREFIX}{name}": value for name, value in publication.headers.items() if name != TYPE}
    return {f"{PREFIX}{KEY}": publication.key, **named}


class AioPika:
    """The raw client: a callback for each message, what came before acknowledged with each 500th."""

    batches = False

    def __init__(self, each: int = BATCH) -> None:
        self._each = each

    def prepared(self, place: Place, publication: Publication) -> tuple[aio_pika.Message, str]:
        message = aio_pika.Message(
            publication.body,
            headers=headers_of(publication),
            content_type=publication.headers[TYPE],
            delivery_mode=aio_pika.DeliveryMode.PERSISTENT,
            timestamp=1_767_225_600,
        )
        return message, str(slot(publication.key.encode()))

    @asynccontextmanager
    async def publishing(self, place: Place) -> AsyncIterator[Send]:
        async with await aio_pika.connect(place.address) as connection:
            channel = await connection.channel(publisher_confirms=True, on_return_raises=True)
            exchange = await channel.get_exchange(place.topic, ensure=False)

            async def send(prepared: tuple[aio_pika.Message, str]) -> None:
                await exchange.publish(*prepared, mandatory=True)

            yield send

    @asynccontextmanager
    async def consuming(self, place: Place, handle: Handle) -> AsyncIterator[None]:
        async with await aio_pika.connect(place.address) as connection:
            channel = await connection.channel()
            await channel.set_qos(prefetch_count=PREFETCH)
            queue = await channel.get_queue(place.source, ensure=False)
            seen = 0

            async def take(message: AbstractIncomingMessage) -> None:
                nonlocal seen
                handle(decode(message.body))
                seen += 1
                if not seen % self._each:
                    await message.ack(multiple=self._each > 1)

            await queue.consume(take)
            yield

    @asynccontextmanager
    async def keeping(self, place: Place, store: StoreMany) -> AsyncIterator[None]:
        """Calls `store` with the ids and the events of up to 500 messages at once."""
        came: asyncio.Queue[AbstractIncomingMessage] = asyncio.Queue()

        async def keep() -> None:
            while True:
                batch = [await came.get()]
                while len(batch) < BATCH and not came.empty():
                    batch.append(came.get_nowait())
                await store([str(one.headers[f"{PREFIX}id"]) for one in batch], [decode(one.body) for one in batch])
                await batch[-1].ack(multiple=True)

        async with await aio_pika.connect(place.address) as connection:
            channel = await connection.channel()
            await channel.set_qos(prefetch_count=PREFETCH)
            queue = await channel.get_queue(place.source, ensure=False)
            task = asyncio.create_task(keep())
            await queue.consume(came.put)
            try:
                yield
            finally:
                await ended(task)


class FastStreamRabbit:
    """FastStream as its documentation has it: a handler for each message, acknowledged after it, put back if it fails."""

    batches = False

    def prepared(self, place: Place, publication: Publication) -> dict[str, Any]:
        return {
            "message": publication.body,
            "exchange": _exchange(place),
            "routing_key": str(slot(publication.key.encode())),
            "headers": headers_of(publication),
            "content_type": publication.headers[TYPE],
            "persist": True,
        }

    @asynccontextmanager
    async def publishing(self, place: Place) -> AsyncIterator[Send]:
        async with RabbitBroker(place.address, logger=None) as broker:

            async def send(prepared: dict[str, Any]) -> None:
                await broker.publish(**prepared)

            yield send

    @asynccontextmanager
    async def consuming(self, place: Place, handle: Handle) -> AsyncIterator[None]:
        broker = _broker(place, PREFETCH)

        @broker.subscriber(_queue(place), ack_policy=AckPolicy.NACK_ON_ERROR)
        async def take(event: Line) -> None:
            handle(event)

        async with broker:
            await broker.start()
            yield

    @asynccontextmanager
    async def storing(self, place: Place, store: Store, at_once: int) -> AsyncIterator[None]:
        """Calls `store` with the id of each message and the event, so many at once."""
        broker = _broker(place, at_once)

        @broker.subscriber(_queue(place), ack_policy=AckPolicy.NACK_ON_ERROR)
        async def take(event: Line, message: RabbitMessage) -> None:
            await store(message.headers[f"{PREFIX}id"], event)

        async with broker:
            await broker.start()
            yield


def _broker(place: Place, prefetch: int) -> RabbitBroker:
    return RabbitBroker(place.address, logger=None, default_channel=Channel(prefetch_count=prefetch))


def _exchange(place: Place) -> RabbitExchange:
    return RabbitExchange(place.topic, type=ExchangeType.FANOUT, durable=True, declare=False)


def _queue(place: Place) -> RabbitQueue:
    return RabbitQueue(place.source, declare=False)
