"""Stored messages, held messages and timers as rows, and back."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from typing import Any, Final

import msgspec

from headwater.adapters.postgres.statement import Row
from headwater.inbox import Held, Reason
from headwater.message import Draft, Recorded
from headwater.timer import Timer

EVENT: Final = """position, stream, version, kind, CASE WHEN id_text = '' THEN id::text ELSE id_text END,
type, type_version, codec, time, version - 1, data, meta"""
"""The columns of a stored message, as `recorded` takes them."""

PAST: Final = "version, kind, type, type_version, data"
"""The columns of a `Past`."""

HELD: Final = """h.consumer, h.key, h.reason, h.due, h.attempts, h.crashes, h.cause, h.fingerprint, h.history, h.since,
h.headers, h.raw, h.position, h.stream, h.version, h.kind, h.id, h.type, h.type_version, h.codec, h.time, h.previous,
h.data, h.meta"""
"""The columns of a held message, as `held` takes them."""

TIMER: Final = "owner, key, name, due, stream, kind, id, type, type_version, codec, time, data, meta"
"""The columns of a timer, as `timers` takes them."""

NIL: Final = "00000000-0000-0000-0000-000000000000"
USUAL: Final = re.compile("[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}").fullmatch

_encode = msgspec.json.Encoder().encode
_history = msgspec.json.Decoder(tuple[str, ...]).decode
_headers = msgspec.json.Decoder(dict[str, str]).decode


def recorded(rows: Iterable[Row]) -> list[Recorded]:
    """Messages of rows with the columns `EVENT`."""
    return [Recorded(*row) for row in rows]


def event_row(one: Recorded) -> Row:
    """The values of an insert into `events`, in the order of its columns but the position."""
    mark, text = _id(one.id)
    return (
        one.version,
        one.time,
        mark,
        one.type_version,
        one.codec,
        one.kind,
        one.type,
        one.stream,
        text,
        one.data,
        one.meta,
    )


def _id(name: str) -> tuple[str, str]:
    """An id as a UUID, or beside the nil one as text where it is none in its usual form."""
    return (name, "") if USUAL(name) and name != NIL else (NIL, name)


def held(rows: Iterable[Row]) -> list[Held]:
    """Held messages of rows with the columns `HELD`."""
    found = []
    for consumer, key, reason, due, attempts, crashes, cause, mark, history, since, headers, raw, *message in rows:
        found.append(
            Held(
                consumer,
                key,
                Recorded(*message),
                Reason(reason),
                due,
                attempts,
                crashes,
                cause,
                mark,
                _history(history),
                since,
                _headers(headers),
                raw,
            )
        )
    return found


def held_row(one: Held) -> Row:
    """The values of an insert into `held`, in the order of `HELD`."""
    return (
        one.consumer,
        one.key,
        one.reason.value,
        one.due,
        one.attempts,
        one.crashes,
        one.cause,
        one.fingerprint,
        as_text(one.history),
        one.since,
        as_text(one.headers),
        one.raw,
        *msgspec.structs.astuple(one.message),
    )


def timers(rows: Iterable[Row]) -> list[Timer]:
    """Timers of rows with the columns `TIMER`."""
    return [Timer(owner, key, name, due, stream, Draft(*draft)) for owner, key, name, due, stream, *draft in rows]


def timer_row(one: Timer) -> Row:
    """The values of an insert into `timers`, in the order of `TIMER`."""
    *draft, _ = msgspec.structs.astuple(one.draft)  # what a timer brings is no event, and has no tags
    return (one.owner, one.key, one.name, one.due, one.stream, *draft)


def as_text(value: Sequence[Any] | dict[str, str]) -> str:
    """A value as JSON text."""
    return _encode(value).decode()
