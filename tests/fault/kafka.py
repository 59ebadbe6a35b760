"""What the tests of harm to Kafka share."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from headwater.adapters.kafka import KafkaChannel
from headwater.channel import Route
from headwater.clock import SystemClock

CLOCK = SystemClock()
ROUTE = Route("orders", ("g",))


@asynccontextmanager
async def opened(url: str, *, made: bool = True) -> AsyncIterator[KafkaChannel]:
    """An open channel, with its topic `orders`."""
    channel = KafkaChannel(url, CLOCK)
    await channel.open()
    try:
        if made:
            await channel.establish([ROUTE])
        yield channel
    finally:
        await channel.close()
