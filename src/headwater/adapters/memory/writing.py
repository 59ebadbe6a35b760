"""What a commit writes: the sets that stand, and the read models folded over them."""

from __future__ import annotations

from collections.abc import Sequence

from headwater.adapters.memory.file import Change
from headwater.adapters.memory.rows import pack, pack_key, unpack
from headwater.database import Answer, Facts, Failed, InlineFold, Judgement, Needs, WriteSet, judge, needs
from headwater.errors import DatabaseError, HeadwaterError
from headwater.inbox import Step
from headwater.table import Table, Upsert

VERSIONS, KEYS, LEASES, MARKS, CHECKPOINTS = "versions", "keys", "leases", "marks", "checkpoints"
TIMERS, SAGAS, NOTES, STEPS, JOURNAL = "timers", "sagas", "notes", "steps", "journal"
TABLES, CONSUMERS = "tables", "consumers"


def held_table(consumer: str) -> tuple[str, str]:
    """Where the held messages of a consumer are."""
    return "held", consumer


def rows_table(table: Table) -> tuple[str, str]:
    """Where the rows of a read model are."""
    return "rows", table.name


def write(change: Change, writes: Sequence[WriteSet], folds: Sequence[InlineFold]) -> list[Answer]:
    """Judge and write sets; if that fails, each alone, so that only the guilty one falls."""
    before = change.mark()
    try:
        return _together(change, writes, folds)
    except Exception:  # noqa: BLE001 - a fold is a user's code
        change.undo(before)
    return [_alone(change, one, folds) for one in writes]


def _alone(change: Change, one: WriteSet, folds: Sequence[InlineFold]) -> Answer:
    before = change.mark()
    try:
        return _together(change, [one], folds)[0]
    except HeadwaterError as error:
        change.undo(before)
        return Failed(error)
    except Exception as error:  # noqa: BLE001 - a fold is a user's code
        change.undo(before)
        failure = DatabaseError(f"the set could not be written: {type(error).__name__}: {error}")
        failure.__cause__ = error
        return Failed(failure)


def _together(change: Change, writes: Sequence[WriteSet], folds: Sequence[InlineFold]) -> list[Answer]:
    judged = judge(writes, _facts(change, needs(writes)))
    _write_log(change, judged)
    for one in judged.standing:
        _write_inbox(change, one)
        _write_flows(change, one)
        for upsert in one.upserts:
            _write_rows(change, upsert)
    for fold in folds:
        _fold(change, fold, judged)
    return judged.answers


def _facts(change: Change, wanted: Needs) -> Facts:
    held = {one for one in wanted.held if change.get(held_table(one[0]), one[1:]) is not None}
    return Facts(
        position=change.head,
        streams=change.some(VERSIONS, wanted.streams),
        keys={key: settled for key, (settled, _) in change.some(KEYS, wanted.keys).items()},
        unmet={condition for condition in wanted.conditions if change.unmet(condition)},
        leases={name: epoch for name, (_, epoch, _) in change.some(LEASES, wanted.leases).items()},
        marks=change.some(MARKS, wanted.marks),
        checkpoints=change.some(CHECKPOINTS, wanted.checkpoints),
        held=held,
        steps=set(change.some(STEPS, wanted.steps)),
        timers={key: timer.due for key, timer in change.some(TIMERS, wanted.timers).items()},
        sagas={key: state.expect for key, state in change.some(SAGAS, wanted.sagas).items()},
    )


def _write_log(change: Change, judged: Judgement) -> None:
    for place, tags in judged.tags.items():
        change.tags[judged.recorded[place].position] = tags
    for recorded in judged.recorded:
        change.log.append(recorded)
        change.put(VERSIONS, recorded.stream, recorded.version)
    for tenant, key, settled, time in judged.settled:
        change.put(KEYS, (tenant, key), (settled, time))


def _write_inbox(change: Change, one: WriteSet) -> None:
    for mark in one.marks:
        change.put(MARKS, (mark.consumer, mark.stream), mark.version)
    for release in one.releases:
        change.drop(held_table(release.consumer), (release.stream, release.version))
    for held in one.holds:
        change.put(held_table(held.consumer), (held.message.stream, held.message.version), held)
    if one.note is not None:
        change.put(NOTES, one.note.feed, [(stream, version) for stream, version in one.note.messages])
    for step in one.steps:
        if step.clear:
            change.drop(STEPS, (step.consumer, step.message_id, step.name))
        else:
            kept = Step(step.consumer, step.message_id, step.name, step.done, step.outcome)
            change.put(STEPS, (step.consumer, step.message_id, step.name), kept)
    for entry in one.journal:
        lines = change.get(JOURNAL, entry) or 0
        change.put(JOURNAL, entry, lines + 1)


def _write_flows(change: Change, one: WriteSet) -> None:
    for checkpoint in one.checkpoints:
        change.put(CHECKPOINTS, checkpoint.name, checkpoint.position)
    for cancel in one.cancels:
        change.drop(TIMERS, (cancel.owner, cancel.key, cancel.name))
    for timer in one.timers:
        change.put(TIMERS, (timer.owner, timer.key, timer.name), timer)
    for state in one.sagas:
        moved = type(state)(state.saga, state.key, state.expect + 1, state.data, state.ended)
        change.put(SAGAS, (state.saga, state.key), moved)


def _write_rows(change: Change, upsert: Upsert) -> None:
    table = upsert.table
    if (upsert.rows or upsert.deleted) and change.get(TABLES, table.name) is None:
        raise missing(table)
    for key in upsert.deleted:
        change.drop(rows_table(table), pack_key(table, key))
    for row in upsert.rows:
        packed = pack(table.columns, row)
        if None in packed[: table.keys]:
            raise DatabaseError(f"a row of {table.name} has no key")
        change.put(rows_table(table), packed[: table.keys], packed)


def _fold(change: Change, fold: InlineFold, judged: Judgement) -> None:
    keys = fold.keys(judged.recorded) if judged.recorded else []
    if not keys:
        return
    rows = {}
    for key in keys:
        packed = change.get(rows_table(fold.table), pack_key(fold.table, key))
        if packed is not None:
            rows[tuple(key)] = unpack(fold.table, packed)
    _write_rows(change, fold.fold(rows, judged.recorded))


def missing(table: Table) -> DatabaseError:
    """The error for a table that was never made."""
    return DatabaseError(f"there is no table {table.name}: make it with create_table before it is used")
