"""What a service's database can be asked: short statements on the reading connection."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from operator import itemgetter
from typing import Any, Final

import msgspec

from headwater.adapters.sqlite import rows, tables
from headwater.adapters.sqlite.facts import POSITION, as_json
from headwater.adapters.sqlite.file import Reader
from headwater.adapters.sqlite.relevant import read_relevant
from headwater.checkpoint import Consuming
from headwater.errors import DatabaseError
from headwater.inbox import Held, Reason, Step
from headwater.message import Recorded
from headwater.store import Item, Past, Relevant, Seen, Settled
from headwater.table import Table
from headwater.timer import SagaState, Timer

FORWARDS: Final = f"SELECT {rows.EVENT} FROM events WHERE position > ? ORDER BY position LIMIT ?"
BACKWARDS: Final = f"SELECT {rows.EVENT} FROM events WHERE position < ? ORDER BY position DESC LIMIT ?"
STREAM: Final = f"SELECT {rows.EVENT} FROM events WHERE stream = ? AND version > ? ORDER BY version LIMIT ?"
PAST: Final = f"SELECT {rows.PAST} FROM events WHERE stream = ? AND version > ? ORDER BY version"
PASTS: Final = f"""
SELECT {rows.PAST}, stream FROM (SELECT value ->> 0 AS wanted, value ->> 1 AS after FROM json_each(?))
CROSS JOIN events ON stream = wanted AND version > after
"""
SETTLED: Final = "SELECT hash, position, version FROM command_keys WHERE tenant = ? AND key = ?"
MARKS: Final = """
SELECT m.stream, m.version FROM json_each(?2) j CROSS JOIN marks m ON m.consumer = ?1 AND m.stream = j.value
"""
HOLDS: Final = "SELECT 1 FROM held WHERE consumer = ? AND first = 1 LIMIT 1"
HELD_KEYS: Final = """
SELECT h.key FROM json_each(?2) j CROSS JOIN held h ON h.consumer = ?1 AND h.key = j.value AND h.first = 1
"""
HELD_DUE: Final = f"""
SELECT {rows.HELD}, h.due AS turn FROM held h WHERE consumer = ?1 AND first = 1 AND reason = 'retry' AND due <= ?2
UNION ALL
SELECT {rows.HELD}, h.due FROM held h WHERE consumer = ?1 AND first = 1 AND reason = 'behind' AND due <= ?2
UNION ALL
SELECT {rows.HELD}, 0 FROM held h WHERE consumer = ?1 AND first = 1 AND reason = 'gap' AND previous <=
    coalesce((SELECT m.version FROM marks m WHERE m.consumer = h.consumer AND m.stream = h.stream), 0)
ORDER BY turn, 10, 2 LIMIT ?3
"""
"""Merged from the index by reason, so that of many only the first are read; 10 and 2 are `since` and `key`."""
NEXT_DUE: Final = """
SELECT min(due) FROM (
    SELECT min(due) AS due FROM held WHERE consumer = ?1 AND first = 1 AND reason = 'retry'
    UNION ALL SELECT min(due) FROM held WHERE consumer = ?1 AND first = 1 AND reason = 'behind'
    UNION ALL SELECT 0 FROM held h WHERE consumer = ?1 AND first = 1 AND reason = 'gap' AND previous <=
        coalesce((SELECT m.version FROM marks m WHERE m.consumer = h.consumer AND m.stream = h.stream), 0)
)
"""
HELD_OF: Final = f"""
SELECT {rows.HELD} FROM held h WHERE consumer = ? AND key = ? ORDER BY stream, version LIMIT ?
"""
HELD_LIST: Final = f"""
SELECT {rows.HELD} FROM held h WHERE reason IN (SELECT value FROM json_each(?2)) AND (?1 IS NULL OR consumer = ?1)
ORDER BY consumer, stream, version LIMIT ?3
"""
STEPS: Final = """
SELECT consumer, message_id, name, done, CAST(outcome AS BLOB) FROM steps
WHERE {} AND (?1 IS NULL OR consumer = ?1) ORDER BY message_id, consumer, name
"""
TIMERS: Final = f"SELECT {rows.TIMER} FROM timers WHERE due <= ? ORDER BY due, owner, key, name LIMIT ?"
SAGAS: Final = """
SELECT s.saga, s.key, s.version, CAST(s.data AS BLOB), s.ended FROM json_each(?2) j
CROSS JOIN sagas s ON s.saga = ?1 AND s.key = j.value
"""
CHECKPOINT: Final = "SELECT position FROM checkpoints WHERE name = ?"
CONSUMERS: Final = "SELECT name, source, kind, topics FROM consumers ORDER BY rowid"
LATEST: Final = 2**63 - 1

_note = msgspec.json.Decoder(list[tuple[str, int]]).decode
_topics = msgspec.json.Decoder(tuple[str, ...]).decode


class Reads:
    """The reads of the database contract, over an open reader."""

    _reader: Reader | None = None

    @property
    def _read(self) -> Reader:
        if self._reader is None:
            raise DatabaseError("the database is not open")
        return self._reader

    # --- the log ---

    async def read(self, after: int, limit: int, *, backwards: bool = False) -> list[Recorded]:
        return rows.recorded(self._read.rows(BACKWARDS if backwards else FORWARDS, (after, limit)))

    async def read_streams(self, after: Mapping[str, int]) -> dict[str, list[Past]]:
        if len(after) == 1:
            ((stream, version),) = after.items()
            past = self._read.rows(PAST, (stream, version))
            return {stream: past} if past else {}
        found: dict[str, list[Past]] = defaultdict(list)
        for row in sorted(self._read.rows(PASTS, (as_json(tuple(after.items())),)), key=itemgetter(0)):
            found[row[-1]].append(row[:-1])
        return dict(found)

    async def read_stream(self, stream: str, after: int, limit: int) -> list[Recorded]:
        return rows.recorded(self._read.rows(STREAM, (stream, after, limit)))

    async def read_relevant(self, items: Sequence[Item], seen: Seen) -> Relevant:
        return read_relevant(self._read, items, seen)

    async def head(self) -> int:
        return self._head()

    def _head(self) -> int:
        return self._read.value(POSITION) or 0

    async def settled(self, tenant: str, key: str) -> Settled | None:
        found = self._read.rows(SETTLED, (tenant, key))
        return Settled(*found[0]) if found else None

    # --- the inbox ---

    async def marks(self, consumer: str, streams: Sequence[str]) -> dict[str, int]:
        return dict(self._read.rows(MARKS, (consumer, as_json(streams))))

    async def held_keys(self, consumer: str, keys: Sequence[str]) -> set[str]:
        if not keys or self._read.value(HOLDS, (consumer,)) is None:
            return set()
        return {key for (key,) in self._read.rows(HELD_KEYS, (consumer, as_json(keys)))}

    async def held_count(self, consumer: str) -> tuple[int, int]:
        found = self._read.rows("SELECT messages, bytes FROM held_totals WHERE consumer = ?", (consumer,))
        return (found[0][0], found[0][1]) if found else (0, 0)

    async def held_due(self, consumer: str, now: int, limit: int) -> list[Held]:
        return rows.held(row[:-1] for row in self._read.rows(HELD_DUE, (consumer, now, limit)))

    async def held_of(self, consumer: str, key: str, limit: int) -> list[Held]:
        return rows.held(self._read.rows(HELD_OF, (consumer, key, limit)))

    async def held_list(self, consumer: str | None, reasons: Sequence[Reason], limit: int) -> list[Held]:
        return rows.held(self._read.rows(HELD_LIST, (consumer, as_json(reasons), limit)))

    async def next_due(self, consumer: str) -> int | None:
        due: int | None = self._read.value(NEXT_DUE, (consumer,))
        return due

    async def noted(self, feed: str) -> list[tuple[str, int]]:
        found = self._read.value("SELECT messages FROM notes WHERE feed = ?", (feed,))
        return _note(found) if found else []

    async def steps(self, consumer: str | None, message_id: str | None) -> list[Step]:
        which = "done = 0 AND ?2 IS NULL" if message_id is None else "message_id = ?2"
        found = self._read.rows(STEPS.format(which), (consumer, message_id))
        return [Step(owner, message, name, bool(done), outcome) for owner, message, name, done, outcome in found]

    # --- checkpoints, timers, sagas ---

    async def checkpoint(self, name: str) -> int:
        return self._read.value(CHECKPOINT, (name,)) or 0

    async def registered(self) -> list[Consuming]:
        found = self._read.rows(CONSUMERS)
        return [Consuming(name, source, kind, _topics(topics)) for name, source, kind, topics in found]

    async def timers_due(self, now: int, limit: int) -> list[Timer]:
        return rows.timers(self._read.rows(TIMERS, (now, limit)))

    async def timers_list(self, limit: int) -> list[Timer]:
        return await self.timers_due(LATEST, limit)

    async def next_timer(self) -> int | None:
        due: int | None = self._read.value("SELECT min(due) FROM timers")
        return due

    async def sagas(self, saga: str, keys: Sequence[str]) -> dict[str, SagaState]:
        found = self._read.rows(SAGAS, (saga, as_json(keys)))
        return {key: SagaState(name, key, version, data, bool(ended)) for name, key, version, data, ended in found}

    # --- the tables of read models ---

    async def rows(self, table: Table, keys: Sequence[tuple[Any, ...]]) -> dict[tuple[Any, ...], tuple[Any, ...]]:
        return tables.select(self._read.rows, tables.layout(table), keys)

    async def find(self, table: Table, where: Mapping[str, Any], limit: int) -> list[tuple[Any, ...]]:
        shape = tables.layout(table)
        sql, values = shape.find(where)
        return [shape.unpack(row) for row in self._read.rows(sql, (*values, limit))]
