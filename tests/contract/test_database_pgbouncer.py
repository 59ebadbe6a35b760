"""The PostgreSQL database keeps its promises through a pooler that gives every transaction another session."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import urlsplit

import pytest

from headwater.adapters.postgres import PostgresChannel, PostgresDatabase
from headwater.clock import SystemClock
from headwater.database import Database
from headwater.errors import ConfigurationError
from headwater.testing.clock import VirtualClock
from headwater.testing.contracts.database import DatabaseContract
from tests.servers.pgbouncer import install, pgbouncer
from tests.servers.postgres import Databases, Unavailable


@pytest.fixture
def pooler(postgres_server: Databases) -> Iterator[str]:
    """The place of a pooler before the server, new for each test: Debian's dies now and then after a hundred."""
    try:
        install()
        with pgbouncer(postgres_server.url("postgres")) as url:
            yield urlsplit(url).netloc
    except Unavailable as error:
        pytest.skip(str(error))


class TestPooledDatabase(DatabaseContract):
    @pytest.fixture(autouse=True)
    def server(self, postgres: Databases, pooler: str) -> None:
        self.postgres = postgres
        self.pooler = pooler

    async def make(self, tmp_path: Path, clock: VirtualClock) -> Database:
        url = urlsplit(self.postgres.make())._replace(netloc=self.pooler, query="pooler=transaction").geturl()
        database = PostgresDatabase(url, clock)
        await database.open()
        return database

    async def reopen(self, database: Database) -> Database:
        assert isinstance(database, PostgresDatabase)
        await database.close()
        other = PostgresDatabase(database.url, database.clock)
        await other.open()
        return other

    async def pass_time(self, clock: VirtualClock, seconds: float) -> None:
        await asyncio.sleep(seconds)


def test_a_channel_wants_sessions_of_its_own() -> None:
    with pytest.raises(ConfigurationError, match="sessions of its own"):
        PostgresChannel("postgresql://ada@localhost/bank?pooler=transaction", SystemClock())


def test_other_poolers_are_refused() -> None:
    with pytest.raises(ConfigurationError, match="pooler=transaction"):
        PostgresDatabase("postgresql://ada@localhost/bank?pooler=statement", SystemClock())
