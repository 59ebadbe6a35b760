"""A channel on Kafka as the tests of harm open it."""

from __future__ import annotations

from contextlib import AbstractAsyncContextManager

from headwater.adapters.kafka import KafkaChannel
from tests.fault import stream


def opened(url: str, *, made: bool = True) -> AbstractAsyncContextManager[KafkaChannel]:
    """An open channel there."""
    return stream.opened(KafkaChannel(url, stream.CLOCK), made=made)
