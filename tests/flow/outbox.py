"""A service that is not event-sourced: tables of its own by SQLAlchemy, beside its log, by every driver."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import Engine, create_engine, select
from sqlalchemy.ext.asyncio import AsyncSession, create_async_engine
from sqlalchemy.orm import DeclarativeBase, Mapped, Session, mapped_column

from headwater import Aggregate, App, Command, Committed, Event, ReadModel, Recorded, decide, evolve
from headwater.adapters.memory import MemoryBroker, MemoryChannel
from headwater.app import open_database
from headwater.clock import SystemClock
from headwater.database import Database
from headwater.sqlalchemy import Outbox

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


class Odd(Event, category="commands"):
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


def store_of(request: pytest.FixtureRequest, folder: Path) -> Store:
    """The store of a fixture whose parameter is one of `DRIVERS`."""
    driver, _, is_async = request.param.partition(" ")
    sqlite = driver.startswith("sqlite")
    url = f"sqlite:///{folder / 'orders.db'}" if sqlite else request.getfixturevalue("postgres").make()
    return url, driver, bool(is_async)


@asynccontextmanager
async def shop(store: Store) -> AsyncIterator[Shop]:
    url, driver, is_async = store
    async with Shop(url, driver, is_async=is_async) as found:
        yield found
