"""A channel on RabbitMQ as the tests of harm open it."""

from __future__ import annotations

from contextlib import AbstractAsyncContextManager

from headwater.adapters.rabbitmq import RabbitmqChannel
from tests.fault import stream


def opened(url: str, *, made: bool = True) -> AbstractAsyncContextManager[RabbitmqChannel]:
    """An open channel there."""
    return stream.opened(RabbitmqChannel(url, stream.CLOCK), made=made)
