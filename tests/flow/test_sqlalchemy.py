"""Events appended within a SQLAlchemy transaction: rows and events stand together or fall together, on both stores."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import Engine, create_engine, select
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncSession, create_async_engine
from sqlalchemy.orm import DeclarativeBase, Mapped, Session, mapped_column

from headwater import (
    Aggregate,
    App,
    Command,
    Committed,
    ConfigurationError,
    Conflict,
    DeclarationError,
    Event,
    KeyReused,
    Metadata,
    ReadModel,
    Recorded,
    SchemaError,
    decide,
    evolve,
)
from headwater.adapters.memory import MemoryBroker, MemoryChannel
from headwater.app import open_database
from headwater.clock import SystemClock
from headwater.database import Database
from headwater.sqlalchemy import Outbox
from tests.flow.rig import played

ROOT = Path(__file__).parents[2]
DRIVERS = [
    "sqlite+headwater",
    "sqlite+headwater async",
    "postgresql+psycopg",
    "postgresql+psycopg async",
    "postgresql+psycopg2",
    "postgresql+asyncpg async",
]
SQLITE, POSTGRES = DRIVERS[:1], DRIVERS[2:3]
AWAITED = [one for one in DRIVERS if one.endswith(" async")]
BLOCKING = {"postgresql+asyncpg": "postgresql+psycopg"}
AWAITING = {"postgresql+psycopg2": "postgresql+psycopg"}


Store = tuple[str, str, bool]
"""The URL of the log, the engine's driver, and whether it is one of asyncio."""


class Base(DeclarativeBase):
    pass


class Order(Base):
    __tablename__ = "orders"
    id: Mapped[str] = mapped_column(primary_key=True)
    total: Mapped[int]


class Placed(Event, category="Order", tags="order_id"):
    order_id: str
    total: int


class Shipped(Event, category="Order"):
    order_id: str


class Left(Event, category="Parcel"):
    order_id: str


class Homeless(Event):
    order_id: str


class Alien(Event, service="elsewhere", category="Order"):
    order_id: str


class Count(Command):
    counter: str


class Counted(Event):
    counter: str


class Counter(Aggregate, key="counter"):
    @decide
    def count(self, command: Count) -> Counted:
        return Counted(command.counter)


class Struck(Event, category="Counter"):
    counter: str


class Total(ReadModel, key="order_id", inline=True):
    order_id: str = ""
    total: int = 0

    @evolve
    def placed(self, event: Placed) -> None:
        self.total += event.total


def orders() -> App:
    app = App("orders")
    app.add(Placed, Shipped, Left, Counter, Total)
    return app


class Shop:
    """A service with tables of its own in the database of its log."""

    def __init__(self, store: str, driver: str, *, is_async: bool = False) -> None:
        self.store = store
        place = store.partition("://")[2]
        self.place = f"{BLOCKING.get(driver, driver)}://{place}"
        self.app = orders()
        self.outbox = Outbox(self.app)
        self.engine = create_engine(self.place)
        self.asynchronous = create_async_engine(f"{AWAITING.get(driver, driver)}://{place}")
        self.is_async = is_async

    async def __aenter__(self) -> Shop:
        clock = SystemClock()
        self.database: Database = open_database(self.store, clock)
        self.broker = MemoryBroker()
        await self.database.open()
        await self.app.connect(self.database, MemoryChannel(clock, self.broker))
        await asyncio.to_thread(Base.metadata.create_all, self.engine)
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.app.stop()
        await self.asynchronous.dispose()
        self.engine.dispose()

    def set_isolation(self, level: Any) -> None:
        self.engine = self.engine.execution_options(isolation_level=level)
        self.asynchronous = self.asynchronous.execution_options(isolation_level=level)

    async def do(self, work: Callable[[Session], Any]) -> Any:
        """Do something in a transaction by the engine under test."""
        if self.is_async:
            async with AsyncSession(self.asynchronous) as session, session.begin():
                return await session.run_sync(work)
        return await asyncio.to_thread(within, self.engine, work)

    def placing(self, order_id: str, **options: Any) -> Callable[[Session], Committed]:
        """Writes an order and states that it was placed."""

        def work(session: Session) -> Committed:
            session.add(Order(id=order_id, total=5))
            return self.outbox.append(session, order_id, Placed(order_id, 5), **options)

        return work

    async def rows(self) -> list[str]:
        return sorted(await self.do(lambda session: list(session.scalars(select(Order.id)))))

    async def log(self) -> list[Recorded]:
        return await self.database.read(0, 10_000)

    async def events(self) -> list[tuple[str, int]]:
        return [(one.stream, one.version) for one in await self.log()]


def within(engine: Engine, work: Callable[[Session], Any]) -> Any:
    with Session(engine) as session, session.begin():
        return work(session)


@pytest.fixture(params=DRIVERS)
def store(request: pytest.FixtureRequest, tmp_path: Path) -> Store:
    driver, _, is_async = request.param.partition(" ")
    sqlite = driver.startswith("sqlite")
    url = f"sqlite:///{tmp_path / 'orders.db'}" if sqlite else request.getfixturevalue("postgres").make()
    return url, driver, bool(is_async)


@asynccontextmanager
async def shop(store: Store) -> AsyncIterator[Shop]:
    url, driver, is_async = store
    async with Shop(url, driver, is_async=is_async) as found:
        yield found


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
from tests.flow.test_sqlalchemy import Order, Placed, orders
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


# --- what is refused ---


@pytest.mark.parametrize("store", SQLITE, indirect=True)
@pytest.mark.parametrize(
    ("event", "says"),
    [
        (Homeless("a"), r"class Homeless\(Event, category='…'\)"),
        (Alien("a"), "elsewhere.Alien is a event of elsewhere; orders appends its own events"),
        (Count("a"), "orders.Count is a command of orders; orders appends its own events"),
        (Struck("a"), "Counter of orders states its own events: send it a command"),
    ],
)
@played
async def test_events_that_the_service_does_not_state_so_are_refused(store, event, says):
    async with shop(store) as found:
        with pytest.raises(DeclarationError, match=says):
            await found.do(lambda session: found.outbox.append(session, "a", event))


@pytest.mark.parametrize("store", SQLITE, indirect=True)
@played
async def test_an_append_has_a_key_and_events_of_one_category(store):
    async with shop(store) as found:
        for key, events in (("", [Shipped("a")]), ("a", [])):
            with pytest.raises(SchemaError, match="names the key of its stream and has one event"):
                await found.do(lambda session, key=key, events=events: found.outbox.append(session, key, *events))
        with pytest.raises(DeclarationError, match=r"orders\.Order and of orders\.Parcel are not of one stream"):
            await found.do(lambda session: found.outbox.append(session, "a", Shipped("a"), Left("a")))


@played
async def test_an_engine_without_transactions_is_refused(store):
    async with shop(store) as found:
        found.set_isolation("AUTOCOMMIT")
        with pytest.raises(ConfigurationError, match="leave isolation_level away"):
            await found.do(lambda session: found.outbox.append(session, "a", Shipped("a")))
        assert await found.events() == []


@pytest.mark.parametrize("store", [*SQLITE, *POSTGRES], indirect=True)
def test_a_database_without_a_log_is_refused(store: Store) -> None:
    found = Shop(*store[:2])
    with pytest.raises(ConfigurationError, match="has no log: run `headwater db init`"):
        within(found.engine, lambda session: found.outbox.append(session, "a", Shipped("a")))
    found.engine.dispose()


@pytest.mark.parametrize("store", SQLITE, indirect=True)
def test_another_copy_of_sqlite_is_refused(store: Store) -> None:
    engine = create_engine(store[0])
    with pytest.raises(ConfigurationError, match=r"make the engine with sqlite\+headwater:///"):
        within(engine, lambda session: Outbox(orders()).append(session, "a", Shipped("a")))
    engine.dispose()


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
