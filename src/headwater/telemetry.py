"""Every signal that Headwater gives: one JSON line with names and ids, never a payload.

Signals: app.started · app.stopped · worker.started · worker.ended · flow.failed · lease.lost · channel.away · channel.joined ·
channel.unsafe · relay.refused · consumer.held · consumer.paused · consumer.gap · consumer.missing · consumer.crashed ·
database.opened · database.clock · kafka.client · kafka.began_anew.
"""

from __future__ import annotations

import logging
from datetime import UTC, datetime
from typing import TextIO

import msgspec

logger = logging.getLogger("headwater")
logger.addHandler(logging.NullHandler())  # a process that asks for no log gets none: logging would print bare names


def signal(name: str, level: int = logging.INFO, **fields: object) -> None:
    """Log one signal: `name` as listed above, `fields` are ids, counts and error classes."""
    if logger.isEnabledFor(level):
        logger.log(level, name, extra={"fields": fields})


class JsonLines(logging.Formatter):
    """Formats each record as one line of JSON: time, level, event, and the signal's fields."""

    def format(self, record: logging.LogRecord) -> str:
        """One line of JSON."""
        line: dict[str, object] = {
            "time": datetime.fromtimestamp(record.created, UTC).isoformat(timespec="microseconds"),
            "level": record.levelname.lower(),
            "event": record.getMessage(),
            **getattr(record, "fields", {}),
        }
        if record.exc_info and record.exc_info[0]:
            line["error"] = record.exc_info[0].__name__
        return msgspec.json.encode(line, enc_hook=str).decode()


def log_json(stream: TextIO, level: int = logging.INFO) -> None:
    """Send Headwater's signals to a text stream as JSON lines."""
    handler = logging.StreamHandler(stream)
    handler.setFormatter(JsonLines())
    logger.handlers[:] = [handler]
    logger.setLevel(level)
    logger.propagate = False
