"""What the tests of harm to RabbitMQ share."""

from __future__ import annotations

from contextlib import AbstractAsyncContextManager

from headwater.adapters.rabbitmq import RabbitmqChannel
from tests.fault import stream
from tests.fault.stream import CLOCK, KEYS, PATIENCE, ROUTE, SOON, Ledger, publications, publish_surely, refusal

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


def opened(url: str, *, made: bool = True) -> AbstractAsyncContextManager[RabbitmqChannel]:
    """An open channel there."""
    return stream.opened(RabbitmqChannel(url, CLOCK), made=made)
