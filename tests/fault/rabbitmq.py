"""What the tests of harm to RabbitMQ share."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from headwater.adapters.rabbitmq import RabbitmqChannel
from headwater.channel import Route
from headwater.clock import SystemClock
from tests.fault.stream import KEYS, PATIENCE, SOON, Ledger, publications, publish_surely, refusal

__all__ = [
    "CLOCK",
    "KEYS",
    "PATIENCE",
    "ROUTE",
    "SOON",
    "Ledger",
    "opened",
    "publications",
    "publish_surely",
    "refusal",
]

CLOCK = SystemClock()
ROUTE = Route("orders", ("g",))


@asynccontextmanager
async def opened(url: str, *, made: bool = True) -> AsyncIterator[RabbitmqChannel]:
    """An open channel, on which `orders` and its group `g` stand."""
    channel = RabbitmqChannel(url, CLOCK)
    await channel.open()
    try:
        if made:
            await channel.establish([ROUTE])
        yield channel
    finally:
        await channel.close()
