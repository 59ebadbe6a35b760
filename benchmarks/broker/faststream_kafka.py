"""FastStream on Kafka, whichever of its two clients is below."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

from faststream import AckPolicy

from headwater.adapters.kafka.binding import headers_of
from headwater.channel import Publication

from .client import Handle, Send
from .server import Place
from .typed import Line


class FastStreamKafka:
    """A handler for each message, or for `batches` of so many; acknowledged as `policy` says. `broker`: its class, by the client."""

    batches = False
    broker: Any

    def __init__(self, policy: AckPolicy = AckPolicy.NACK_ON_ERROR, batch: int = 0) -> None:
        self._settings: dict[str, Any] = {"ack_policy": policy, "auto_offset_reset": "earliest"}
        if batch:
            self._settings |= {"batch": True, "max_records": batch}
        self._batch = bool(batch)

    def prepared(self, place: Place, publication: Publication) -> dict[str, Any]:
        return {
            "message": publication.body,
            "topic": place.topic,
            "key": publication.key.encode(),
            "headers": headers_of(publication),
        }

    @asynccontextmanager
    async def publishing(self, place: Place) -> AsyncIterator[Send]:
        async with self.broker(place.address, acks="all", enable_idempotence=True, logger=None) as broker:

            async def send(prepared: dict[str, Any]) -> None:
                await broker.publish(**prepared)

            yield send

    @asynccontextmanager
    async def consuming(self, place: Place, handle: Handle) -> AsyncIterator[None]:
        broker = self.broker(place.address, logger=None)
        subscriber = broker.subscriber(place.source, group_id=place.group_id, **self._settings)

        async def take(event: Line) -> None:
            handle(event)

        async def take_many(events: list[Line]) -> None:
            for one in events:
                handle(one)

        subscriber(take_many if self._batch else take)
        async with broker:
            await broker.start()
            yield
