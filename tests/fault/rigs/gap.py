"""`gap`: twelve processes append to PostgreSQL in transactions that end in another order than they began; a reader misses nothing.

Transactions sleep, are undone, or are prepared and ended later. One reader follows the log all the time, another is opened
anew again and again. A trial is an event; `--store` has it on a server that is there already.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager

import psycopg
from psycopg.sql import SQL, Literal

from headwater.adapters.postgres import PostgresDatabase
from headwater.clock import SystemClock
from headwater.database import Transaction
from headwater.message import Recorded
from headwater.testing.contracts.gap import WRITERS, Writer, Written, follow, wrong
from tests.fault.rigs.on_server import fresh_database
from tests.fault.rigs.racers import Racers
from tests.fault.rigs.trial import TrialResult
from tests.servers.postgres import run

COUNT = 100_000
STORES = True
EVENTS = 24_000
RENEWED = 0.3
"""Seconds after which the second reader is opened anew."""


def one_trial(seed: int, store: str = "", events: int = EVENTS) -> TrialResult:
    """Write so many events, on a server that is started for it if none is given, and look what the readers saw."""
    with fresh_database(store) as url:
        asyncio.run(_make(url))
        prepares = run(url, "SHOW max_prepared_transactions") != [("0",)]

        async def write(number: int, ready: Callable[[], object]) -> Written:
            async with _opened(url) as database:
                writer = Writer(database, f"{seed}.{number}", Prepared(url) if prepares else None)
                ready()
                return await writer.run(events // WRITERS)

        with Racers(WRITERS, write) as racers:
            seen = asyncio.run(_read(url, racers))
            written: list[Written] = racers.answers()
    ids = [mark for one in written for mark in one.ids]
    facts = {
        "undone": sum(one.undone for one in written),
        "prepared": sum(one.prepared for one in written),
        "positions that never came": seen[0][-1].position - len(ids),
    }
    return TrialResult(bool(ids), [line for one in seen for line in wrong(ids, one)], len(ids), facts)


class Prepared:
    """Prepared transactions of PostgreSQL."""

    def __init__(self, url: str) -> None:
        self._url = url

    def prepare(self, transaction: Transaction, name: str) -> None:
        """Prepare it: the connection is free for others then."""
        transaction.execute(f"PREPARE TRANSACTION '{name}'")

    async def end(self, name: str, *, commit: bool) -> None:
        """End it, on another connection."""
        word = SQL("COMMIT" if commit else "ROLLBACK")
        async with await psycopg.AsyncConnection.connect(self._url, autocommit=True) as connection:
            await connection.execute(SQL("{} PREPARED {}").format(word, Literal(name)))


async def _read(url: str, racers: Racers) -> list[list[Recorded]]:
    """What the two readers saw."""
    renewed = Renewed(url)
    try:
        async with _opened(url) as steady:
            return await asyncio.gather(*(follow(one, lambda: racers.done) for one in (steady, renewed)))
    finally:
        await renewed.close()


class Renewed:
    """A log that is read on a handle that is opened anew, again and again."""

    def __init__(self, url: str) -> None:
        self._url = url
        self._handle: PostgresDatabase | None = None
        self._until = 0.0

    async def read(self, after: int, limit: int) -> list[Recorded]:
        """Read on what is open now."""
        return await (await self._database()).read(after, limit)

    async def changed(self, after: int, timeout: float) -> bool:
        """Wait on what is open now."""
        return await (await self._database()).changed(after, timeout)

    async def close(self) -> None:
        """Close what is open."""
        if self._handle is not None:
            await self._handle.close()

    async def _database(self) -> PostgresDatabase:
        now = asyncio.get_running_loop().time()
        if self._handle is None or now > self._until:
            await self.close()
            self._handle, self._until = PostgresDatabase(self._url, SystemClock()), now + RENEWED
            await self._handle.open()
        return self._handle


async def _make(url: str) -> None:
    async with _opened(url):
        pass


@asynccontextmanager
async def _opened(url: str) -> AsyncIterator[PostgresDatabase]:
    database = PostgresDatabase(url, SystemClock())
    await database.open()
    try:
        yield database
    finally:
        await database.close()
