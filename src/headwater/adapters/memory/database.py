"""The whole database contract in plain dicts: no threads, no files, and the same order of things every time."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterable, Mapping, Sequence
from contextlib import asynccontextmanager
from typing import Any
from weakref import WeakValueDictionary

from headwater.adapters.memory.file import Change, MemoryFile
from headwater.adapters.memory.leases import LeaseHolder
from headwater.adapters.memory.rows import PACK, pack, pack_key, unpack
from headwater.adapters.memory.writing import (
    CHECKPOINTS,
    CONSUMERS,
    KEYS,
    MARKS,
    NOTES,
    SAGAS,
    STEPS,
    TABLES,
    TIMERS,
    held_table,
    missing,
    rows_table,
    write,
)
from headwater.checkpoint import Consuming
from headwater.clock import Clock
from headwater.database import Answer, Capabilities, InlineFold, WriteSet
from headwater.errors import ConfigurationError, DatabaseError
from headwater.inbox import Held, Reason, Step
from headwater.lease import Lease
from headwater.message import Recorded
from headwater.store import Item, Past, Relevant, Seen, Settled, past
from headwater.table import Table, turn_of
from headwater.timer import SagaState, Timer

SCHEME = "memory://"

_named: WeakValueDictionary[str, MemoryFile] = WeakValueDictionary()
"""What `memory://name` names, as a path names a file: for as long as anybody holds it."""


NO_SQL = "the memory database has no SQL: use sqlite:// for handlers that ask for a Transaction"


class MemoryTransaction:
    """A transaction of write sets; there is no SQL in memory."""

    dialect = ""

    def __init__(self, change: Change, folds: Sequence[InlineFold]) -> None:
        self._change = change
        self._folds = folds

    def execute(self, sql: str, parameters: Sequence[object] = ()) -> list[tuple[Any, ...]]:
        raise ConfigurationError(NO_SQL)

    @property
    def connection(self) -> Any:
        raise ConfigurationError(NO_SQL)

    @asynccontextmanager
    async def savepoint(self) -> AsyncIterator[None]:
        before = self._change.mark()
        try:
            yield
        except BaseException:
            self._change.undo(before)
            raise

    def write(self, writes: Sequence[WriteSet]) -> list[Answer]:
        return write(self._change, writes, self._folds)


class MemoryDatabase:
    """A database in memory; what is committed lies in `file`, which outlives the object. Leases go by `clock`."""

    capabilities = Capabilities(sql=False, durable=False)

    def __init__(self, clock: Clock, file: MemoryFile | None = None) -> None:
        self.clock = clock
        self.file = MemoryFile() if file is None else file
        self._opened = False
        self._folds: Sequence[InlineFold] = ()
        self._leases = LeaseHolder(self.file, clock)
        self._writing: Change | None = None

    @classmethod
    def from_url(cls, url: str, clock: Clock) -> MemoryDatabase:
        """The database of `memory://` (its own data) or `memory://name` (shared with who holds the same name)."""
        if not url.startswith(SCHEME):
            raise ConfigurationError(f"{url!r} is no URL of a memory database: write memory:// or memory://name")
        name = url.removeprefix(SCHEME)
        return cls(clock, _named.setdefault(name, MemoryFile(name)) if name else None)

    async def open(self) -> None:
        self._opened = True

    async def close(self) -> None:
        for lease in list(self._leases.leases):
            await lease.release()
        self.crash()

    def crash(self) -> None:
        """Stop as a killed process does: nothing is finished or given back; `file` keeps what was committed."""
        self._opened = False
        self._leases.forget()
        if self._writing is not None:
            self.file.free(self._writing)

    @property
    def _data(self) -> MemoryFile:
        if not self._opened:
            raise DatabaseError("the database is not open")
        return self.file

    async def _turn(self) -> None:
        await asyncio.sleep(0)  # others run here, as they would while a disk writes
        await self._data.turn()

    # --- commits ---

    async def commit(self, writes: Sequence[WriteSet]) -> list[Answer]:
        await asyncio.sleep(0)  # what is submitted is not yet begun: others are before it
        await self._turn()
        change = Change(self._data)
        answers = write(change, writes, self._folds)
        change.merge()
        return answers

    @asynccontextmanager
    async def transaction(self) -> AsyncIterator[MemoryTransaction]:
        await self._turn()
        self._writing = self.file.writer = change = Change(self._data)
        try:
            yield MemoryTransaction(change, self._folds)
            if self._data.writer is not change:
                raise DatabaseError("the database was closed within the transaction; nothing of it is written")
            change.merge()
        finally:
            self.file.free(change)

    def fold_inline(self, folds: Sequence[InlineFold]) -> None:
        self._folds = tuple(folds)

    async def changed(self, after: int, timeout: float) -> bool:
        loop = asyncio.get_running_loop()
        end = loop.time() + timeout
        while self._data.head <= after and (left := end - loop.time()) > 0:
            await self._data.news(left)
        return self._data.head > after

    async def acquire(self, name: str, owner: str, ttl: float = 10.0) -> Lease | None:
        await self._data.turn()
        return self._leases.acquire(name, owner, ttl)

    # --- the log ---

    async def read(self, after: int, limit: int, *, backwards: bool = False) -> list[Recorded]:
        log = self._data.log
        if backwards:
            last = max(min(after - 1, len(log)), 0)
            return log[max(last - limit, 0) : last][::-1]
        first = max(after, 0)
        return log[first : first + limit]

    async def read_streams(self, after: Mapping[str, int]) -> dict[str, list[Past]]:
        above = {stream: self._data.streams.get(stream, [])[version:] for stream, version in after.items()}
        return {stream: [past(one) for one in found] for stream, found in above.items() if found}

    async def read_stream(self, stream: str, after: int, limit: int) -> list[Recorded]:
        return self._data.streams.get(stream, [])[after : after + limit]

    async def read_relevant(self, items: Sequence[Item], seen: Seen) -> Relevant:
        data = self._data
        takers: dict[int, list[int]] = {}
        for place, item in enumerate(items):
            for position in data.relevant(item, seen.safe):
                if position not in seen.above:
                    takers.setdefault(position, []).append(place)
        return Relevant([(data.log[position - 1], takers[position]) for position in sorted(takers)], Seen(data.head))

    async def head(self) -> int:
        return self._data.head

    async def settled(self, tenant: str, key: str) -> Settled | None:
        found: tuple[Settled, int] | None = self._data.table(KEYS).get((tenant, key))
        return found[0] if found else None

    async def forget_keys(self, before: int) -> int:
        await self._turn()
        keys = self._data.tables.get(KEYS, {})
        old = [key for key, (_, time) in keys.items() if time < before]
        for key in old:
            del keys[key]
        return len(old)

    # --- the inbox ---

    async def marks(self, consumer: str, streams: Sequence[str]) -> dict[str, int]:
        marks = self._data.table(MARKS)
        return {stream: marks[consumer, stream] for stream in streams if (consumer, stream) in marks}

    async def held_keys(self, consumer: str, keys: Sequence[str]) -> set[str]:
        return {held.key for held in self._held(consumer)}.intersection(keys)

    async def held_count(self, consumer: str) -> tuple[int, int]:
        held = self._held(consumer)
        return len(held), sum(len(one.message.data) for one in held)

    async def held_due(self, consumer: str, now: int, limit: int) -> list[Held]:
        turns = [(due, head) for due, head in self._turns(consumer) if due <= now]
        turns.sort(key=lambda turn: (turn[0], turn[1].since, turn[1].key))
        return [head for _, head in turns[:limit]]

    async def held_of(self, consumer: str, key: str, limit: int) -> list[Held]:
        return [held for held in self._held(consumer) if held.key == key][:limit]

    async def held_list(self, consumer: str | None, reasons: Sequence[Reason], limit: int) -> list[Held]:
        tables = self._data.tables
        consumers = [name[1] for name in tables if isinstance(name, tuple) and name[0] == "held"]
        wanted = sorted(consumers) if consumer is None else [consumer]
        return [held for name in wanted for held in self._held(name) if held.reason in reasons][:limit]

    async def next_due(self, consumer: str) -> int | None:
        return min((due for due, _ in self._turns(consumer)), default=None)

    def _held(self, consumer: str) -> list[Held]:
        held: Iterable[Held] = self._data.table(held_table(consumer)).values()
        return sorted(held, key=lambda one: (one.message.stream, one.message.version))

    def _turns(self, consumer: str) -> list[tuple[int, Held]]:
        """The head of each held key that waits only for a time, and that time; a filled gap waits no more."""
        heads: dict[str, Held] = {}
        for held in self._held(consumer):
            heads.setdefault(held.key, held)
        marks = self._data.table(MARKS)
        turns = []
        for head in heads.values():
            if head.reason in (Reason.RETRY, Reason.BEHIND):
                turns.append((head.due, head))
            elif head.reason is Reason.GAP and marks.get((consumer, head.message.stream), 0) >= head.message.previous:
                turns.append((0, head))
        return turns

    async def noted(self, feed: str) -> list[tuple[str, int]]:
        return list(self._data.table(NOTES).get(feed, ()))

    async def steps(self, consumer: str | None, message_id: str | None) -> list[Step]:
        steps: Iterable[Step] = self._data.table(STEPS).values()
        return [
            step
            for step in steps
            if consumer in (None, step.consumer)
            and (step.message_id == message_id or (message_id is None and not step.done))
        ]

    # --- checkpoints, timers, sagas ---

    async def checkpoint(self, name: str) -> int:
        position: int = self._data.table(CHECKPOINTS).get(name, 0)
        return position

    async def register(self, consumers: Sequence[Consuming]) -> None:
        await self._turn()
        self._data.tables[CONSUMERS] = {consuming.name: consuming for consuming in consumers}

    async def registered(self) -> list[Consuming]:
        return list(self._data.table(CONSUMERS).values())

    async def timers_due(self, now: int, limit: int) -> list[Timer]:
        return [timer for timer in self._timers() if timer.due <= now][:limit]

    async def timers_list(self, limit: int) -> list[Timer]:
        return self._timers()[:limit]

    async def next_timer(self) -> int | None:
        return min((timer.due for timer in self._timers()), default=None)

    def _timers(self) -> list[Timer]:
        timers: Iterable[Timer] = self._data.table(TIMERS).values()
        return sorted(timers, key=lambda timer: (timer.due, timer.owner, timer.key, timer.name))

    async def sagas(self, saga: str, keys: Sequence[str]) -> dict[str, SagaState]:
        states = self._data.table(SAGAS)
        return {key: states[saga, key] for key in keys if (saga, key) in states}

    # --- the tables of read models ---

    async def create_table(self, table: Table) -> None:
        await self._turn()
        for column in table.columns:
            if column.type not in PACK:
                raise ConfigurationError(
                    f"column {column.name} of {table.name}: {column.type!r} is not one of {', '.join(PACK)}"
                )
        tables = self._data.tables.setdefault(TABLES, {})
        known: Table = tables.setdefault(table.name, table)
        if (tuple(known.columns), known.keys) != (tuple(table.columns), table.keys):
            raise ConfigurationError(f"table {table.name} has other columns than its read model: rebuild it")

    async def rows(self, table: Table, keys: Sequence[tuple[Any, ...]]) -> dict[tuple[Any, ...], tuple[Any, ...]]:
        rows = self._rows(table)
        packed = ((tuple(key), rows.get(pack_key(table, key))) for key in keys)
        return {key: unpack(table, row) for key, row in packed if row is not None}

    async def find(self, table: Table, where: Mapping[str, Any], limit: int) -> list[tuple[Any, ...]]:
        rows = self._rows(table)
        unknown = where.keys() - set(table.names)
        if unknown:
            raise ConfigurationError(f"table {table.name} has no column {min(unknown)!r}")
        places = [table.names.index(name) for name in where]
        values = pack([table.columns[place] for place in places], list(where.values()))
        found = (rows[key] for key in sorted(rows) if tuple(rows[key][place] for place in places) == values)
        return [unpack(table, row) for row, _ in zip(found, range(limit), strict=False)]

    def _rows(self, table: Table) -> Mapping[tuple[Any, ...], tuple[Any, ...]]:
        if table.name not in self._data.table(TABLES):
            raise missing(table)
        return self.file.table(rows_table(table))

    async def swap_table(self, built: Table, live: Table, reader: str, built_reader: str, expect: int) -> bool:
        await self._turn()
        tables, checkpoints = self._data.tables, self._data.tables.setdefault(CHECKPOINTS, {})
        live_at = checkpoints.get(reader, 0) if reader else self._data.head
        if (live_at, checkpoints.get(built_reader, 0)) != (expect, expect):
            return False
        if tables.setdefault(TABLES, {}).pop(built.name, None) is None:
            raise missing(built)
        tables[TABLES][live.name] = live
        tables[rows_table(live)] = tables.pop(rows_table(built), {})
        checkpoints.pop(built_reader, None)
        if reader:
            checkpoints[turn_of(reader)] = checkpoints.get(turn_of(reader), 0) + 1
        return True

    async def drop_table(self, table: Table) -> None:
        await self._turn()
        self._data.tables.get(TABLES, {}).pop(table.name, None)
        self._data.tables.pop(rows_table(table), None)
