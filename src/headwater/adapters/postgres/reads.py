"""What a service's database can be asked: short statements on the connections of the pool."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Final

import msgspec

from headwater.adapters.postgres import rows
from headwater.adapters.postgres.horizon import Horizon
from headwater.adapters.postgres.pasts import Pasts
from headwater.adapters.postgres.relevant import Together
from headwater.adapters.postgres.replica import Published
from headwater.adapters.postgres.server import Pool
from headwater.adapters.postgres.statement import Row, Statement
from headwater.adapters.postgres.tables import layout
from headwater.checkpoint import Consuming
from headwater.errors import DatabaseError
from headwater.inbox import Held, Reason, Step
from headwater.message import Recorded
from headwater.store import Item, Past, Relevant, Seen, Settled
from headwater.table import Table
from headwater.timer import SagaState, Timer

BACKWARDS: Final = f"SELECT {rows.EVENT} FROM headwater.events WHERE position < %s ORDER BY position DESC LIMIT %s"
STREAM: Final = f"""
SELECT {rows.EVENT} FROM headwater.events WHERE stream = %s AND version > %s ORDER BY version LIMIT %s
"""
SETTLED: Final = "SELECT hash, position, version FROM headwater.command_keys WHERE tenant = %s AND key = %s"
MARKS: Final = """
SELECT asked, mark.version FROM unnest(%s::text[]) AS asked CROSS JOIN LATERAL
(SELECT version FROM headwater.marks WHERE consumer = %s AND stream = asked LIMIT 1) AS mark
"""
"""A look for each: where it has no statistics, the server would read all that a consumer has for `stream = ANY(...)`."""
HELD_KEYS: Final = """
SELECT asked FROM unnest(%s::text[]) AS asked CROSS JOIN LATERAL
(SELECT FROM headwater.held WHERE consumer = %s AND key = asked AND first LIMIT 1) AS head
"""
TOTALS: Final = "SELECT messages, bytes FROM headwater.held_totals WHERE consumer = %s"
AFTER_GAP: Final = """
coalesce((SELECT m.version FROM headwater.marks m WHERE m.consumer = h.consumer AND m.stream = h.stream), 0)
"""
HELD_DUE: Final = f"""
(SELECT {rows.HELD}, h.due AS turn FROM headwater.held h
    WHERE consumer = %(consumer)s AND first AND reason = 'retry' AND due <= %(now)s
    ORDER BY due, since, key LIMIT %(limit)s)
UNION ALL
(SELECT {rows.HELD}, h.due FROM headwater.held h
    WHERE consumer = %(consumer)s AND first AND reason = 'behind' AND due <= %(now)s
    ORDER BY due, since, key LIMIT %(limit)s)
UNION ALL
SELECT {rows.HELD}, 0 FROM headwater.held h
    WHERE consumer = %(consumer)s AND first AND reason = 'gap' AND previous <= {AFTER_GAP}
ORDER BY turn, since, key LIMIT %(limit)s
"""
NEXT_DUE: Final = f"""
SELECT min(due) FROM (
    SELECT min(due) AS due FROM headwater.held WHERE consumer = %(consumer)s AND first AND reason = 'retry'
    UNION ALL SELECT min(due) FROM headwater.held WHERE consumer = %(consumer)s AND first AND reason = 'behind'
    UNION ALL SELECT 0 FROM headwater.held h
        WHERE consumer = %(consumer)s AND first AND reason = 'gap' AND previous <= {AFTER_GAP}
) AS turns
"""
HELD_OF: Final = f"""
SELECT {rows.HELD} FROM headwater.held h WHERE consumer = %s AND key = %s ORDER BY stream, version LIMIT %s
"""
HELD_LIST: Final = f"""
SELECT {rows.HELD} FROM headwater.held h
WHERE reason = ANY(%(reasons)s::text[]) AND (%(consumer)s::text IS NULL OR consumer = %(consumer)s)
ORDER BY consumer, stream, version LIMIT %(limit)s
"""
NOTED: Final = "SELECT messages FROM headwater.notes WHERE feed = %s"
STEPS: Final = """
SELECT consumer, message_id, name, done, outcome FROM headwater.steps
WHERE (%(consumer)s::text IS NULL OR consumer = %(consumer)s)
    AND CASE WHEN %(message)s::text IS NULL THEN NOT done ELSE message_id = %(message)s END
ORDER BY message_id, consumer, name
"""
TIMERS: Final = f"SELECT {rows.TIMER} FROM headwater.timers WHERE due <= %s ORDER BY due, owner, key, name LIMIT %s"
NEXT_TIMER: Final = Statement("SELECT min(due) FROM headwater.timers")
SAGAS: Final = """
SELECT state.* FROM unnest(%s::text[]) AS asked CROSS JOIN LATERAL
(SELECT saga, key, version, data, ended FROM headwater.sagas WHERE key = asked AND saga = %s LIMIT 1) AS state
"""
CHECKPOINT: Final = "SELECT position FROM headwater.checkpoints WHERE name = %s"
CONSUMERS: Final = Statement("SELECT name, source, kind, topics FROM headwater.consumers ORDER BY place")
FEW: Final = 64
"""So many positions may be told one by one before the horizon is asked to move on."""
LATEST: Final = 2**63 - 1

_note = msgspec.json.Decoder(list[tuple[str, int]]).decode
_topics = msgspec.json.Decoder(tuple[str, ...]).decode


class Reads:
    """The reads of the database contract, over an open pool."""

    _pool: Pool | None = None
    _horizon: Horizon | Published | None = None
    _together: Together | None = None
    _pasts: Pasts | None = None

    @property
    def _open_pool(self) -> Pool:
        if self._pool is None:
            raise DatabaseError("the database is not open")
        return self._pool

    @property
    def _open_horizon(self) -> Horizon | Published:
        if self._horizon is None:
            raise DatabaseError("the database is not open")
        return self._horizon

    @property
    def _open_together(self) -> Together:
        if self._together is None:
            raise DatabaseError("the database is not open")
        return self._together

    @property
    def _open_pasts(self) -> Pasts:
        if self._pasts is None:
            raise DatabaseError("the database is not open")
        return self._pasts

    async def _rows(self, sql: str, values: Any = ()) -> list[Row]:
        (found,) = await self._open_pool.rows(Statement(sql, values))
        return found

    # --- the log ---

    async def read(self, after: int, limit: int, *, backwards: bool = False) -> list[Recorded]:
        if backwards:
            return rows.recorded(await self._rows(BACKWARDS, (after, limit)))
        return rows.recorded(await self._open_horizon.read(after, limit))

    async def read_streams(self, after: Mapping[str, int]) -> dict[str, list[Past]]:
        return await self._open_pasts.read(after) if after else {}

    async def read_stream(self, stream: str, after: int, limit: int) -> list[Recorded]:
        return rows.recorded(await self._rows(STREAM, (stream, after, limit if limit >= 0 else None)))

    async def read_relevant(self, items: Sequence[Item], seen: Seen) -> Relevant:
        horizon = self._open_horizon
        safe = horizon.position  # as it was before the look, which sees all that is settled by now
        if not items:
            return Relevant([], Seen(max(safe, seen.safe)))
        found = await self._open_together.find(items, seen)
        safe = max(safe, seen.safe)
        above = [*seen.above, *(one.position for one, _ in found)]
        if len(above) > FEW:
            await horizon.look()
        return Relevant(found, Seen(safe, tuple(sorted(position for position in above if position > safe))))

    async def head(self) -> int:
        return await self._open_horizon.look()

    async def settled(self, tenant: str, key: str) -> Settled | None:
        found = await self._rows(SETTLED, (tenant, key))
        return Settled(*found[0]) if found else None

    # --- the inbox ---

    async def marks(self, consumer: str, streams: Sequence[str]) -> dict[str, int]:
        return dict(await self._rows(MARKS, (list(streams), consumer))) if streams else {}

    async def held_keys(self, consumer: str, keys: Sequence[str]) -> set[str]:
        return {key for (key,) in await self._rows(HELD_KEYS, (list(keys), consumer))} if keys else set()

    async def held_count(self, consumer: str) -> tuple[int, int]:
        found = await self._rows(TOTALS, (consumer,))
        return (found[0][0], found[0][1]) if found else (0, 0)

    async def held_due(self, consumer: str, now: int, limit: int) -> list[Held]:
        found = await self._rows(HELD_DUE, {"consumer": consumer, "now": now, "limit": limit})
        return rows.held(row[:-1] for row in found)

    async def held_of(self, consumer: str, key: str, limit: int) -> list[Held]:
        return rows.held(await self._rows(HELD_OF, (consumer, key, limit)))

    async def held_list(self, consumer: str | None, reasons: Sequence[Reason], limit: int) -> list[Held]:
        wanted = [reason.value for reason in reasons]
        return rows.held(await self._rows(HELD_LIST, {"consumer": consumer, "reasons": wanted, "limit": limit}))

    async def next_due(self, consumer: str) -> int | None:
        due: int | None = (await self._rows(NEXT_DUE, {"consumer": consumer}))[0][0]
        return due

    async def noted(self, feed: str) -> list[tuple[str, int]]:
        found = await self._rows(NOTED, (feed,))
        return _note(found[0][0]) if found else []

    async def steps(self, consumer: str | None, message_id: str | None) -> list[Step]:
        found = await self._rows(STEPS, {"consumer": consumer, "message": message_id})
        return [Step(owner, message, name, done, outcome) for owner, message, name, done, outcome in found]

    # --- checkpoints, timers, sagas ---

    async def checkpoint(self, name: str) -> int:
        found = await self._rows(CHECKPOINT, (name,))
        return found[0][0] if found else 0

    async def registered(self) -> list[Consuming]:
        (found,) = await self._open_pool.rows(CONSUMERS)
        return [Consuming(name, source, kind, _topics(topics)) for name, source, kind, topics in found]

    async def timers_due(self, now: int, limit: int) -> list[Timer]:
        return rows.timers(await self._rows(TIMERS, (now, limit)))

    async def timers_list(self, limit: int) -> list[Timer]:
        return await self.timers_due(LATEST, limit)

    async def next_timer(self) -> int | None:
        ((due,),) = (await self._open_pool.rows(NEXT_TIMER))[0]
        found: int | None = due
        return found

    async def sagas(self, saga: str, keys: Sequence[str]) -> dict[str, SagaState]:
        found = await self._rows(SAGAS, (list(keys), saga)) if keys else []
        return {key: SagaState(name, key, version, data, ended) for name, key, version, data, ended in found}

    # --- the tables of read models ---

    async def rows(self, table: Table, keys: Sequence[tuple[Any, ...]]) -> dict[tuple[Any, ...], tuple[Any, ...]]:
        shape = layout(table)
        return shape.by_key((await self._open_pool.rows(shape.selecting(keys)))[0]) if keys else {}

    async def find(self, table: Table, where: Mapping[str, Any], limit: int) -> list[tuple[Any, ...]]:
        return (await self._open_pool.rows(layout(table).finding(where, limit)))[0]
