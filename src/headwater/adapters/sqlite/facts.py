"""What is stored of what a judgement needs: one statement a kind, whatever the number of sets."""

from __future__ import annotations

from collections.abc import Collection
from typing import Any, Final

import apsw
import msgspec

from headwater.adapters.sqlite.file import fetch
from headwater.adapters.sqlite.relevant import is_unmet
from headwater.database import Facts, Needs
from headwater.store import Settled

POSITION: Final = "SELECT max(position) FROM events"
PLACE: Final = "SELECT (SELECT max(position) FROM events), (SELECT max(version) FROM events WHERE stream = ?)"
STREAMS: Final = "SELECT value, (SELECT max(version) FROM events WHERE stream = value) FROM json_each(?)"
KEYS: Final = """
SELECT k.tenant, k.key, k.hash, k.position, k.version FROM json_each(?) j
CROSS JOIN command_keys k ON k.tenant = j.value ->> 0 AND k.key = j.value ->> 1
"""
LEASES: Final = "SELECT l.name, l.epoch FROM json_each(?) j CROSS JOIN leases l ON l.name = j.value"
MARKS: Final = """
SELECT m.consumer, m.stream, m.version FROM json_each(?) j
CROSS JOIN marks m ON m.consumer = j.value ->> 0 AND m.stream = j.value ->> 1
"""
CHECKPOINTS: Final = "SELECT c.name, c.position FROM json_each(?) j CROSS JOIN checkpoints c ON c.name = j.value"
HELD: Final = """
SELECT h.consumer, h.stream, h.version FROM json_each(?) j
CROSS JOIN held h ON h.consumer = j.value ->> 0 AND h.stream = j.value ->> 1 AND h.version = j.value ->> 2
"""
STEPS: Final = """
SELECT s.consumer, s.message_id, s.name FROM json_each(?) j
CROSS JOIN steps s ON s.message_id = j.value ->> 1 AND s.consumer = j.value ->> 0 AND s.name = j.value ->> 2
"""
TIMERS: Final = """
SELECT t.owner, t.key, t.name, t.due FROM json_each(?) j
CROSS JOIN timers t ON t.owner = j.value ->> 0 AND t.key = j.value ->> 1 AND t.name = j.value ->> 2
"""
SAGAS: Final = """
SELECT s.saga, s.key, s.version FROM json_each(?) j
CROSS JOIN sagas s ON s.saga = j.value ->> 0 AND s.key = j.value ->> 1
"""

_encode = msgspec.json.Encoder().encode


def as_json(values: Collection[Any]) -> str:
    """Values as the JSON text that `json_each` takes."""
    return _encode(values).decode()


def read_facts(connection: apsw.Connection, wanted: Needs) -> Facts:
    """The facts, read within the transaction of the writer."""

    def rows(sql: str, values: Collection[Any]) -> list[tuple[Any, ...]]:
        return fetch(connection, sql, (as_json(values),))

    found = _log(connection, wanted)
    if wanted.keys:
        found.keys = {(tenant, key): Settled(*rest) for tenant, key, *rest in rows(KEYS, wanted.keys)}
    if wanted.leases:
        found.leases = dict(rows(LEASES, wanted.leases))
    if wanted.marks:
        found.marks = {(consumer, stream): version for consumer, stream, version in rows(MARKS, wanted.marks)}
    if wanted.checkpoints:
        found.checkpoints = dict(rows(CHECKPOINTS, wanted.checkpoints))
    if wanted.held:
        found.held = set(rows(HELD, wanted.held))
    if wanted.steps:
        found.steps = set(rows(STEPS, wanted.steps))
    if wanted.timers:
        found.timers = {(owner, key, name): due for owner, key, name, due in rows(TIMERS, wanted.timers)}
    if wanted.sagas:
        found.sagas = {(saga, key): version for saga, key, version in rows(SAGAS, wanted.sagas)}
    return found


def _log(connection: apsw.Connection, wanted: Needs) -> Facts:
    """The last position, the versions of streams that there are, and conditions that do not hold."""
    streams = wanted.streams
    if len(streams) == 1:
        [(position, version)] = fetch(connection, PLACE, (*streams,))
        found = Facts(position or 0, dict.fromkeys(streams, version) if version else {})
    else:
        [(position,)] = fetch(connection, POSITION)
        versions = fetch(connection, STREAMS, (as_json(streams),)) if streams else []
        found = Facts(position or 0, {stream: version for stream, version in versions if version})
    if wanted.conditions:
        found.unmet = {condition for condition in wanted.conditions if is_unmet(connection, condition)}
    return found
