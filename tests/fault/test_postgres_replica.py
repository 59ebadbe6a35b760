"""A reader on a replica misses nothing and writes nothing."""

from __future__ import annotations

import asyncio
import random
import threading
import time
from collections.abc import Awaitable, Callable, Iterator
from contextlib import closing

import psycopg
import pytest

from headwater.adapters.postgres import PostgresDatabase
from headwater.adapters.postgres.facts import LOCK
from headwater.adapters.postgres.horizon import FORWARDS
from headwater.adapters.postgres.rows import recorded
from headwater.adapters.postgres.schema import STREAMS
from headwater.adapters.postgres.statement import Statement
from headwater.clock import SystemClock
from headwater.database import Failed
from headwater.errors import DatabaseReadOnly, SchemaMismatch
from headwater.message import Recorded
from tests.fault.test_postgres_outages import appending, opened
from tests.servers.postgres import Databases, PostgresServer, run

INSERT = """
INSERT INTO headwater.events (version, time, id, type_version, codec, kind, type, stream, data, meta)
SELECT coalesce(max(version), 0) + 1, 0, gen_random_uuid(), 1, 0, 'event', 't', %(s)s, '{}', '{}'
FROM headwater.events WHERE stream = %(s)s RETURNING position
"""
WRITERS = 12
SECONDS = 4.0
CAUGHT_UP = "SELECT pg_last_wal_replay_lsn() >= %s::pg_lsn"


class Writers:
    """Threads that append to shared streams: slowly, with rollbacks, and with transactions that are prepared."""

    def __init__(self, url: str) -> None:
        self._url = url
        self._over = threading.Event()
        self._guard = threading.Lock()
        self.committed: set[int] = set()
        self._threads = [threading.Thread(target=self._write, args=(number,)) for number in range(WRITERS)]
        for thread in self._threads:
            thread.start()

    def end(self) -> None:
        self._over.set()
        for thread in self._threads:
            thread.join()

    def _write(self, number: int) -> None:
        chance = random.Random(number)
        with closing(psycopg.connect(self._url, autocommit=True)) as connection:
            while not self._over.is_set():
                self._transact(connection, chance, f"{number}-{chance.random()}")

    def _transact(self, connection: psycopg.Connection, chance: random.Random, name: str) -> None:
        connection.execute("BEGIN")
        buckets = sorted({chance.randrange(40) for _ in range(chance.choice((1, 1, 2)))})
        connection.execute(LOCK, (STREAMS, buckets))
        found = set()
        for bucket in buckets:
            found.add(connection.execute(INSERT, {"s": f"s/{bucket}"}).fetchone()[0])  # type: ignore[index]
            if chance.random() < 0.2:
                time.sleep(chance.random() * 0.05)
        ending = chance.random()
        if ending < 0.1:
            connection.execute("ROLLBACK")
            return
        if ending < 0.2:
            connection.execute(f"PREPARE TRANSACTION '{name}'")
            time.sleep(chance.random() * 0.02)
            connection.execute(f"COMMIT PREPARED '{name}'")
        else:
            connection.execute("COMMIT")
        with self._guard:
            self.committed |= found


async def follow(read: Callable[[int, int], Awaitable[list[Recorded]]], over: Callable[[], bool]) -> list[Recorded]:
    """All that a reader sees that goes on from the last position it saw."""
    seen: list[Recorded] = []
    while True:
        ended = over()
        page = await read(seen[-1].position if seen else 0, 100)
        seen += page
        if not page:
            if ended:
                return seen
            await asyncio.sleep(0.002)


@pytest.fixture(scope="module")
def pair(postgres_server: Databases) -> Iterator[tuple[PostgresServer, PostgresServer]]:
    """A primary and its replica."""
    primary = PostgresServer.make()
    primary.start()
    replica = primary.replica()
    replica.start()
    yield primary, replica
    replica.remove()
    primary.remove()


def caught_up(primary: str, replica: str) -> None:
    """Wait until the replica has what the primary has now."""
    ((now,),) = run(primary, "SELECT pg_current_wal_insert_lsn()")
    end = time.monotonic() + 20
    while run(replica, CAUGHT_UP, now) != [(True,)]:
        assert time.monotonic() < end
        time.sleep(0.02)


def made(pair: tuple[PostgresServer, PostgresServer], name: str) -> tuple[str, str]:
    """The URLs of a new database on both."""
    run(pair[0].url("postgres"), f"CREATE DATABASE {name}")
    urls = pair[0].url(name), pair[1].url(name)
    caught_up(pair[0].url("postgres"), pair[1].url("postgres"))
    return urls


async def raced(urls: tuple[str, str], naive: bool) -> tuple[set[int], list[Recorded]]:
    """The positions that were committed at the primary, and what a reader at the replica saw meanwhile."""
    async with opened(urls[0]) as primary:
        caught_up(*urls)
        async with opened(urls[1]) as replica:

            async def read_naively(after: int, limit: int) -> list[Recorded]:
                (found,) = await replica._open_pool.rows(Statement(FORWARDS, (after, limit)))
                return recorded(found)

            writers = await asyncio.to_thread(Writers, urls[0])
            ended: list[bool] = []
            reading = asyncio.create_task(follow(read_naively if naive else replica.read, lambda: bool(ended)))
            try:
                end = time.monotonic() + SECONDS
                while time.monotonic() < end:
                    await primary.commit([appending()])
                    await asyncio.sleep(0.05)
            finally:
                await asyncio.to_thread(writers.end)
            await primary.close()  # which leaves the mark where the log ends
            await asyncio.to_thread(caught_up, *urls)
            ended.append(True)
            return {position for (position,) in run(urls[0], "SELECT position FROM headwater.events")}, await reading


def test_a_reader_on_a_replica_misses_nothing(pair: tuple[PostgresServer, PostgresServer]) -> None:
    committed, seen = asyncio.run(raced(made(pair, "careful"), naive=False))
    assert len(seen) > 300
    assert [one.position for one in seen] == sorted(committed)


def test_a_reader_on_a_replica_that_follows_the_highest_position_fails_the_same(
    pair: tuple[PostgresServer, PostgresServer],
) -> None:
    committed, seen = asyncio.run(raced(made(pair, "naive"), naive=True))
    assert committed - {one.position for one in seen}


def test_a_replica_is_only_read_and_wakes_who_waits(pair: tuple[PostgresServer, PostgresServer]) -> None:
    urls = made(pair, "bank")

    async def main() -> None:
        with pytest.raises(SchemaMismatch, match="open its primary first"):
            await PostgresDatabase(urls[1], SystemClock()).open()
        async with opened(urls[0]) as primary:
            caught_up(*urls)
            async with opened(urls[1]) as replica:
                waiting = asyncio.create_task(replica.changed(0, 20.0))
                await primary.commit([appending()])
                assert await waiting
                assert await replica.read(0, 10) == await primary.read(0, 10)
                (answer,) = await replica.commit([appending()])
                assert isinstance(answer, Failed)
                assert isinstance(answer.error, DatabaseReadOnly)
                with pytest.raises(DatabaseReadOnly, match="name the primary"):
                    await replica.acquire("relay", "one")
                with pytest.raises(DatabaseReadOnly, match="name the primary"):
                    async with replica.transaction():
                        pass
                assert await replica.verify() == []

    asyncio.run(main())
