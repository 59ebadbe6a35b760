"""Held messages as an operator sees them: dead letters, uncertain effects, retries, gaps, and what waits behind them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final
from urllib.parse import quote, unquote

import msgspec
from msgspec import Struct

from headwater.clock import iso
from headwater.database import Database
from headwater.errors import NotFound, SchemaError
from headwater.inbox import Held, Reason, Step
from headwater.operations.events import plain

EVERY: Final = 100_000
"""More than a consumer holds."""

DEAD: Final = (Reason.DEAD, Reason.UNCERTAIN)


class HeldLine(Struct, frozen=True):
    """A held message without its payload. `id` names it in `show`, `redrive` and `discard`."""

    id: str
    consumer: str
    reason: str
    type: str
    attempts: int
    crashes: int
    since: str
    due: str
    cause: str
    fingerprint: str


class HeldDetail(Struct, frozen=True):
    """A held message whole. `behind` counts what waits behind it, `first` is the id of what it waits for (or its own).

    `steps` are its outside effects: name, whether done, and the outcome. `data` is the payload as plain values, or text.
    """

    id: str
    consumer: str
    reason: str
    type: str
    attempts: int
    crashes: int
    since: str
    due: str
    cause: str
    fingerprint: str
    history: list[str]
    stream: str
    version: int
    previous: int
    message_id: str
    time: str
    metadata: dict[str, str]
    headers: dict[str, str]
    raw: bool
    steps: list[dict[str, Any]]
    behind: int
    first: str
    advice: str
    data: Any


def id_of(held: Held) -> str:
    """The printable name of a held message: `<consumer>:<stream>@<version>`; blanks and controls are %-escaped."""
    message = held.message
    return f"{_escape(held.consumer, ':')}:{_escape(message.stream)}@{message.version}"


def _escape(text: str, also: str = "") -> str:
    return "".join(quote(one, safe="") if one in f"% {also}" or not one.isprintable() else one for one in text)


def place_of(held_id: str) -> tuple[str, str, int]:
    """The consumer, stream and version that an id names. Raises SchemaError."""
    consumer, colon, rest = held_id.partition(":")
    stream, at, version = rest.rpartition("@")
    if not (consumer and colon and stream and at and version.isdecimal()):
        raise SchemaError(
            f"{held_id!r} is no id of a held message; write consumer:stream@version, as the list shows it"
        )
    return unquote(consumer), unquote(stream), int(version)


async def list_held(
    database: Database,
    *,
    consumer: str = "",
    reasons: Sequence[Reason] = DEAD,
    fingerprint: str = "",
    limit: int = EVERY,
) -> list[Held]:
    """Held messages: by default dead letters and uncertain ones, of all consumers."""
    found = await database.held_list(consumer or None, reasons, EVERY if fingerprint else limit)
    return [one for one in found if not fingerprint or one.fingerprint == fingerprint][:limit]


async def find_held(database: Database, held_id: str) -> Held:
    """The held message of an id. Raises NotFound, or SchemaError where it is no id."""
    return (await _row_of(database, held_id))[0]


async def _row_of(database: Database, held_id: str) -> tuple[Held, list[Held]]:
    """A held message, and all that are held of its key."""
    consumer, stream, version = place_of(held_id)
    rows = await database.held_of(consumer, stream, EVERY)
    row = next((one for one in rows if one.message.stream == stream and one.message.version == version), None)
    if row is None:
        raise NotFound(f"{held_id} is not held (any more); see `headwater dead-letters list`")
    return row, rows


async def show_held(database: Database, held_id: str) -> HeldDetail:
    """A held message with its cause, history, outside effects and payload. Raises NotFound."""
    row, rows = await _row_of(database, held_id)
    message = row.message
    steps = await database.steps(row.consumer, message.id) if message.id else []
    place = rows.index(row)
    return HeldDetail(
        **msgspec.structs.asdict(to_line(row)),
        history=list(row.history),
        stream=message.stream,
        version=message.version,
        previous=message.previous,
        message_id=message.id,
        time=iso(message.time),
        metadata={} if row.raw else msgspec.to_builtins(message.metadata),
        headers=row.headers,
        raw=row.raw,
        steps=[_step(step) for step in steps],
        behind=len(rows) - place - 1,
        first=id_of(rows[0]),
        advice=advice(row, first=place == 0),
        data=message.data.decode("utf-8", "backslashreplace") if row.raw else plain(message),
    )


def to_line(row: Held) -> HeldLine:
    """A held message in one line."""
    return HeldLine(
        id_of(row),
        row.consumer,
        row.reason.value,
        row.message.type,
        row.attempts,
        row.crashes,
        iso(row.since),
        iso(row.due) if row.due else "",
        row.cause,
        row.fingerprint,
    )


def _step(step: Step) -> dict[str, Any]:
    outcome = msgspec.json.decode(step.outcome) if step.done and step.outcome else None
    return {"name": step.name, "done": step.done, "outcome": outcome}


ADVICE: Final = {
    Reason.UNCERTAIN: "an outside effect may have happened: look at the other side, then redrive with --done or --not-done",
    Reason.GAP: "a message before it has not come; its producer is asked to publish it again. "
    "Only if that is lost for good: discard gives both up",
    Reason.TALLY: "its producer tells of messages that have not come, and is asked to publish them again. "
    "Only if they are lost for good: discard it",
}


def advice(row: Held, *, first: bool) -> str:
    """What an operator can do about a held message."""
    if row.raw:
        return "it could not be decoded, so it cannot be redriven: mend its sender, then discard it here"
    if row.reason in ADVICE:
        return ADVICE[row.reason]
    if not first:
        return "it waits for the first message of its key, and runs after it"
    if row.reason is Reason.DEAD:
        return "mend the cause, then redrive it; or discard it"
    return "it is tried again by itself; redrive tries it now"
