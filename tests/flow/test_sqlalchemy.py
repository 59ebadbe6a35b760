"""Events appended within a SQLAlchemy transaction: rows and events stand together or fall together, on both stores."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Callable
from pathlib import Path

import pytest
from sqlalchemy import create_engine, select
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncSession
from sqlalchemy.orm import Session

from headwater import (
    App,
    Conflict,
    Event,
    KeyReused,
    Metadata,
    Recorded,
)
from headwater.adapters.memory import MemoryChannel
from headwater.app import open_database
from headwater.clock import SystemClock
from headwater.database import Database
from tests.flow.outbox import (
    AWAITED,
    DRIVERS,
    POSTGRES,
    SQLITE,
    Count,
    Left,
    Order,
    Placed,
    Shipped,
    Shop,
    Store,
    Total,
    shop,
    store_of,
    within,
)
from tests.flow.rig import played

ROOT = Path(__file__).parents[2]


@pytest.fixture(params=DRIVERS)
def store(request: pytest.FixtureRequest, tmp_path: Path) -> Store:
    return store_of(request, tmp_path)


# --- together or not at all ---


@played
async def test_rows_and_events_are_committed_together(store):
    async with shop(store) as found:
        first = await found.do(found.placing("a"))
        second = await found.do(lambda session: found.outbox.append(session, "a", Shipped("a"), Shipped("a")))
        assert (first.version, second.version) == (1, 3)
        assert await found.rows() == ["a"]
        assert await found.events() == [("orders.Order/a", 1), ("orders.Order/a", 2), ("orders.Order/a", 3)]
        [placed, *_] = await found.log()
        assert (placed.type, placed.previous, placed.position) == ("orders.Placed", 0, first.position)
        assert (await found.app.get(Total, "a")).total == 5


@played
async def test_what_is_rolled_back_leaves_neither_rows_nor_events(store):
    async with shop(store) as found:

        def work(session: Session) -> None:
            found.placing("a", command_key="k")(session)
            found.outbox.append(session, "p", Left("a"))
            raise ZeroDivisionError

        with pytest.raises(ZeroDivisionError):
            await found.do(work)
        assert await found.rows() == []
        assert await found.events() == []
        assert await found.app.get(Total, "a") is None
        assert not (await found.do(found.placing("a", command_key="k"))).repeated
        assert await found.events() == [("orders.Order/a", 1)]


@played
async def test_a_savepoint_that_is_undone_takes_its_events_with_it(store):
    async with shop(store) as found:

        def work(session: Session) -> None:
            found.placing("a")(session)
            part = session.begin_nested()
            found.placing("b")(session)
            part.rollback()
            found.placing("c")(session)

        await found.do(work)
        assert await found.rows() == ["a", "c"]
        assert sorted(await found.events()) == [("orders.Order/a", 1), ("orders.Order/c", 1)]


@pytest.mark.parametrize("store", AWAITED, indirect=True)
@played
async def test_sessions_and_connections_of_asyncio_are_awaited(store):
    async with shop(store) as found:
        async with AsyncSession(found.asynchronous) as session, session.begin():
            session.add(Order(id="a", total=5))
            answer = await found.outbox.append(session, "a", Placed("a", 5))
        assert answer.version == 1
        async with found.asynchronous.begin() as connection:
            assert isinstance(connection, AsyncConnection)
            assert (await found.outbox.append(connection, "a", Shipped("a"))).version == 2
        async with found.asynchronous.connect() as connection:
            await found.outbox.append(connection, "a", Shipped("a"))
        assert await found.events() == [("orders.Order/a", 1), ("orders.Order/a", 2)]


@played
async def test_the_relay_of_the_running_app_publishes_what_was_committed_and_nothing_else(store):
    taken: list[str] = []
    mail = App("mail")

    class Placed(Event, service="orders", category="Order"):
        order_id: str
        total: int

    @mail.on(Placed)
    async def note(event: Placed) -> None:
        taken.append(event.order_id)

    async with shop(store) as found:
        await found.app.start()
        clock = SystemClock()
        try:
            database = open_database("memory://", clock)
            await database.open()
            await mail.connect(database, MemoryChannel(clock, found.broker))
            await mail.start()

            def undone(session: Session) -> None:
                found.placing("undone")(session)
                session.rollback()

            await found.do(found.placing("a"))
            await found.do(undone)
            await found.do(found.placing("b"))
            for _ in range(1000):
                if len(taken) == 2:
                    break
                await asyncio.sleep(0.01)
            assert taken == ["a", "b"]
        finally:
            await mail.stop()


# --- what an append expects ---


@played
async def test_an_unexpected_version_is_a_conflict_and_leaves_the_transaction_usable(store):
    async with shop(store) as found:
        await found.do(found.placing("a", expect=0))

        def work(session: Session) -> int:
            session.add(Order(id="b", total=1))
            with pytest.raises(Conflict, match="at version 1, expected 0"):
                found.outbox.append(session, "a", Shipped("a"), expect=0)
            answer: int = found.outbox.append(session, "a", Shipped("a"), expect=1).version
            return answer

        assert await found.do(work) == 2
        assert await found.rows() == ["a", "b"]
        assert await found.events() == [("orders.Order/a", 1), ("orders.Order/a", 2)]


@played
async def test_a_command_key_is_done_once_and_kept_with_the_transaction(store):
    async with shop(store) as found:
        first = await found.do(found.placing("a", command_key="k"))
        again = await found.do(lambda session: found.outbox.append(session, "a", Placed("a", 5), command_key="k"))
        assert (first.repeated, again.repeated, again.position) == (False, True, first.position)
        for other in (Placed("a", 6), Shipped("a")):
            with pytest.raises(KeyReused):
                await found.do(lambda session, other=other: found.outbox.append(session, "a", other, command_key="k"))
        assert await found.events() == [("orders.Order/a", 1)]
        metadata = Metadata(correlation_id="c", tenant="t")
        other = await found.do(found.placing("b", command_key="k", metadata=metadata))
        assert not other.repeated
        assert (await found.log())[-1].stream == "t:orders.Order/b"
        assert (await found.log())[-1].metadata == metadata


# --- with others ---


async def followed(database: Database, over: asyncio.Event) -> list[Recorded]:
    """What one who follows the log sees of it, page by page, until nothing more comes."""
    seen: list[Recorded] = []
    while True:
        ending = over.is_set()
        page = await database.read(seen[-1].position if seen else 0, 7)
        seen.extend(page)
        if ending and not page:
            return seen
        await asyncio.sleep(0.001)


async def place_many(found: Shop, writer: int) -> None:
    """Place orders in streams of their own and in shared ones; undo every fourth."""
    for n in range(12):
        order = f"{writer}-{n}"

        def work(session: Session, n: int = n, order: str = order) -> None:
            found.placing(order)(session)
            found.outbox.append(session, f"shared-{n % 3}", Left(order))
            if n % 4 == 3:
                session.rollback()

        await found.do(work)


async def count_many(app: App) -> None:
    for n in range(60):
        await app.send(Count(f"c{n % 5}"))


@pytest.mark.timeout(120)
@played
async def test_beside_headwaters_own_writers_a_reader_sees_every_event_once_and_in_order(store):
    async with shop(store) as found:
        over = asyncio.Event()
        following = asyncio.create_task(followed(found.database, over))
        placing = (place_many(found, writer) for writer in range(6))
        await asyncio.gather(*placing, count_many(found.app), count_many(found.app))
        over.set()
        seen, log = await following, await found.log()
        assert [(one.position, one.id) for one in seen] == [(one.position, one.id) for one in log]
        assert len(log) == 6 * 9 * 2 + 120
        assert await found.rows() == sorted(f"{w}-{n}" for w in range(6) for n in range(12) if n % 4 != 3)
        versions: dict[str, list[int]] = {}
        for one in log:
            versions.setdefault(one.stream, []).append(one.version)
        assert all(those == list(range(1, len(those) + 1)) for those in versions.values())


DYING = """
import os, signal, sys
from sqlalchemy import create_engine
from sqlalchemy.orm import Session
from headwater.sqlalchemy import Outbox
from tests.flow.outbox import Order, Placed, orders
session = Session(create_engine(sys.argv[1]))
session.add(Order(id="a", total=5))
session.flush()
Outbox(orders()).append(session, "a", Placed("a", 5))
if sys.argv[2] == "after":
    session.commit()
os.kill(os.getpid(), signal.SIGKILL)
"""


@pytest.mark.parametrize("store", [*SQLITE, *POSTGRES], indirect=True)
@pytest.mark.parametrize("when", ["before", "after"])
@played
async def test_a_process_that_dies_around_its_commit_leaves_both_or_neither(store, when):
    async with shop(store) as found:
        paths = os.pathsep.join([str(ROOT), *filter(None, [os.environ.get("PYTHONPATH")])])
        environment = os.environ | {"PYTHONPATH": paths}
        command = [sys.executable, "-P", "-c", DYING, found.place, when]
        done = await asyncio.to_thread(subprocess.run, command, check=False, env=environment, capture_output=True)
        assert done.returncode == -signal.SIGKILL, done.stderr.decode()
        assert await found.rows() == (["a"] if when == "after" else [])
        assert await found.events() == ([("orders.Order/a", 1)] if when == "after" else [])
        await found.do(found.placing("b"))
        assert ("orders.Order/b", 1) in await found.events()


@pytest.mark.parametrize("level", ["REPEATABLE READ", "SERIALIZABLE"])
@pytest.mark.parametrize("store", DRIVERS[2:], indirect=True)
@played
async def test_where_a_transaction_sees_an_old_state_the_loser_is_told_to_run_it_again(store, level):
    async with shop(store) as found:
        found.set_isolation(level)

        def work(session: Session) -> None:
            session.scalars(select(Order.id)).all()
            within(another, found.placing("a"))
            found.outbox.append(session, "a", Shipped("a"))

        another = create_engine(found.place)
        with pytest.raises(Conflict, match="run yours again"):
            await found.do(work)
        another.dispose()
        await found.do(lambda session: found.outbox.append(session, "a", Shipped("a"), expect=1))
        assert await found.events() == [("orders.Order/a", 1), ("orders.Order/a", 2)]


@pytest.mark.parametrize("store", POSTGRES, indirect=True)
@played
async def test_of_transactions_that_wait_for_one_another_one_is_told_to_run_again(store):
    async with shop(store) as found:
        met = threading.Barrier(2)

        def cross(first: str, second: str) -> Callable[[Session], bool]:
            def work(session: Session) -> bool:
                found.placing(first)(session)
                met.wait(10)
                try:
                    found.outbox.append(session, second, Shipped(second))
                except Conflict as conflict:
                    assert "run yours again" in str(conflict)
                    session.rollback()
                    return False
                return True

            return work

        assert sorted(await asyncio.gather(found.do(cross("a", "b")), found.do(cross("b", "a")))) == [False, True]
        assert len(await found.rows()) == 1
        assert len(await found.events()) == 2
