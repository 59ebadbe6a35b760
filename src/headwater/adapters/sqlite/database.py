"""A service's database in one SQLite file, shared by the processes of one machine."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import asynccontextmanager
from functools import partial
from pathlib import Path
from typing import Any, Final, cast

import apsw

from headwater.adapters.sqlite import tables, upkeep
from headwater.adapters.sqlite.facts import POSITION, as_json
from headwater.adapters.sqlite.file import File, Reader, fetch
from headwater.adapters.sqlite.lease import LeaseHolder
from headwater.adapters.sqlite.migrations import migrate
from headwater.adapters.sqlite.reads import CHECKPOINT, Reads
from headwater.adapters.sqlite.schema import COMPONENT, MIGRATIONS
from headwater.adapters.sqlite.transaction import SqliteTransaction
from headwater.adapters.sqlite.url import path_of
from headwater.adapters.sqlite.wake import Wake
from headwater.adapters.sqlite.writer import Writer
from headwater.adapters.sqlite.writes import commit
from headwater.checkpoint import Consuming
from headwater.clock import Clock
from headwater.database import Answer, Capabilities, Failed, InlineFold, WriteSet
from headwater.errors import DatabaseError, HeadwaterError, KeyReused, Unknown
from headwater.lease import Lease
from headwater.store import Committed
from headwater.table import Table, turn_of
from headwater.telemetry import signal

NEXT_TURN: Final = "INSERT INTO checkpoints VALUES (?, 1) ON CONFLICT DO UPDATE SET position = position + 1"
KEYS: Final = """
SELECT tenant, key, time < ?3 FROM command_keys WHERE (tenant, key) > (?1, ?2) ORDER BY tenant, key LIMIT 2000
"""


class SqliteDatabase(Reads):
    """The database in the SQLite file at `path`; `open` it before use, and `close` it. Injected: the clock."""

    capabilities = Capabilities(sql=True, durable=True)

    def __init__(self, path: str | Path, clock: Clock) -> None:
        self.clock = clock
        self.file = File(path)
        self._folds: Sequence[InlineFold] = ()
        self._grows = False
        self._parts: tuple[Writer[WriteSet, Answer], Wake, LeaseHolder] | None = None

    @classmethod
    def from_url(cls, url: str, clock: Clock) -> SqliteDatabase:
        """The database of `sqlite:///relative/path.db` or `sqlite:////absolute/path.db`."""
        return cls(path_of(url), clock)

    async def open(self, *, upgrade: bool = False) -> None:
        """Make the file if it is missing; `upgrade` the tables of one that an older Headwater made."""
        if self._parts is None:
            await asyncio.to_thread(self._open, upgrade)
            signal("database.opened", path=str(self.file.path))

    async def close(self) -> None:
        if self._parts is None:
            return
        (writer, wake, leases), self._parts = self._parts, None
        await leases.close()
        await writer.close()
        wake.close()
        self._read.close()
        self._reader = None

    def _open(self, upgrade: bool) -> None:
        migrate(self.file, COMPONENT, MIGRATIONS, self.clock.now(), upgrade=upgrade)
        self._reader = Reader(self.file)
        wake = Wake(self.file, self._reader.version)
        writer: Writer[WriteSet, Answer] = Writer(self.file, self._commit, partial(self._committed, wake))
        self._parts = writer, wake, LeaseHolder(self.file, writer)

    @property
    def _open_parts(self) -> tuple[Writer[WriteSet, Answer], Wake, LeaseHolder]:
        if self._parts is None:
            raise DatabaseError("the database is not open")
        return self._parts

    # --- writes ---

    async def commit(self, writes: Sequence[WriteSet]) -> list[Answer]:
        if not writes:
            return []
        results = await self._open_parts[0].submit(writes)
        for result in results:
            if result.__class__ is not Committed:
                return [_answer(result, write) for result, write in zip(results, writes, strict=True)]
        return cast(list[Answer], results)

    def _commit(self, connection: apsw.Connection, writes: Sequence[WriteSet]) -> list[Answer]:
        self._grows = self._grows or any(write.appends for write in writes)
        return commit(connection, writes, self._folds)

    def _committed(self, wake: Wake) -> None:
        """Who waits, waits for the log."""
        if self._grows:
            self._grows = False
            wake.hint()

    @asynccontextmanager
    async def transaction(self) -> AsyncIterator[SqliteTransaction]:
        async with self._open_parts[0].exclusive() as loan:
            yield SqliteTransaction(loan, self._commit, self.file.path)

    def fold_inline(self, folds: Sequence[InlineFold]) -> None:
        self._folds = tuple(folds)

    async def changed(self, after: int, timeout: float) -> bool:
        return await self._open_parts[1].wait(lambda: self._head() <= after, timeout)

    async def acquire(self, name: str, owner: str, ttl: float = 10.0) -> Lease | None:
        return await self._open_parts[2].acquire(name, owner, ttl)

    @asynccontextmanager
    async def _writing(self) -> AsyncIterator[apsw.Connection]:
        """A transaction of our own, in whose block nothing is awaited."""
        async with self._open_parts[0].exclusive() as loan:
            with loan.use() as connection:
                yield connection

    async def register(self, consumers: Sequence[Consuming]) -> None:
        lines = [(one.name, one.source, one.kind, as_json(one.topics)) for one in consumers]
        async with self._writing() as connection:
            connection.execute("DELETE FROM consumers")
            connection.executemany("INSERT INTO consumers VALUES (?, ?, ?, ?)", lines)

    async def forget_keys(self, before: int) -> int:
        forgotten = 0
        for old in self._old_keys(before):
            async with self._writing() as connection:
                connection.executemany("DELETE FROM command_keys WHERE tenant = ? AND key = ?", old)
            forgotten += len(old)
        return forgotten

    def _old_keys(self, before: int) -> Iterator[list[tuple[str, str]]]:
        """Pages of command keys from before a time: a walk over all keys in short reads."""
        place = ("", "")
        while page := self._read.rows(KEYS, (*place, before)):
            place = page[-1][:2]
            if old := [(tenant, key) for tenant, key, is_old in page if is_old]:
                yield old

    async def create_table(self, table: Table) -> None:
        async with self._writing() as connection:
            tables.create(connection, table)

    async def drop_table(self, table: Table) -> None:
        async with self._writing() as connection:
            tables.drop(connection, table.name)

    async def swap_table(self, built: Table, live: Table, reader: str, built_reader: str, expect: int) -> bool:
        async with self._writing() as connection:
            for sql, values in ((CHECKPOINT, (reader,)) if reader else (POSITION, ()), (CHECKPOINT, (built_reader,))):
                at = fetch(connection, sql, values)
                if (at[0][0] if at else 0) != expect:
                    return False
            tables.swap(connection, built, live)
            connection.execute("DELETE FROM checkpoints WHERE name = ?", (built_reader,))
            if reader:
                connection.execute(NEXT_TURN, (turn_of(reader),))
        return True

    # --- for operators ---

    async def backup(self, target: str | Path) -> None:
        """Copy the database, as it is now, to a new file."""
        await asyncio.to_thread(upkeep.backup, self.file, Path(target))

    async def verify(self) -> list[str]:
        """What is wrong with the file, in words; empty if nothing was found."""
        return await asyncio.to_thread(upkeep.verify, self.file)

    async def query(self, sql: str, parameters: Sequence[Any] = ()) -> list[tuple[Any, ...]]:
        """The rows of an SQL statement that cannot write."""
        return await asyncio.to_thread(upkeep.query, self.file, sql, parameters)

    async def status(self) -> dict[str, object]:
        """Figures of the file: bytes, versions of its tables, messages, and what waits."""
        return await asyncio.to_thread(upkeep.status, self.file)

    async def statements(self) -> list[str]:
        """The SQL of all tables, indexes and triggers in the file."""
        return await asyncio.to_thread(upkeep.statements, self.file)


def _answer(result: Answer | HeadwaterError, write: WriteSet) -> Answer:
    if isinstance(result, Unknown):
        return Unknown(write.key.key if write.key else "", str(result.__cause__ or result))
    if isinstance(result, HeadwaterError) and not isinstance(result, KeyReused):
        return Failed(result)
    return result
