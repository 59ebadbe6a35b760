"""What a subject is: how it publishes and how it consumes; and ours, the shipped channel."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from typing import Any, Protocol

import msgspec

from benchmarks.works.consume import TOPIC, LineAdded
from headwater.channel import Publication, Subscription

from .server import Place, opened

BATCH = 500
"""Messages of a batch: that of our consumer."""
PATIENCE = 0.5

Send = Callable[[Any], Awaitable[object]]
Handle = Callable[[Any], None]

decode = msgspec.json.Decoder(LineAdded).decode


class Client(Protocol):
    """A subject. `batches`: it sends lists of what is prepared, and one message in flight is a list of one."""

    batches: bool

    def prepared(self, place: Place, publication: Publication) -> Any:
        """A message as the client takes it."""
        ...

    def publishing(self, place: Place) -> AbstractAsyncContextManager[Send]:
        """Gives what sends a message, or a list of them, and returns when the broker has confirmed."""
        ...

    def consuming(self, place: Place, handle: Handle) -> AbstractAsyncContextManager[None]:
        """Calls the handler with each message, decoded to a class, and then acknowledges it, until it is left."""
        ...


class Ours:
    """The channel as it is shipped."""

    batches = True

    def prepared(self, place: Place, publication: Publication) -> Publication:
        return publication

    @asynccontextmanager
    async def publishing(self, place: Place) -> AsyncIterator[Send]:
        async with opened(place.url) as channel:
            yield channel.publish

    @asynccontextmanager
    async def consuming(self, place: Place, handle: Handle) -> AsyncIterator[None]:
        async with opened(place.url) as channel:
            subscription = await channel.subscribe(place.group, [TOPIC], "bench")
            task = asyncio.create_task(_consume(subscription, handle))
            try:
                yield
            finally:
                await ended(task)
                await subscription.close()


async def _consume(subscription: Subscription, handle: Handle) -> None:
    while True:
        deliveries = await subscription.fetch(BATCH)
        if not deliveries:
            await subscription.wait(PATIENCE)
            continue
        for one in deliveries:
            handle(decode(one.body))
        await subscription.acknowledge(deliveries)


async def ended(task: asyncio.Task[None]) -> None:
    """Stop a task; raises what it has failed with."""
    task.cancel()
    try:
        await task
    except asyncio.CancelledError:
        return
