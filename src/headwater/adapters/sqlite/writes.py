"""Writes the sets that stand: in bulk, a kind at a time, with what later sets undo of earlier ones left out."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import Final

import apsw

from headwater.adapters.sqlite import rows
from headwater.adapters.sqlite.facts import as_json, read_facts
from headwater.adapters.sqlite.many import insert
from headwater.adapters.sqlite.relevant import tag_rows
from headwater.adapters.sqlite.tables import fold_rows, write_rows
from headwater.database import Answer, InlineFold, Judgement, WriteSet, judge, needs
from headwater.inbox import Held
from headwater.message import JSON
from headwater.timer import Timer

HELD_COLUMNS: Final = """held (consumer, key, reason, due, attempts, crashes, cause, fingerprint, history, since, headers, raw,
position, stream, version, kind, id, type, type_version, codec, time, previous, data, meta)"""
RELEASE: Final = """
DELETE FROM held WHERE (consumer, stream, version) IN (SELECT value ->> 0, value ->> 1, value ->> 2 FROM json_each(?))
"""
CANCEL: Final = """
DELETE FROM timers WHERE (owner, key, name) IN (SELECT value ->> 0, value ->> 1, value ->> 2 FROM json_each(?))
"""
CLEAR: Final = "DELETE FROM steps WHERE message_id = ? AND consumer = ? AND name = ?"
STEP: Final = """
INSERT INTO steps VALUES (?, ?, ?, ?, CAST(? AS TEXT))
ON CONFLICT DO UPDATE SET done = excluded.done, outcome = excluded.outcome
"""
MARKED: Final = "ON CONFLICT DO UPDATE SET version = excluded.version"
MOVED: Final = "ON CONFLICT DO UPDATE SET position = excluded.position"
NOTED: Final = "ON CONFLICT DO UPDATE SET messages = excluded.messages"
EVOLVED: Final = "ON CONFLICT DO UPDATE SET version = excluded.version, data = excluded.data, ended = excluded.ended"


def commit(connection: apsw.Connection, writes: Sequence[WriteSet], folds: Sequence[InlineFold]) -> list[Answer]:
    """Judge the sets and write those that stand, within the open transaction; all fall where it raises."""
    judged = judge(writes, read_facts(connection, needs(writes)))
    standing = judged.standing
    if standing:
        _write_log(connection, judged)
        if consuming := [write for write in standing if write.consumes]:
            _write_places(connection, consuming)
            _write_held(connection, consuming)
            _write_timers(connection, consuming)
            _write_effects(connection, consuming)
            write_rows(connection, [one for write in consuming for one in write.upserts])
        if judged.recorded:
            for fold in folds:
                fold_rows(connection, fold, judged.recorded)
    return judged.answers


def _write_log(connection: apsw.Connection, judged: Judgement) -> None:
    insert(connection, "events", [rows.event_row(one) for one in judged.recorded])
    if judged.tags:
        insert(connection, "event_tags", tag_rows(judged))
    if judged.settled:
        keys = [(tenant, key, one.hash, one.position, one.version, time) for tenant, key, one, time in judged.settled]
        insert(connection, "command_keys", keys)


def _write_places(connection: apsw.Connection, standing: Sequence[WriteSet]) -> None:
    """Marks, checkpoints and saga states, the last of each."""
    marks = {(one.consumer, one.stream): one.version for write in standing for one in write.marks}
    insert(connection, "marks", [(*key, version) for key, version in marks.items()], MARKED)
    checkpoints = {one.name: one.position for write in standing for one in write.checkpoints}
    insert(connection, "checkpoints", list(checkpoints.items()), MOVED)
    sagas = {(one.saga, one.key): one for write in standing for one in write.sagas}
    states = [(*key, one.expect + 1, rows.as_stored(one.data, JSON), one.ended) for key, one in sagas.items()]
    insert(connection, "sagas", states, EVOLVED)


def _write_held(connection: apsw.Connection, standing: Sequence[WriteSet]) -> None:
    left: dict[tuple[str, str, int], Held | None] = {}
    for write in standing:
        for release in write.releases:
            left[release.consumer, release.stream, release.version] = None
        for one in write.holds:
            left[one.consumer, one.message.stream, one.message.version] = one
    _delete(connection, RELEASE, left)
    insert(connection, HELD_COLUMNS, [rows.held_row(one) for one in left.values() if one])


def _write_timers(connection: apsw.Connection, standing: Sequence[WriteSet]) -> None:
    left: dict[tuple[str, str, str], Timer | None] = {}
    for write in standing:
        for cancel in write.cancels:
            left[cancel.owner, cancel.key, cancel.name] = None
        for one in write.timers:
            left[one.owner, one.key, one.name] = one
    _delete(connection, CANCEL, left)
    insert(connection, "timers", [rows.timer_row(one) for one in left.values() if one])


def _delete(connection: apsw.Connection, sql: str, keys: Collection[rows.Row]) -> None:
    if keys:
        connection.execute(sql, (as_json(list(keys)),))


def _write_effects(connection: apsw.Connection, standing: Sequence[WriteSet]) -> None:
    for write in standing:
        for step in write.steps:
            named = (step.message_id, step.consumer, step.name)
            if step.clear:
                connection.execute(CLEAR, named)
            else:
                connection.execute(STEP, (*named, step.done, step.outcome))
    notes = {one.note.feed: rows.as_text(one.note.messages) for one in standing if one.note is not None}
    insert(connection, "notes", list(notes.items()), NOTED)
    journal = [line for write in standing for line in write.journal]
    insert(connection, "journal (consumer, stream, version)", journal)
