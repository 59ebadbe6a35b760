"""Stored messages, held messages and timers as rows, and back."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any, Final

import msgspec

from headwater.clock import uuid_bytes
from headwater.inbox import Held, Reason
from headwater.message import JSON, Draft, Recorded
from headwater.timer import Timer

Row = tuple[Any, ...]

EVENT: Final = """position, stream, version, kind, id, type, type_version, codec, time, previous,
CAST(data AS BLOB), CAST(meta AS BLOB)"""
"""The columns of a stored message, as `recorded` takes them."""

PAST: Final = "version, kind, type, type_version, CAST(data AS BLOB)"
"""The columns of a `Past`."""

HELD: Final = """h.consumer, h.key, h.reason, h.due, h.attempts, h.crashes, h.cause, h.fingerprint, h.history, h.since,
h.headers, h.raw, h.position, h.stream, h.version, h.kind, h.id, h.type, h.type_version, h.codec, h.time, h.previous,
CAST(h.data AS BLOB), CAST(h.meta AS BLOB)"""
"""The columns of a held message, as `held` takes them."""

TIMER: Final = """owner, key, name, due, stream, kind, id, type, type_version, codec, time,
CAST(data AS BLOB), CAST(meta AS BLOB)"""
"""The columns of a timer, as `timer` takes them."""

_encode = msgspec.json.Encoder().encode
_history = msgspec.json.Decoder(tuple[str, ...]).decode
_headers = msgspec.json.Decoder(dict[str, str]).decode


def recorded(rows: Iterable[Row]) -> list[Recorded]:
    """Messages of rows with the columns `EVENT`."""
    found = []
    for position, stream, version, kind, mark, name, type_version, codec, time, previous, data, meta in rows:
        if mark.__class__ is bytes:
            text = mark.hex()  # as uuid_text does: a call less for each of a million
            mark = f"{text[:8]}-{text[8:12]}-{text[12:16]}-{text[16:20]}-{text[20:]}"  # noqa: PLW2901
        found.append(
            Recorded(position, stream, version, kind, mark, name, type_version, codec, time, previous, data, meta)
        )
    return found


def event_row(one: Recorded) -> Row:
    """The values of an insert into `events`: a UUID as 16 bytes, JSON as text, packed metadata as it is."""
    try:
        mark: bytes | str = uuid_bytes(one.id)
    except ValueError:
        mark = one.id
    return (
        one.position,
        one.stream,
        one.version,
        one.kind,
        mark,
        one.type,
        one.type_version,
        one.codec,
        one.time,
        one.previous,
        as_stored(one.data, one.codec),
        one.meta if one.meta[:1] != b"{" else as_stored(one.meta, JSON),
    )


def as_stored(data: bytes, codec: int) -> bytes | str:
    """Plain JSON as text, so that SQL can look into it; anything else as it is."""
    if codec != JSON:
        return data
    try:
        return data.decode()
    except UnicodeDecodeError:
        return data


def meta_as_stored(meta: bytes) -> bytes | str:
    """Metadata as text where it is JSON, else as it is."""
    return as_stored(meta, JSON) if meta[:1] == b"{" else meta


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
                bool(raw),
            )
        )
    return found


def held_row(one: Held) -> Row:
    """The values of an insert into `held`, in the order of `HELD`."""
    *message, data, meta = msgspec.structs.astuple(one.message)
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
        *message,
        as_stored(data, one.message.codec),
        meta_as_stored(meta),
    )


def timers(rows: Iterable[Row]) -> list[Timer]:
    """Timers of rows with the columns `TIMER`."""
    return [Timer(owner, key, name, due, stream, Draft(*draft)) for owner, key, name, due, stream, *draft in rows]


def timer_row(one: Timer) -> Row:
    """The values of an insert into `timers`, in the order of `TIMER`."""
    *draft, data, meta, _ = msgspec.structs.astuple(one.draft)  # what a timer brings is no event, and has no tags
    return (
        one.owner,
        one.key,
        one.name,
        one.due,
        one.stream,
        *draft,
        as_stored(data, one.draft.codec),
        meta_as_stored(meta),
    )


def as_text(value: Sequence[Any] | dict[str, str]) -> str:
    """A value as JSON text."""
    return _encode(value).decode()
