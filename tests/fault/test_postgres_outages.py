"""What is answered holds, and what is not is asked for: servers that restart or die, connections cut at any moment."""

from __future__ import annotations

import asyncio
import random
import signal
import subprocess
import sys
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import psycopg
import pytest

from headwater.adapters.postgres import PostgresDatabase
from headwater.adapters.postgres.connection import Connection
from headwater.adapters.postgres.server import COMMIT
from headwater.clock import SystemClock
from headwater.database import Collision, Failed, WriteSet
from headwater.errors import DatabaseError, Unknown
from headwater.inbox import Mark
from headwater.lease import Fence
from headwater.message import JSON, Draft
from headwater.store import ANY, Append, CommandKey, Committed
from tests.servers.postgres import Databases, PostgresServer, run
from tests.servers.proxy import Proxy

CLOCK = SystemClock()


def appending(stream: str = "bank.Account/a", expect: int = ANY, name: str = "", **parts: Any) -> WriteSet:
    draft = Draft("event", CLOCK.new_id(), "bank.Paid", 1, JSON, 1, name.encode() or b"{}", b"{}")
    key = CommandKey("", name, b"h", 1) if name else None
    return WriteSet(appends=[Append(stream, expect, [draft])], key=key, **parts)


@asynccontextmanager
async def opened(url: str) -> AsyncIterator[PostgresDatabase]:
    database = PostgresDatabase(url, CLOCK)
    await database.open()
    try:
        yield database
    finally:
        await database.close()


# --- a connection that is lost at COMMIT ---


def cut_at_commit(monkeypatch: pytest.MonkeyPatch, *, after: bool) -> list[int]:
    """Lose the writer's connection at its next COMMIT, before it is sent or after it is done; counts the commits tried."""
    tried: list[int] = []

    exchange = Connection.exchange

    async def lost(connection: Connection, statements: Any) -> Any:
        if statements[-1] is not COMMIT or tried:
            return await exchange(connection, statements)
        tried.append(1)
        if after:
            await exchange(connection, statements)
        await connection.close()
        raise psycopg.OperationalError("the connection is lost")

    monkeypatch.setattr(Connection, "exchange", lost)
    return tried


@pytest.mark.parametrize("after", [True, False])
def test_a_commit_that_was_cut_is_asked_for_and_never_repeated_blindly(
    postgres: Databases, monkeypatch: pytest.MonkeyPatch, after: bool
) -> None:
    async def main() -> None:
        async with opened(postgres.make()) as database:
            await database.commit([appending()])
            tried = cut_at_commit(monkeypatch, after=after)
            sets = [appending(), appending(name="k"), appending("bank.Account/b"), appending(expect=7)]
            answers = await database.commit(sets)
            assert tried == [1]
            assert [type(one) for one in answers] == [Committed, Committed, Committed, Collision]
            log = await database.read(0, 10)
            assert [(one.stream[-1], one.version) for one in log] == [("a", 1), ("a", 2), ("a", 3), ("b", 1)]
            assert [one.position for one in log[1:]] == [
                one.position for one in answers[:3] if isinstance(one, Committed)
            ]
            (again,) = await database.commit([sets[1]])
            assert again == Committed(log[2].position, 3, repeated=True)

    asyncio.run(main())


def test_a_cut_commit_that_leaves_no_trace_in_the_log_is_unknown(
    postgres: Databases, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def main() -> None:
        async with opened(postgres.make()) as database:
            cut_at_commit(monkeypatch, after=True)
            (answer,) = await database.commit([WriteSet(marks=[Mark("mail", "a", 1, 0)])])
            assert isinstance(answer, Unknown)
            assert await database.marks("mail", ["a"]) == {"a": 1}

    asyncio.run(main())


def test_of_commands_sent_through_cuts_none_is_lost_or_doubled(postgres: Databases) -> None:
    chance = random.Random(5)

    async def main() -> None:
        direct = postgres.make()
        proxy = Proxy(direct)
        done: list[str] = []
        over = asyncio.Event()

        async def send(database: PostgresDatabase, worker: int) -> None:
            number = 0
            while not over.is_set():
                name = f"{worker}-{number}"
                one = appending(f"bank.Account/{worker}", name=name)
                while not isinstance((await database.commit([one]))[0], Committed):
                    await asyncio.sleep(0.01)
                done.append(name)
                number += 1

        async def cut() -> None:
            end = time.monotonic() + 5.0
            while time.monotonic() < end:
                await asyncio.sleep(chance.random() * 0.06)
                proxy.cut()
            over.set()

        with proxy:
            async with opened(proxy.url) as database:
                await asyncio.gather(cut(), *(send(database, worker) for worker in range(8)))
        log = run(direct, "SELECT convert_from(data, 'utf8'), version, stream FROM headwater.events")
        assert proxy.cuts > 100
        assert len(done) > 200
        assert sorted(name for name, _, _ in log) == sorted(done)

    asyncio.run(main())


def test_a_backend_that_is_terminated_is_replaced(postgres: Databases) -> None:
    async def main() -> None:
        url = postgres.make()
        name = url.rpartition("/")[2]
        terminate = "SELECT count(pg_terminate_backend(pid)) FROM pg_stat_activity WHERE datname = %s"
        async with opened(url) as database:
            for number in range(1, 6):
                assert isinstance((await database.commit([appending()]))[0], Committed)
                async with database.transaction() as transaction:
                    transaction.write([appending("bank.Account/b")])
                assert await asyncio.to_thread(postgres.run, terminate, name) != [(0,)]
                assert await database.head() == 2 * number
            waiting = asyncio.create_task(database.changed(10, 10.0))
            await database.commit([appending()])
            assert await waiting

    asyncio.run(main())


def test_a_transaction_whose_connection_is_lost_is_undone(postgres: Databases) -> None:
    async def main() -> None:
        async with opened(postgres.make()) as database:
            with pytest.raises(DatabaseError):
                async with database.transaction() as transaction:
                    transaction.write([appending()])
                    (pid,) = transaction.execute("SELECT pg_backend_pid()")[0]
                    await asyncio.to_thread(postgres.run, "SELECT pg_terminate_backend(%s)", pid)
                    transaction.execute("SELECT 1")
            async with database.transaction() as transaction:
                transaction.write([appending()])
            assert [one.version for one in await database.read(0, 10)] == [1]

    asyncio.run(main())


# --- a server that dies ---


def test_what_was_answered_outlives_the_death_of_the_server(postgres: Databases) -> None:
    own = PostgresServer.make()
    own.start()

    async def main() -> None:
        answered: list[str] = []
        over = asyncio.Event()

        async def send(database: PostgresDatabase, worker: int) -> None:
            number = 0
            while not over.is_set():
                name = f"{worker}-{number}"
                (answer,) = await database.commit([appending(f"bank.Account/{worker}", name=name)])
                if isinstance(answer, Committed):
                    answered.append(name)
                    number += 1
                else:
                    assert isinstance(answer, Unknown) or (isinstance(answer, Failed) and answer.error.retryable)
                    await asyncio.sleep(0.02)

        async with opened(own.url("postgres")) as database:
            sending = [asyncio.create_task(send(database, worker)) for worker in range(8)]
            for turn in range(3):
                await asyncio.sleep(0.7)
                await asyncio.to_thread(own.kill if turn else own.stop)
                before = len(answered)
                await asyncio.to_thread(own.restart)
                deadline = time.monotonic() + 20
                while len(answered) <= before + 50 and time.monotonic() < deadline:
                    await asyncio.sleep(0.02)
                assert len(answered) > before + 50
            over.set()
            await asyncio.gather(*sending)
            assert await database.changed(0, 1.0)
            assert await database.verify() == []
        stored = [
            name for (name,) in run(own.url("postgres"), "SELECT convert_from(data, 'utf8') FROM headwater.events")
        ]
        assert sorted(stored) == sorted(answered)

    try:
        asyncio.run(main())
    finally:
        own.remove()


def test_while_the_server_is_away_every_call_says_so_and_may_be_tried_again(postgres: Databases) -> None:
    own = PostgresServer.make()
    own.start()

    async def main() -> None:
        async with opened(own.url("postgres")) as database:
            await database.commit([appending()])
            lease = await database.acquire("relay", "one", 2.0)
            assert lease is not None
            own.stop()
            (answer,) = await database.commit([appending()])
            assert isinstance(answer, Failed)
            assert answer.error.retryable
            assert "cannot be reached" in str(answer.error)
            with pytest.raises(DatabaseError):
                await database.read(0, 10)
            with pytest.raises(DatabaseError):
                async with database.transaction():
                    pass
            await asyncio.sleep(2.2)
            assert not lease.held
            own.restart()
            assert isinstance((await database.commit([appending()]))[0], Committed)
            assert await database.head() >= 2

    try:
        asyncio.run(main())
    finally:
        own.remove()


# --- leases between processes ---

HOLDER = """
import asyncio, sys
from headwater.adapters.postgres import PostgresDatabase
from headwater.clock import SystemClock

async def main():
    database = PostgresDatabase(sys.argv[1], SystemClock())
    await database.open()
    lease = await database.acquire("relay", "child", float(sys.argv[2]))
    print(lease.epoch, flush=True)
    while True:
        await asyncio.sleep(0.1)

asyncio.run(main())
"""


def start_holder(url: str, ttl: float) -> subprocess.Popen[str]:
    return subprocess.Popen([sys.executable, "-c", HOLDER, url, str(ttl)], stdout=subprocess.PIPE, text=True)


@pytest.mark.parametrize(("how", "ttl"), [(signal.SIGKILL, 600.0), (signal.SIGSTOP, 1.0)])
def test_the_lease_of_a_process_that_is_killed_is_another_s_at_once_of_one_that_is_stopped_in_time(
    postgres: Databases, how: signal.Signals, ttl: float
) -> None:
    url = postgres.make()

    async def main() -> None:
        async with opened(url) as database:
            child = start_holder(url, ttl)
            try:
                assert child.stdout is not None
                epoch = int(await asyncio.to_thread(child.stdout.readline))
                await asyncio.sleep(1.5)
                assert await database.acquire("relay", "other", 1.0) is None
                child.send_signal(how)
                lease = None
                deadline = time.monotonic() + 10
                while lease is None and time.monotonic() < deadline:
                    lease = await database.acquire("relay", "other", 1.0)
                    await asyncio.sleep(0.05)
                assert lease is not None
                assert lease.epoch == epoch + 1
                late, own = await database.commit(
                    [appending(fence=Fence("relay", epoch)), appending(fence=Fence("relay", lease.epoch))]
                )
                assert (type(late), type(own)) == (Collision, Committed)
            finally:
                child.kill()
                child.communicate()

    asyncio.run(main())


def test_a_lease_is_not_taken_over_while_a_write_under_it_is_open(postgres: Databases) -> None:
    async def main() -> None:
        url = postgres.make()
        async with opened(url) as old, opened(url) as new:
            lease = await old.acquire("relay", "one", 0.4)
            assert lease is not None
            async with old.transaction() as transaction:
                (answer,) = transaction.write([appending(fence=Fence("relay", lease.epoch))])
                assert isinstance(answer, Committed)
                await lease.release()
                taking = asyncio.create_task(new.acquire("relay", "two", 0.4))
                await asyncio.sleep(0.2)
                assert not taking.done()
            taken = await taking
            assert taken is not None
            assert taken.epoch == lease.epoch + 1

    asyncio.run(main())


def test_a_transaction_that_blocks_the_loop_never_waits_for_one_that_waits_for_the_loop(
    postgres: Databases, monkeypatch: pytest.MonkeyPatch
) -> None:
    exchange = Connection.exchange

    async def slow(*given: Any) -> Any:
        await asyncio.sleep(0.05)
        return await exchange(*given)

    async def main() -> None:
        async with opened(postgres.make()) as database:
            lease = await database.acquire("relay", "one", 60.0)
            assert lease is not None
            monkeypatch.setattr(Connection, "exchange", slow)
            taking = asyncio.create_task(database.acquire("relay", "one", 60.0))
            await asyncio.sleep(0.12)  # it holds the lock of the lease
            async with database.transaction() as transaction:
                assert taking.done()
                (answer,) = transaction.write([appending(fence=Fence("relay", lease.epoch + 1))])
            assert isinstance(answer, Committed)

    asyncio.run(main())


STOPPED = """
import asyncio, os, signal, sys
sys.path.insert(0, sys.argv[2])
from tests.fault.test_postgres_outages import CLOCK, PostgresDatabase, appending

async def main():
    database = PostgresDatabase(sys.argv[1], CLOCK)
    await database.open()
    async with database.transaction() as transaction:
        transaction.write([appending()])
        print("in it", flush=True)
        os.kill(os.getpid(), signal.SIGSTOP)

asyncio.run(main())
"""


def start_stopped(url: str) -> subprocess.Popen[str]:
    root = str(Path(__file__).parents[2])
    return subprocess.Popen([sys.executable, "-c", STOPPED, url, root], stdout=subprocess.PIPE, text=True)


def test_who_is_stopped_within_a_transaction_holds_nobody_up_for_good(postgres: Databases) -> None:
    url = postgres.make()

    async def main() -> None:
        async with opened(url) as database:
            child = start_stopped(f"{url}?options=-c%20idle_in_transaction_session_timeout%3D1500")
            try:
                assert child.stdout is not None
                assert await asyncio.to_thread(child.stdout.readline) == "in it\n"
                await database.commit([appending("bank.Account/b")])
                assert not await database.changed(0, 0.3)
                assert isinstance((await database.commit([appending()]))[0], Committed)
                assert await database.changed(0, 10.0)
                assert [one.stream[-1] for one in await database.read(0, 10)] == ["b", "a"]
            finally:
                child.kill()
                child.communicate()

    asyncio.run(main())


# --- processes side by side ---


def test_databases_side_by_side_fold_and_move_without_losing_anything(postgres: Databases) -> None:
    from headwater.database import InlineFold
    from headwater.testing.contracts.database.tables import count_fold, count_keys
    from headwater.testing.contracts.database.values import TOTALS

    async def main() -> None:
        url = postgres.make()
        async with opened(url) as one, opened(url) as two, opened(url) as three:
            await one.create_table(TOTALS)
            moved = 0

            async def work(database: PostgresDatabase, worker: int) -> None:
                nonlocal moved
                for number in range(40):
                    (answer,) = await database.commit(
                        [appending(f"bank.Account/{number % 3}", name=f"{worker}-{number}")]
                    )
                    assert isinstance(answer, Committed), answer
                    while True:
                        at = (await database.marks("mail", ["s"])).get("s", 0)
                        (answer,) = await database.commit([WriteSet(marks=[Mark("mail", "s", at + 1, at)])])
                        assert isinstance(answer, Committed | Collision), answer
                        if isinstance(answer, Committed):
                            moved += 1
                            break

            for database in (one, two, three):
                database.fold_inline([InlineFold(TOTALS, count_keys, count_fold)])
            await asyncio.gather(*(work(database, place) for place, database in enumerate((one, two, three, one, two))))
            counts = dict(await one.find(TOTALS, {}, 10))
            assert sum(counts.values()) == 200
            assert await one.marks("mail", ["s"]) == {"s": moved} == {"s": 200}
            assert [row.version for row in await one.read_stream("bank.Account/0", 0, 1000)] == list(
                range(1, counts["bank.Account/0"] + 1)
            )

    asyncio.run(main())
