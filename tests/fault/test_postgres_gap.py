"""Whom a reader of the log on PostgreSQL waits for; that it misses nothing, the rig `gap` shows."""

from __future__ import annotations

import asyncio
import time
from contextlib import closing

import psycopg
import pytest

from headwater.adapters.postgres import PostgresDatabase
from headwater.clock import SystemClock
from tests.servers.postgres import Databases, run

INSERT = """
INSERT INTO headwater.events (version, time, id, type_version, codec, kind, type, stream, data, meta)
SELECT coalesce(max(version), 0) + 1, 0, gen_random_uuid(), 1, 0, 'event', 't', %(s)s, '{}', '{}'
FROM headwater.events WHERE stream = %(s)s RETURNING position
"""


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
