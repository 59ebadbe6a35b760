"""The SQLite database keeps every promise of a database."""

from __future__ import annotations

import asyncio
from pathlib import Path

from headwater.adapters.sqlite import SqliteDatabase
from headwater.database import Database
from headwater.testing.clock import VirtualClock
from headwater.testing.contracts.database import DatabaseContract


class TestSqliteDatabase(DatabaseContract):
    async def make(self, tmp_path: Path, clock: VirtualClock) -> Database:
        database = SqliteDatabase(tmp_path / "bank.db", clock)
        await database.open()
        return database

    async def reopen(self, database: Database) -> Database:
        assert isinstance(database, SqliteDatabase)
        await database.close()
        other = SqliteDatabase(database.file.path, database.clock)
        await other.open()
        return other

    async def open_beside(self, database: Database) -> Database:
        assert isinstance(database, SqliteDatabase)
        other = SqliteDatabase(database.file.path, database.clock)
        await other.open()
        return other

    async def commit_order(self, database: Database) -> dict[str, int]:
        return {one.id: one.position for one in await database.read(0, 10_000)}

    async def pass_time(self, clock: VirtualClock, seconds: float) -> None:
        await asyncio.sleep(seconds)

    async def journal_of(self, database: Database) -> list[tuple[str, str, int]]:
        assert isinstance(database, SqliteDatabase)
        return await database.query("SELECT consumer, stream, version FROM journal")
