"""What the tests of harm to Kafka share."""

from __future__ import annotations

from contextlib import AbstractAsyncContextManager

from headwater.adapters.kafka import KafkaChannel
from tests.fault import stream
from tests.fault.stream import CLOCK, ROUTE

__all__ = ["CLOCK", "ROUTE", "opened"]


def opened(url: str, *, made: bool = True) -> AbstractAsyncContextManager[KafkaChannel]:
    """An open channel there."""
    return stream.opened(KafkaChannel(url, CLOCK), made=made)
