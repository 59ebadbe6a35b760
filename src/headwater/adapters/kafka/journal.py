"""What librdkafka says of itself: a line of a kind now and then, where it would write twenty a second; and its last trouble."""

from __future__ import annotations

import logging
from time import monotonic
from typing import Final

from confluent_kafka import KafkaError

from headwater.adapters.kafka.faults import SERIOUS, cause_of
from headwater.telemetry import signal

PAUSE: Final = 10.0
"""Seconds between two lines of a kind."""


class Journal:
    """The `logger` of one client, and its `error_cb`; used in one thread at a time."""

    def __init__(self) -> None:
        self.trouble: KafkaError | None = None
        """The last error that concerns the client as a whole; that no broker answers tells least, where another says why."""
        self.broken = False
        """Whether the client can do no more."""
        self._again_at: dict[str, float] = {}
        self._skipped: dict[str, int] = {}

    def log(self, level: int, _: str, kind: str, client: str, text: str) -> None:
        """What librdkafka calls for each of its lines."""
        now = monotonic()
        if now < self._again_at.get(kind, 0.0):
            self._skipped[kind] = self._skipped.get(kind, 0) + 1
            return
        self._again_at[kind] = now + PAUSE
        signal("kafka.client", min(level, logging.WARNING), kind=kind, text=text, skipped=self._skipped.pop(kind, 0))

    def error(self, error: KafkaError) -> None:
        """What librdkafka calls for an error that concerns the client as a whole."""
        self.broken = self.broken or error.fatal()
        vague = error.code() == KafkaError._ALL_BROKERS_DOWN
        if error.fatal() or (cause_of(error) in SERIOUS and not (vague and self.trouble)):
            self.trouble = error
        self.log(logging.WARNING, "", error.name(), "", error.str())
