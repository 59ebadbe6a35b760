"""The PostgreSQL database keeps every promise of a database."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from headwater.adapters.postgres import PostgresDatabase
from headwater.database import Database
from headwater.testing.clock import VirtualClock
from headwater.testing.contracts.database import DatabaseContract
from tests.servers.postgres import Databases, commit_order


class TestPostgresDatabase(DatabaseContract):
    @pytest.fixture(autouse=True)
    def server(self, postgres: Databases) -> None:
        self.postgres = postgres

    async def make(self, tmp_path: Path, clock: VirtualClock) -> Database:
        database = PostgresDatabase(self.postgres.make(), clock)
        await database.open()
        return database

    async def reopen(self, database: Database) -> Database:
        assert isinstance(database, PostgresDatabase)
        await database.close()
        other = PostgresDatabase(database.url, database.clock)
        await other.open()
        return other

    async def open_beside(self, database: Database) -> Database:
        assert isinstance(database, PostgresDatabase)
        other = PostgresDatabase(database.url, database.clock)
        await other.open()
        return other

    async def commit_order(self, database: Database) -> dict[str, int] | None:
        assert isinstance(database, PostgresDatabase)
        return await commit_order(database)

    async def pass_time(self, clock: VirtualClock, seconds: float) -> None:
        await asyncio.sleep(seconds)

    async def journal_of(self, database: Database) -> list[tuple[str, str, int]]:
        assert isinstance(database, PostgresDatabase)
        return await database.query("SELECT consumer, stream, version FROM headwater.journal")
