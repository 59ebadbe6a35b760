"""The memory database keeps every promise of a database."""

from __future__ import annotations

from pathlib import Path

from headwater.adapters.memory import MemoryDatabase
from headwater.adapters.memory.writing import JOURNAL
from headwater.database import Database
from headwater.testing.clock import VirtualClock
from headwater.testing.contracts.database import DatabaseContract


class TestMemoryDatabase(DatabaseContract):
    async def make(self, tmp_path: Path, clock: VirtualClock) -> Database:
        database = MemoryDatabase(clock)
        await database.open()
        return database

    async def reopen(self, database: Database) -> Database:
        assert isinstance(database, MemoryDatabase)
        database.crash()
        other = MemoryDatabase(database.clock, database.file)
        await other.open()
        return other

    async def open_beside(self, database: Database) -> Database:
        assert isinstance(database, MemoryDatabase)
        other = MemoryDatabase(database.clock, database.file)
        await other.open()
        return other

    async def commit_order(self, database: Database) -> dict[str, int]:
        return {one.id: one.position for one in await database.read(0, 10_000)}

    async def journal_of(self, database: Database) -> list[tuple[str, str, int]]:
        assert isinstance(database, MemoryDatabase)
        return [line for line, count in database.file.table(JOURNAL).items() for _ in range(count)]
