"""A service's database on a PostgreSQL server, shared by the processes of many machines."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, Final, NamedTuple

from headwater import fault
from headwater.adapters.postgres import tables, upkeep
from headwater.adapters.postgres.bell import Bell
from headwater.adapters.postgres.facts import POSITION, columns
from headwater.adapters.postgres.horizon import Horizon
from headwater.adapters.postgres.lease import LeaseHolder, present
from headwater.adapters.postgres.migrations import checking, migrating
from headwater.adapters.postgres.pasts import Pasts
from headwater.adapters.postgres.reads import Reads
from headwater.adapters.postgres.relevant import Together
from headwater.adapters.postgres.replica import Published, Publisher
from headwater.adapters.postgres.rows import as_text
from headwater.adapters.postgres.schema import COMPONENT, FENCE, MIGRATIONS, TABLES
from headwater.adapters.postgres.server import Pool, Server
from headwater.adapters.postgres.statement import Plan, Statement
from headwater.adapters.postgres.transaction import Desk, PostgresTransaction
from headwater.adapters.postgres.url import Place
from headwater.adapters.postgres.wake import Wake
from headwater.adapters.postgres.writer import Writer
from headwater.checkpoint import Consuming
from headwater.clock import Clock
from headwater.database import Answer, Capabilities, InlineFold, WriteSet
from headwater.errors import ConfigurationError, DatabaseError
from headwater.lease import Lease
from headwater.table import Table, turn_of
from headwater.telemetry import signal

SERVER: Final = Statement("SELECT pg_is_in_recovery(), (extract(epoch FROM clock_timestamp()) * 1000000)::bigint")
OFF: Final = 60.0
"""Seconds between the server's clock and ours that are worth a word: timers and delays go by ours, leases by the server's."""
PROCESSES: Final = 2**31 - 2
LOCK_TABLES: Final = Statement("SELECT pg_advisory_xact_lock(%s, %s)", TABLES)
LOCK_LOG: Final = Statement("SELECT pg_advisory_xact_lock(%s, %s)", FENCE)
"""All who append have ended, and the next wait: the log ends where it ends."""
BEGINNING: Final = "INSERT INTO headwater.checkpoints VALUES (%s, 0) ON CONFLICT DO NOTHING"
"""There is a row to lock, also of a reader that has not read yet: its first batch would pass by."""
CHECKPOINT: Final = "SELECT position FROM headwater.checkpoints WHERE name = %s FOR UPDATE"
FORGET_CHECKPOINT: Final = "DELETE FROM headwater.checkpoints WHERE name = %s"
NEXT_TURN: Final = """
INSERT INTO headwater.checkpoints AS c VALUES (%s, 1) ON CONFLICT (name) DO UPDATE SET position = c.position + 1
"""
FORGET_CONSUMERS: Final = Statement("DELETE FROM headwater.consumers")
CONSUMERS: Final = """
INSERT INTO headwater.consumers SELECT * FROM unnest(%s::integer[], %s::text[], %s::text[], %s::text[], %s::text[])
"""
FORGET_KEYS: Final = """
WITH old AS (SELECT ctid FROM headwater.command_keys WHERE time < %s LIMIT 10000),
gone AS (DELETE FROM headwater.command_keys USING old WHERE command_keys.ctid = old.ctid RETURNING 1)
SELECT count(*) FROM gone
"""


class Parts(NamedTuple):
    """What an open database runs."""

    writer: Writer
    bell: Bell
    wake: Wake
    publisher: Publisher | None
    leases: LeaseHolder
    desk: Desk


class PostgresDatabase(Reads):
    """The database that `url` names; `open` it before use, in the loop that uses it, and `close` it. Injected: the clock."""

    capabilities = Capabilities(sql=True, durable=True)

    def __init__(self, url: str, clock: Clock) -> None:
        self.clock = clock
        self.url = url
        self.server = Server(Place(url))
        self._folds: Sequence[InlineFold] = ()
        self._parts: Parts | None = None

    @classmethod
    def from_url(cls, url: str, clock: Clock) -> PostgresDatabase:
        """The database of `postgresql://user@host:port/database`."""
        return cls(url, clock)

    async def open(self, *, upgrade: bool = False) -> None:
        """Make our tables if they are missing; `upgrade` those that an older Headwater made."""
        if self._parts is not None:
            return
        pool = Pool(self.server, self._lost)
        try:
            self._horizon = horizon = await self._prepared(pool, upgrade)
            await horizon.look()
        except BaseException:
            await pool.close()
            raise
        self._pool, self._together = pool, Together(pool)
        self._pasts = Pasts(pool)
        process = 0 if self.server.place.pooled else 1 + int(self.clock.random() * PROCESSES)
        bell = Bell(pool, "headwater", present(process), mute=isinstance(horizon, Published))
        wake = Wake(bell, horizon)
        writer = Writer(self.server, pool.turn, wake.hint)
        writer.folds = self._folds
        publisher = Publisher(pool, bell, horizon) if isinstance(horizon, Horizon) else None
        self._parts = Parts(writer, bell, wake, publisher, LeaseHolder(pool, bell, process), Desk(self.server))
        signal("database.opened", store=self.server.place.name)

    async def _prepared(self, pool: Pool, upgrade: bool) -> Horizon | Published:
        """The horizon of a database whose tables are there; a replica is only read."""
        ((replica, now),) = (await pool.rows(SERVER))[0]
        off = (self.clock.now() - now) / 1_000_000
        if abs(off) > OFF:
            signal("database.clock", logging.WARNING, store=self.server.place.name, seconds=round(off))
        if replica:
            await pool.ask(checking(self.server.place.name, COMPONENT, MIGRATIONS))
            return Published(pool)
        if await pool.settle(lambda: self._migrating(upgrade)):
            fault.point("migration.committed")
        return Horizon(pool)

    async def close(self) -> None:
        if self._parts is None or self._pool is None:
            return
        parts, self._parts = self._parts, None
        await parts.leases.close()
        await parts.writer.close()
        await parts.wake.close()
        if parts.publisher is not None:
            await parts.publisher.close()
        await parts.bell.close()
        parts.desk.close()
        await self._pool.close()
        self._pool = self._horizon = self._together = self._pasts = None

    def _migrating(self, upgrade: bool) -> Plan[bool]:
        return migrating(self.server.place.name, COMPONENT, MIGRATIONS, self.clock.now(), upgrade=upgrade)

    def _lost(self) -> None:
        if self._horizon is not None:
            self._horizon.forget()

    @property
    def _open_parts(self) -> Parts:
        if self._parts is None:
            raise DatabaseError("the database is not open")
        return self._parts

    # --- writes ---

    async def commit(self, writes: Sequence[WriteSet]) -> list[Answer]:
        return await self._open_parts.writer.submit(writes) if writes else []

    @asynccontextmanager
    async def transaction(self) -> AsyncIterator[PostgresTransaction]:
        parts = self._open_parts
        async with parts.writer.exclusive(), parts.desk.transaction(self._folds) as transaction:
            yield transaction
        parts.wake.hint()

    def fold_inline(self, folds: Sequence[InlineFold]) -> None:
        self._folds = tuple(folds)
        if self._parts is not None:
            self._parts.writer.folds = self._folds

    async def changed(self, after: int, timeout: float) -> bool:
        return await self._open_parts.wake.wait(after, timeout)

    async def acquire(self, name: str, owner: str, ttl: float = 10.0) -> Lease | None:
        return await self._open_parts.leases.acquire(name, owner, ttl)

    async def register(self, consumers: Sequence[Consuming]) -> None:
        await self._open_pool.settle(lambda: _registering(consumers))

    async def forget_keys(self, before: int) -> int:
        forgotten = 0
        while True:
            ((gone,),) = await self._rows(FORGET_KEYS, (before,))
            if not gone:
                return forgotten
            forgotten += gone

    async def create_table(self, table: Table) -> None:
        await self._open_pool.settle(lambda: _locked(tables.creating(table)))

    async def drop_table(self, table: Table) -> None:
        await self._open_pool.settle(lambda: _locked(tables.dropping(table.name)))

    async def swap_table(self, built: Table, live: Table, reader: str, built_reader: str, expect: int) -> bool:
        return await self._open_pool.transact(_swapping(built, live, reader, built_reader, expect))

    # --- for operators ---

    async def backup(self, target: str | Path) -> None:
        """Refused: a server has better means."""
        raise ConfigurationError(
            f"back {self.server.place.name} up with the server's own means: pg_dump, or pg_basebackup"
        )

    async def verify(self) -> list[str]:
        """What is wrong with the log, in words; empty if nothing was found."""
        return await asyncio.to_thread(upkeep.verify, self.server)

    async def query(self, sql: str, parameters: Sequence[Any] = ()) -> list[tuple[Any, ...]]:
        """The rows of an SQL statement that cannot write; its parameters are `$1`, `$2` and so on."""
        return await asyncio.to_thread(upkeep.query, self.server, sql, parameters)

    async def status(self) -> dict[str, object]:
        """Figures of the database: bytes, versions of its tables, messages, and what waits."""
        return await asyncio.to_thread(upkeep.status, self.server)

    async def statements(self) -> list[str]:
        """The SQL that makes our tables, for whoever may make them."""
        return upkeep.statements()


def _locked(plan: Plan[None]) -> Plan[None]:
    yield [LOCK_TABLES]
    yield from plan


def _registering(consumers: Sequence[Consuming]) -> Plan[None]:
    lines = [(place, one.name, one.source, one.kind, as_text(one.topics)) for place, one in enumerate(consumers)]
    yield [LOCK_TABLES, FORGET_CONSUMERS, *([Statement(CONSUMERS, columns(lines))] if lines else [])]


def _swapping(built: Table, live: Table, reader: str, built_reader: str, expect: int) -> Plan[bool]:
    yield [LOCK_TABLES, Statement(BEGINNING, (reader,)) if reader else LOCK_LOG]
    at = yield [
        Statement(CHECKPOINT, (reader,)) if reader else Statement(POSITION),
        Statement(CHECKPOINT, (built_reader,)),
    ]
    if [found[0][0] if found else 0 for found in at] != [expect, expect]:
        return False
    yield from tables.swapping(built, live)
    turn = [Statement(NEXT_TURN, (turn_of(reader),))] if reader else []
    yield [Statement(FORGET_CHECKPOINT, (built_reader,)), *turn]
    return True
