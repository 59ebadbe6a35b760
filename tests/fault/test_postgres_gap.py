"""A reader of the log on PostgreSQL misses nothing, whatever writers do; one that follows the highest position does."""

from __future__ import annotations

import asyncio
import random
import threading
import time
from collections.abc import Awaitable, Callable
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
from headwater.message import Recorded
from tests.servers.postgres import Databases, run

INSERT = """
INSERT INTO headwater.events (version, time, id, type_version, codec, kind, type, stream, data, meta)
SELECT coalesce(max(version), 0) + 1, 0, gen_random_uuid(), 1, 0, 'event', 't', %(s)s, '{}', '{}'
FROM headwater.events WHERE stream = %(s)s RETURNING position
"""
WRITERS = 12
SECONDS = 4.0

Read = Callable[[int, int], Awaitable[list[Recorded]]]


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


async def follow(read: Read, over: Callable[[], bool]) -> list[Recorded]:
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


def race(url: str, naive: bool) -> tuple[set[int], list[Recorded]]:
    """The positions that were committed, and what a reader saw meanwhile."""

    async def main() -> tuple[set[int], list[Recorded]]:
        database = PostgresDatabase(url, SystemClock())
        await database.open()

        async def read_naively(after: int, limit: int) -> list[Recorded]:
            (found,) = await database._open_pool.rows(Statement(FORWARDS, (after, limit)))
            return recorded(found)

        writers = await asyncio.to_thread(Writers, url)
        ended: list[bool] = []
        reading = asyncio.create_task(follow(read_naively if naive else database.read, lambda: bool(ended)))
        try:
            await asyncio.sleep(SECONDS)
        finally:
            await asyncio.to_thread(writers.end)
            ended.append(True)
        seen = await reading
        await database.close()
        return writers.committed, seen

    return asyncio.run(main())


def test_nothing_is_missed_and_streams_keep_their_order(postgres: Databases) -> None:
    committed, seen = race(postgres.make(), naive=False)
    positions = [one.position for one in seen]
    assert len(positions) > 500
    assert positions == sorted(committed)
    last: dict[str, int] = {}
    for one in seen:
        assert one.version == last.get(one.stream, 0) + 1
        last[one.stream] = one.version


def test_a_reader_that_follows_the_highest_position_fails_the_same(postgres: Databases) -> None:
    committed, seen = race(postgres.make(), naive=True)
    assert committed - {one.position for one in seen}


def test_who_writes_elsewhere_delays_nobody(postgres: Databases) -> None:
    url, other = postgres.make(), postgres.make()

    async def main() -> float:
        database = PostgresDatabase(url, SystemClock())
        await database.open()
        run(url, "CREATE TABLE unrelated (n integer)")
        with psycopg.connect(url) as here, psycopg.connect(other) as there:
            here.execute("INSERT INTO unrelated VALUES (1)")
            there.execute("CREATE TABLE unrelated (n integer)")
            with psycopg.connect(url) as undone:  # leaves a gap
                undone.execute(INSERT, {"s": "s/1"})
                undone.rollback()
            with psycopg.connect(url) as done:
                done.execute(INSERT, {"s": "s/1"})
            began = time.monotonic()
            assert await database.changed(0, 5.0)
            assert len(await database.read(0, 10)) == 1
            took = time.monotonic() - began
            here.rollback()
            there.rollback()
        await database.close()
        return took

    assert asyncio.run(main()) < 1.0


def test_what_is_open_is_waited_for_and_nothing_above_it_is_read(postgres: Databases) -> None:
    url = postgres.make()

    async def main() -> None:
        database = PostgresDatabase(url, SystemClock())
        await database.open()
        with psycopg.connect(url) as slow:
            slow.execute(INSERT, {"s": "s/slow"})
            with psycopg.connect(url) as quick:
                quick.execute(INSERT, {"s": "s/quick"})
            assert not await database.changed(0, 0.4)
            assert await database.read(0, 10) == []
            assert await database.head() == 0
            waiting = asyncio.create_task(database.changed(0, 10.0))
            await asyncio.sleep(0.05)
            slow.commit()
        assert await waiting
        assert [one.stream for one in await database.read(0, 10)] == ["s/slow", "s/quick"]
        await database.close()

    asyncio.run(main())


@pytest.mark.parametrize("ending", ["COMMIT", "ROLLBACK"])
def test_a_prepared_transaction_is_waited_for_though_it_has_no_process(postgres: Databases, ending: str) -> None:
    url = postgres.make()

    async def main() -> None:
        database = PostgresDatabase(url, SystemClock())
        await database.open()
        with closing(psycopg.connect(url, autocommit=True)) as one:
            one.execute("BEGIN")
            one.execute(INSERT, {"s": "s/prepared"})
            one.execute("PREPARE TRANSACTION 'p'")
        run(url, INSERT.replace("%(s)s", "'s/quick'"))
        assert not await database.changed(0, 0.4)
        run(url, f"{ending} PREPARED 'p'")
        assert await database.changed(0, 10.0)
        seen = [one.stream for one in await database.read(0, 10)]
        assert seen == (["s/prepared", "s/quick"] if ending == "COMMIT" else ["s/quick"])
        await database.close()

    asyncio.run(main())
