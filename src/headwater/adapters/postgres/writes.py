"""Writes the sets that stand: in bulk, a kind at a time, with what later sets undo of earlier ones left out.

Streams and leases are locked before their facts are read. Marks, checkpoints, saga states, timers and held messages are not:
each is written only if it still is what was read, and where it is not, everything is judged anew (`STALE`).
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from typing import Any, Final

import msgspec

from headwater.adapters.postgres import rows, schema
from headwater.adapters.postgres.facts import asking, columns, facts_of, locking, locks
from headwater.adapters.postgres.outright import ALIVE, assumed, standing
from headwater.adapters.postgres.relevant import tagging
from headwater.adapters.postgres.server import BEGIN, COMMIT
from headwater.adapters.postgres.statement import Plan, Row, Statement
from headwater.adapters.postgres.tables import layout, upserting
from headwater.database import Answer, Facts, InlineFold, Judgement, WriteSet, judge, needs
from headwater.message import Recorded
from headwater.store import Committed

STATUS: Final = "SELECT pg_xact_status(%s::xid8)"
FOUND: Final = """
SELECT position, CASE WHEN id_text = '' THEN id::text ELSE id_text END
FROM unnest(%s::text[], %s::bigint[], %s::integer[]) AS w (stream, version, number)
JOIN headwater.events e ON e.stream = w.stream AND e.version = w.version ORDER BY w.number
"""

EVENTS: Final = """
INSERT INTO headwater.events (version, time, id, type_version, codec, kind, type, stream, id_text, data, meta)
SELECT * FROM unnest(%s::bigint[], %s::bigint[], %s::uuid[], %s::integer[], %s::smallint[], %s::text[], %s::text[],
    %s::text[], %s::text[], %s::bytea[], %s::bytea[])
RETURNING position
"""
KEYS: Final = """
INSERT INTO headwater.command_keys (tenant, key, hash, version, time, position)
SELECT k.tenant, k.key, k.hash, k.version, k.time,
    coalesce((SELECT position FROM headwater.events e WHERE e.stream = k.stream AND e.version = k.at), k.at)
FROM unnest(%s::text[], %s::text[], %s::bytea[], %s::bigint[], %s::bigint[], %s::text[], %s::bigint[])
    AS k (tenant, key, hash, version, time, stream, at)
"""
"""The position is that of the last message of the set, at (stream, at); with no stream it is `at` itself."""
MARKED: Final = """
UPDATE headwater.marks m SET version = w.version
FROM unnest(%s::text[], %s::text[], %s::bigint[], %s::bigint[]) AS w (consumer, stream, version, expected)
WHERE m.consumer = w.consumer AND m.stream = w.stream AND m.version = w.expected RETURNING 1
"""
MARKS: Final = "INSERT INTO headwater.marks SELECT * FROM unnest(%s::text[], %s::text[], %s::bigint[])"
MOVED: Final = """
UPDATE headwater.checkpoints c SET position = w.position
FROM unnest(%s::text[], %s::bigint[], %s::bigint[]) AS w (name, position, expected)
WHERE c.name = w.name AND c.position = w.expected RETURNING 1
"""
CHECKPOINTS: Final = "INSERT INTO headwater.checkpoints SELECT * FROM unnest(%s::text[], %s::bigint[])"
EVOLVED: Final = """
UPDATE headwater.sagas s SET version = w.version, data = w.data, ended = w.ended
FROM unnest(%s::text[], %s::text[], %s::bigint[], %s::bytea[], %s::boolean[], %s::bigint[])
    AS w (saga, key, version, data, ended, expected)
WHERE s.saga = w.saga AND s.key = w.key AND s.version = w.expected RETURNING 1
"""
SAGAS: Final = """
INSERT INTO headwater.sagas SELECT * FROM unnest(%s::text[], %s::text[], %s::bigint[], %s::bytea[], %s::boolean[])
"""
RELEASE: Final = """
DELETE FROM headwater.held h USING unnest(%s::text[], %s::text[], %s::bigint[]) AS w (consumer, stream, version)
WHERE h.consumer = w.consumer AND h.stream = w.stream AND h.version = w.version RETURNING 1
"""
HOLD: Final = """
INSERT INTO headwater.held (consumer, key, reason, due, attempts, crashes, cause, fingerprint, history, since, headers, raw,
    position, stream, version, kind, id, type, type_version, codec, time, previous, data, meta)
SELECT * FROM unnest(%s::text[], %s::text[], %s::text[], %s::bigint[], %s::integer[], %s::integer[], %s::text[], %s::text[],
    %s::text[], %s::bigint[], %s::text[], %s::boolean[], %s::bigint[], %s::text[], %s::bigint[], %s::text[], %s::text[],
    %s::text[], %s::integer[], %s::smallint[], %s::bigint[], %s::bigint[], %s::bytea[], %s::bytea[])
"""
CANCEL: Final = """
DELETE FROM headwater.timers t USING unnest(%s::text[], %s::text[], %s::text[]) AS w (owner, key, name)
WHERE t.owner = w.owner AND t.key = w.key AND t.name = w.name RETURNING 1
"""
CANCEL_DUE: Final = """
DELETE FROM headwater.timers t USING unnest(%s::text[], %s::text[], %s::text[], %s::bigint[]) AS w (owner, key, name, due)
WHERE t.owner = w.owner AND t.key = w.key AND t.name = w.name AND t.due = w.due RETURNING 1
"""
SET: Final = """
INSERT INTO headwater.timers
SELECT * FROM unnest(%s::text[], %s::text[], %s::text[], %s::bigint[], %s::text[], %s::text[], %s::text[], %s::text[],
    %s::integer[], %s::smallint[], %s::bigint[], %s::bytea[], %s::bytea[])
"""
CLEAR: Final = "DELETE FROM headwater.steps WHERE message_id = %s AND consumer = %s AND name = %s"
NEW_STEP: Final = "INSERT INTO headwater.steps VALUES (%s, %s, %s, %s, %s)"
STEP: Final = f"""
{NEW_STEP}
ON CONFLICT (message_id, consumer, name) DO UPDATE SET done = excluded.done, outcome = excluded.outcome
"""
NOTES: Final = """
INSERT INTO headwater.notes SELECT * FROM unnest(%s::text[], %s::text[])
ON CONFLICT (feed) DO UPDATE SET messages = excluded.messages
"""
JOURNAL: Final = """
INSERT INTO headwater.journal (consumer, stream, version) SELECT * FROM unnest(%s::text[], %s::text[], %s::bigint[])
"""


class Commit:
    """Sets judged and written in a transaction of their own: two round trips where nothing is folded.

    Where `backend` names the connection, as the server knows it, sets that only append take one; `outright` says it was so.
    """

    def __init__(self, writes: Sequence[WriteSet], folds: Sequence[InlineFold], backend: int = 0) -> None:
        self.writes = writes
        self._folds = folds
        self._backend = backend
        self._transaction = ""
        self._before = 0
        self.judged = Judgement()
        self.outright = False

    def steps(self) -> Plan[list[Answer]]:
        """Judge the sets, write those that stand, and commit; the last step ends with `COMMIT`."""
        facts = assumed(self.writes) if self._backend and not self._folds else None
        if facts is not None:
            streams = dict(facts.streams)
            judged = judge(self.writes, facts)
            if len(judged.standing) == len(self.writes):
                return (yield from self._outright(judged, streams))
        return (yield from self._by_facts())

    def _outright(self, judged: Judgement, streams: dict[str, int]) -> Plan[list[Answer]]:
        self.judged, self.outright = judged, True
        before = [BEGIN, *locks(needs(self.writes), self.writes), standing(streams)]
        written = yield [*before, *_writing(judged, Facts()), COMMIT]
        return _placed(judged, 0, written[len(before) :])

    def _by_facts(self) -> Plan[list[Answer]]:
        wanted = needs(self.writes)
        _, *found = yield [BEGIN, *asking(wanted, self.writes)]
        ((_, self._transaction),) = found[-1]
        facts = facts_of(wanted, found)
        self._before = facts.position
        stored = _copied(facts)
        judged = self.judged = judge(self.writes, facts)
        if not judged.standing:
            yield [COMMIT]
            return judged.answers
        statements = _writing(judged, stored)
        if not judged.recorded or not self._folds:
            written = yield [*statements, COMMIT]
        else:
            written = yield statements
            yield [*(yield from _folding(self._folds, _recorded(judged, written))), COMMIT]
        return _placed(judged, self._before, written)

    def outcome(self) -> Plan[list[Answer] | bool | None]:
        """Ask another connection what became of it: its answers, None where it was undone, True while it may go on.

        False where the server does not know. That a transaction of this number was committed is no proof by itself:
        after a failover it may be another's, so that the first message is looked for too. One that went outright has no
        number: it may go on while its connection is there, and what is not stored once that is gone, never will be.
        """
        places = [(one.stream, one.version, number) for number, one in enumerate(self.judged.recorded)]
        if self.outright:
            (((alive,),), marks) = yield [Statement(ALIVE, (self._backend,)), Statement(FOUND, columns(places))]
            if [mark for _, mark in marks] == [one.id for one in self.judged.recorded]:
                return _placed(self.judged, 0, [[(position,) for position, _ in marks]])
            return True if alive else None
        asked = [Statement(STATUS, (self._transaction,))]
        (((status,),), *found) = yield [*asked, Statement(FOUND, columns(places))] if places else asked
        if status == "aborted":
            return None
        if status == "in progress":
            return True
        if (
            status != "committed"
            or not places
            or [mark for _, mark in found[0]] != [one.id for one in self.judged.recorded]
        ):
            return False
        return _placed(self.judged, self._before, [[(position,) for position, _ in found[0]]])


def writing(writes: Sequence[WriteSet], folds: Sequence[InlineFold]) -> Plan[list[Answer]]:
    """Judge and write sets within an open transaction."""
    wanted = needs(writes)
    facts = facts_of(wanted, (yield asking(wanted, writes)))
    before = facts.position
    kept = _copied(facts)
    judged = judge(writes, facts)
    written = yield _writing(judged, kept)
    if judged.recorded and folds:
        yield (yield from _folding(folds, _recorded(judged, written)))
    return _placed(judged, before, written)


def _copied(facts: Facts) -> Facts:
    """The facts as they are stored: judging changes its own."""
    return Facts(
        marks=dict(facts.marks),
        checkpoints=dict(facts.checkpoints),
        held=set(facts.held),
        timers=dict(facts.timers),
        sagas=dict(facts.sagas),
    )


def _writing(judged: Judgement, stored: Facts) -> list[Statement]:
    """All statements but those of folds; the first one gives the positions, where there are messages."""
    standing = judged.standing
    return [
        *_log(judged),
        *_places(standing, stored),
        *_held(standing, stored),
        *_timers(standing, stored),
        *_effects(standing),
        *upserting([one for write in standing for one in write.upserts]),
    ]


def _log(judged: Judgement) -> list[Statement]:
    found = []
    if judged.recorded:
        found.append(Statement(EVENTS, columns([rows.event_row(one) for one in judged.recorded])))
        found += tagging(judged)
    if judged.settled:
        last = {one.position: one for one in judged.recorded}
        keys = []
        for tenant, key, settled, time in judged.settled:
            at = last.get(settled.position)
            place = (at.stream, at.version) if at else ("", settled.position)
            keys.append((tenant, key, settled.hash, settled.version, time, *place))
        found.append(Statement(KEYS, columns(keys)))
    return found


def _places(standing: Sequence[WriteSet], stored: Facts) -> list[Statement]:
    """Marks, checkpoints and saga states, the last of each."""
    marks = {(one.consumer, one.stream): (one.version,) for write in standing for one in write.marks}
    checkpoints = {(one.name,): (one.position,) for write in standing for one in write.checkpoints}
    sagas = {(one.saga, one.key): (one.expect + 1, one.data, one.ended) for write in standing for one in write.sagas}
    known = {(name,): position for name, position in stored.checkpoints.items()}
    return [
        *_moving(MARKED, MARKS, marks, stored.marks),
        *_moving(MOVED, CHECKPOINTS, checkpoints, known),
        *_moving(EVOLVED, SAGAS, sagas, stored.sagas),
    ]


def _moving(update: str, insert: str, new: Mapping[Any, tuple[Any, ...]], stored: Mapping[Any, int]) -> list[Statement]:
    """Rows that move from what is stored, in the order of their keys, and rows that are new."""
    moved = [(*key, *values, stored[key]) for key, values in sorted(new.items()) if key in stored]
    fresh = [(*key, *values) for key, values in sorted(new.items()) if key not in stored]
    found = [_exactly(update, moved)] if moved else []
    return [*found, Statement(insert, columns(fresh))] if fresh else found


def _exactly(sql: str, keys: Collection[Row]) -> Statement:
    """A statement that must touch a row for each key."""
    counted = f"WITH touched AS ({sql}) SELECT headwater.expect(count(*), %s) FROM touched"
    return Statement(counted, [*columns(keys), len(keys)])


def _held(standing: Sequence[WriteSet], stored: Facts) -> list[Statement]:
    left: dict[tuple[str, str, int], Row | None] = {}
    for write in standing:
        for release in write.releases:
            left[release.consumer, release.stream, release.version] = None
        for one in write.holds:
            left[one.consumer, one.message.stream, one.message.version] = rows.held_row(one)
    certain = [key for key in left if key in stored.held]
    return _replacing((RELEASE, certain), (RELEASE, [key for key in left if key not in stored.held]), HOLD, left)


def _timers(standing: Sequence[WriteSet], stored: Facts) -> list[Statement]:
    left: dict[tuple[str, str, str], Row | None] = {}
    for write in standing:
        for cancel in write.cancels:
            left[cancel.owner, cancel.key, cancel.name] = None
        for one in write.timers:
            left[one.owner, one.key, one.name] = rows.timer_row(one)
    certain = [(*key, stored.timers[key]) for key in left if key in stored.timers]
    return _replacing((CANCEL_DUE, certain), (CANCEL, [key for key in left if key not in stored.timers]), SET, left)


def _replacing(
    certain: tuple[str, list[Any]], perhaps: tuple[str, list[Any]], insert: str, left: Mapping[Any, Row | None]
) -> list[Statement]:
    """Delete what must be there and what may be, in the order of keys, and insert what is left."""
    found = []
    if certain[1]:
        found.append(_exactly(certain[0], sorted(certain[1])))
    if perhaps[1]:
        found.append(Statement(perhaps[0], columns(sorted(perhaps[1]))))
    if fresh := [row for _, row in sorted(left.items()) if row]:
        found.append(Statement(insert, columns(fresh)))
    return found


def _effects(standing: Sequence[WriteSet]) -> list[Statement]:
    found = []
    for write in standing:
        for step in write.steps:
            named = (step.message_id, step.consumer, step.name)
            kept = Statement(NEW_STEP if step.new else STEP, (*named, step.done, step.outcome))
            found.append(Statement(CLEAR, named) if step.clear else kept)
    if notes := {one.note.feed: rows.as_text(one.note.messages) for one in standing if one.note is not None}:
        found.append(Statement(NOTES, columns(sorted(notes.items()))))
    if journal := [line for write in standing for line in write.journal]:
        found.append(Statement(JOURNAL, columns(journal)))
    return found


def _recorded(judged: Judgement, written: Sequence[list[Row]]) -> list[Recorded]:
    """The messages at the positions that they got."""
    positions = [position for (position,) in written[0]]
    return [
        msgspec.structs.replace(one, position=position)
        for one, position in zip(judged.recorded, positions, strict=True)
    ]


def _placed(judged: Judgement, before: int, written: Sequence[list[Row]]) -> list[Answer]:
    """The answers, with the positions that the log gave in the place of those that were counted on from `before`."""
    if not judged.recorded:
        return judged.answers
    positions = [before, *(position for (position,) in written[0])]
    return [
        Committed(positions[answer.position - before], answer.version, answer.repeated)
        if isinstance(answer, Committed) and answer.position >= before
        else answer
        for answer in judged.answers
    ]


def _folding(folds: Sequence[InlineFold], recorded: Sequence[Recorded]) -> Plan[list[Statement]]:
    """Read, under locks, the rows that messages touch; what is to be written of them."""
    found: list[Statement] = []
    for fold in folds:
        keys = fold.keys(recorded)
        if not keys:
            continue
        shape = layout(fold.table)
        locks = locking(schema.ROWS, [f"{shape.name} {key!r}" for key in keys])
        *_, stored = yield [*found, *locks, shape.selecting(keys)]
        found = upserting([fold.fold(shape.by_key(stored), recorded)])
    return found
