"""What is stored of what a judgement needs: locks in sorted order first, then one statement a kind.

A statement sees what was committed before it began, so that what is read after a lock is what its holder before left.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Sequence
from typing import Any, Final
from zlib import crc32

from headwater.adapters.postgres import schema
from headwater.adapters.postgres.relevant import UNMET, bounds, conditions_of
from headwater.adapters.postgres.statement import Row, Statement
from headwater.database import Facts, Needs, WriteSet
from headwater.store import Settled

BUCKETS: Final = 4_096
"""Names share so many locks: a thousand streams in one commit must not fill the lock table of the server."""
LOCK: Final = "SELECT pg_advisory_xact_lock(%s, bucket) FROM unnest(%s::int[]) AS bucket"
LOCKS: Final = """
SELECT CASE WHEN alone THEN pg_advisory_xact_lock(space, bucket) ELSE pg_advisory_xact_lock_shared(space, bucket) END
FROM unnest(%s::int[], %s::int[], %s::boolean[]) AS l (space, bucket, alone)
"""
FEWER: Final = 1_024
"""Types and tags share so many: an event has several."""

POSITION: Final = "SELECT (SELECT coalesce(max(position), 0) FROM headwater.events), pg_current_xact_id()::text"
"""Where the log ends, and the number of the transaction that asks."""
STREAMS: Final = """
SELECT name, last.version FROM unnest(%s::text[]) AS name CROSS JOIN LATERAL
(SELECT version FROM headwater.events WHERE stream = name ORDER BY version DESC LIMIT 1) AS last
"""
KEYS: Final = """
SELECT k.tenant, k.key, k.hash, k.position, k.version FROM unnest(%s::text[], %s::text[]) AS w (tenant, key)
JOIN headwater.command_keys k ON k.tenant = w.tenant AND k.key = w.key
"""
LEASES: Final = "SELECT name, epoch FROM headwater.leases WHERE name = ANY(%s::text[])"
MARKS: Final = """
SELECT m.consumer, m.stream, m.version FROM unnest(%s::text[], %s::text[]) AS w (consumer, stream)
JOIN headwater.marks m ON m.consumer = w.consumer AND m.stream = w.stream
"""
CHECKPOINTS: Final = "SELECT name, position FROM headwater.checkpoints WHERE name = ANY(%s::text[])"
HELD: Final = """
SELECT h.consumer, h.stream, h.version FROM unnest(%s::text[], %s::text[], %s::bigint[]) AS w (consumer, stream, version)
JOIN headwater.held h ON h.consumer = w.consumer AND h.stream = w.stream AND h.version = w.version
"""
STEPS: Final = """
SELECT s.consumer, s.message_id, s.name FROM unnest(%s::text[], %s::text[], %s::text[]) AS w (consumer, message_id, name)
JOIN headwater.steps s ON s.message_id = w.message_id AND s.consumer = w.consumer AND s.name = w.name
"""
TIMERS: Final = """
SELECT t.owner, t.key, t.name, t.due FROM unnest(%s::text[], %s::text[], %s::text[]) AS w (owner, key, name)
JOIN headwater.timers t ON t.owner = w.owner AND t.key = w.key AND t.name = w.name
"""
SAGAS: Final = """
SELECT s.saga, s.key, s.version FROM unnest(%s::text[], %s::text[]) AS w (saga, key)
JOIN headwater.sagas s ON s.saga = w.saga AND s.key = w.key
"""


def locking(space: int, names: Iterable[str]) -> list[Statement]:
    """The locks of these names in a space, in the order in which everybody takes them; none for no names."""
    buckets = sorted({crc32(name.encode()) % BUCKETS for name in names})
    return [Statement(LOCK, (space, buckets))] if buckets else []


def locks(wanted: Needs, writes: Sequence[WriteSet]) -> list[Statement]:
    """All that is locked before facts are read, in the order in which everybody locks it; what is locked twice, exclusively."""
    alone = {(schema.LEASES, crc32(lease.encode()) % BUCKETS): False for lease in wanted.leases}
    alone |= {(schema.STREAMS, crc32(stream.encode()) % BUCKETS): True for stream in wanted.streams}
    for name, exclusive in bounds(writes).items():
        place = (schema.BOUNDS, crc32(name.encode()) % FEWER)
        alone[place] = exclusive or alone.get(place, False)
    return [Statement(LOCKS, columns([(*place, alone[place]) for place in sorted(alone)]))] if alone else []


def columns(rows: Collection[Sequence[Any]]) -> list[list[Any]]:
    """Rows as the arrays of their columns, as `unnest` takes them; there must be one row at least."""
    return [list(column) for column in zip(*rows, strict=True)]


def asking(wanted: Needs, writes: Sequence[WriteSet]) -> list[Statement]:
    """The statements that lock and read what is wanted, for `facts_of`; their number is that of its results."""
    locked = locks(wanted, writes)
    kinds = [Statement(sql, columns(keys)) for sql, keys in _kinds(wanted) if keys]
    if items := conditions_of(wanted.conditions):
        kinds.append(Statement(UNMET, columns(items)))
    return [*locked, *kinds, Statement(POSITION)]  # no key that was read names a later position


def _kinds(wanted: Needs) -> list[tuple[str, Collection[Row]]]:
    return [
        (STREAMS, [(stream,) for stream in wanted.streams]),
        (KEYS, wanted.keys),
        (LEASES, [(lease,) for lease in wanted.leases]),
        (MARKS, wanted.marks),
        (CHECKPOINTS, [(name,) for name in wanted.checkpoints]),
        (HELD, wanted.held),
        (STEPS, wanted.steps),
        (TIMERS, wanted.timers),
        (SAGAS, wanted.sagas),
    ]


def facts_of(wanted: Needs, results: Sequence[list[Row]]) -> Facts:
    """The facts, of the rows that the statements of `asking` gave."""
    kinds = _kinds(wanted)
    asks = any(one.items for one in wanted.conditions)
    given = iter(results[-1 - sum(bool(keys) for _, keys in kinds) - asks :])
    found = {sql: next(given) if keys else [] for sql, keys in kinds}
    conditions = list(wanted.conditions)
    return Facts(
        unmet={conditions[place] for (place,) in next(given)} if asks else set(),
        position=next(given)[0][0],
        streams=dict(found[STREAMS]),
        keys={(tenant, key): Settled(*rest) for tenant, key, *rest in found[KEYS]},
        leases=dict(found[LEASES]),
        marks={(consumer, stream): version for consumer, stream, version in found[MARKS]},
        checkpoints=dict(found[CHECKPOINTS]),
        held={(consumer, stream, version) for consumer, stream, version in found[HELD]},
        steps={(consumer, message, name) for consumer, message, name in found[STEPS]},
        timers={(owner, key, name): due for owner, key, name, due in found[TIMERS]},
        sagas={(saga, key): version for saga, key, version in found[SAGAS]},
    )
