"""A handler is lent a session or connection of its transaction: its rows and its marks stand together or fall together."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import psycopg
import pytest
import sqlalchemy
from sqlalchemy import select, text
from sqlalchemy.exc import IntegrityError
from sqlalchemy.orm import DeclarativeBase, Mapped, Session, mapped_column

from headwater import App, DeclarationError, Event, Once, Retry, Transaction
from headwater.adapters.memory import MemoryBroker, MemoryChannel
from headwater.app import open_database
from headwater.clock import SystemClock
from headwater.database import Database
from headwater.inbox import Held, Reason
from tests.flow.rig import played, publication
from tests.flow.shop import Bumped, Noted

Does = Callable[[Any, Bumped], object]


class Base(DeclarativeBase):
    pass


class Remark(Base):
    __tablename__ = "remarks"
    key: Mapped[str] = mapped_column(primary_key=True)
    n: Mapped[int] = mapped_column(primary_key=True)


def remark(session: Session, event: Bumped) -> None:
    session.add(Remark(key=event.key, n=event.n))


class Mail:
    """A service with a handler that is lent something of type `kind`, and does with it what it is told to."""

    def __init__(self, store: str, kind: type, does: Does, **faults: Does) -> None:
        self.store = store
        self.app = App("mail", retry=Retry(attempts=2, base=0.01))
        self.calls: list[tuple[str, int]] = []

        async def note(event: Bumped, lent: Any) -> Noted:
            self.calls.append((event.key, event.n))
            does(lent, event)
            if fault := faults.get(f"{event.key}{event.n}"):
                fault(lent, event)
            return Noted(event.key, event.n)

        note.__annotations__["lent"] = kind
        self.app.on(Bumped)(note)

    async def __aenter__(self) -> Mail:
        clock = SystemClock()
        self.database: Database = open_database(self.store, clock)
        self.channel = MemoryChannel(clock, MemoryBroker())
        await self.database.open()
        async with self.database.transaction() as transaction:
            transaction.execute("CREATE TABLE remarks (key TEXT, n INTEGER, PRIMARY KEY (key, n))")
        await self.app.connect(self.database, self.channel)
        await self.app.start()
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.app.stop()

    async def send(self, *places: tuple[str, int]) -> None:
        await self.channel.publish(
            [publication(f"shop.Counter/{key}", n, "shop.Bumped", Bumped(key, n)) for key, n in places]
        )

    async def rows(self) -> list[tuple[str, int]]:
        async with self.database.transaction() as transaction:
            return transaction.execute("SELECT key, n FROM remarks ORDER BY n, key")

    async def held(self) -> list[Held]:
        return await self.database.held_list(None, list(Reason), 100)

    async def noted(self) -> list[str]:
        return [one.stream for one in await self.database.read(0, 1000) if one.type == "mail.Noted"]

    async def settled(self, condition: Callable[[list[tuple[str, int]], list[Held]], bool]) -> None:
        for _ in range(1000):
            if condition(await self.rows(), await self.held()):
                return
            await asyncio.sleep(0.01)
        raise AssertionError((await self.rows(), await self.held()))


@pytest.fixture(params=["sqlite", "postgresql"])
def store(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[str]:
    if request.param == "sqlite":
        yield f"sqlite:///{tmp_path / 'mail.db'}"
    else:
        yield request.getfixturevalue("postgres").make()


@asynccontextmanager
async def mail(store: str, kind: type, does: Does, **faults: Does) -> AsyncIterator[Mail]:
    async with Mail(store, kind, does, **faults) as found:
        yield found


def by_connection(connection: sqlalchemy.Connection, event: Bumped) -> None:
    connection.execute(text("INSERT INTO remarks VALUES (:key, :n)"), {"key": event.key, "n": event.n})


@pytest.mark.parametrize(("kind", "does"), [(Session, remark), (sqlalchemy.Connection, by_connection)])
@played
async def test_rows_are_written_with_the_marks(store, kind, does):
    async with mail(store, kind, does) as found:
        places = [(key, n) for n in (1, 2, 3) for key in "abc"]
        await found.send(*places, *places)
        await found.settled(lambda rows, held: len(rows) == 9)
        assert sorted(found.calls) == sorted(places)
        assert len(await found.noted()) == 9
        assert await found.held() == []


def fails(session: Session, event: Bumped) -> None:
    session.flush()
    raise RuntimeError("bad")


def repeats(session: Session, event: Bumped) -> None:
    session.execute(text("INSERT INTO remarks VALUES ('a', 1)"))


def commits_and_fails(session: Session, event: Bumped) -> None:
    session.commit()
    raise RuntimeError("bad")


@pytest.mark.parametrize("fault", [fails, repeats, commits_and_fails])
@played
async def test_what_a_failed_message_wrote_is_undone_and_others_stand(store, fault):
    async with mail(store, Session, remark, b1=fault) as found:
        await found.send(("a", 1), ("b", 1), ("b", 2), ("c", 1))
        await found.settled(lambda rows, held: len(rows) == 2 and any(row.reason is Reason.DEAD for row in held))
        assert await found.rows() == [("a", 1), ("c", 1)]
        assert sorted(await found.noted()) == ["mail.note/a", "mail.note/c"]
        reasons = [(row.message.version, row.reason) for row in await found.held()]
        assert reasons == [(1, Reason.DEAD), (2, Reason.BEHIND)]


@played
async def test_rows_that_are_refused_only_when_they_are_flushed_fail_their_message(store):
    def doubles(session: Session, event: Bumped) -> None:
        session.add(Remark(key="a", n=1))

    async with mail(store, Session, remark, b1=doubles) as found:
        await found.send(("a", 1), ("b", 1), ("c", 1))
        await found.settled(lambda rows, held: len(rows) == 2 and any(row.reason is Reason.DEAD for row in held))
        assert await found.rows() == [("a", 1), ("c", 1)]
        assert IntegrityError.__name__ in (await found.held())[0].cause


@played
async def test_what_a_handler_rolls_back_itself_is_undone_and_its_message_is_done(store):
    def changes_its_mind(session: Session, event: Bumped) -> None:
        session.rollback()
        session.add(Remark(key="z", n=event.n))
        session.commit()
        session.add(Remark(key="y", n=event.n))
        session.flush()
        session.rollback()

    async with mail(store, Session, remark, b1=changes_its_mind) as found:
        await found.send(("a", 1), ("b", 1))
        await found.settled(lambda rows, held: len(rows) == 2)
        assert await found.rows() == [("a", 1), ("z", 1)]
        assert len(await found.noted()) == 2


@played
async def test_a_session_reads_what_was_written_for_messages_before(store):
    counts: list[int] = []

    def count(session: Session, event: Bumped) -> None:
        remark(session, event)
        counts.append(len(session.scalars(select(Remark)).all()))

    async with mail(store, Session, count) as found:
        await found.send(*[("a", n) for n in range(1, 6)])
        await found.settled(lambda rows, held: len(rows) == 5)
        assert counts == [1, 2, 3, 4, 5]


@pytest.mark.parametrize("store", ["postgresql"], indirect=True)
@played
async def test_psycopgs_connection_is_lent(store):
    def insert(connection: psycopg.Connection[Any], event: Bumped) -> None:
        connection.execute("INSERT INTO remarks VALUES (%s, %s)", (event.key, event.n))

    async with mail(store, psycopg.Connection[Any], insert, b1=fails_after) as found:
        await found.send(("a", 1), ("b", 1), ("c", 1))
        await found.settled(lambda rows, held: len(rows) == 2 and any(row.reason is Reason.DEAD for row in held))
        assert await found.rows() == [("a", 1), ("c", 1)]


def fails_after(connection: Any, event: Bumped) -> None:
    raise RuntimeError("bad")


@pytest.mark.parametrize("store", ["sqlite"], indirect=True)
@played
async def test_psycopgs_connection_is_not_to_be_had_on_sqlite(store):
    async with mail(store, psycopg.Connection, fails_after) as found:
        await found.send(("a", 1))
        await found.settled(lambda rows, held: any(row.reason is Reason.DEAD for row in held))
        assert "the store is no PostgreSQL database" in (await found.held())[0].cause
        assert found.calls == []


@pytest.mark.parametrize("store", ["sqlite"], indirect=True)
@played
async def test_a_connection_to_the_file_is_of_no_use_after_its_transaction(store):
    kept: list[Any] = []
    async with mail(store, Transaction, lambda transaction, _: kept.append(transaction.connection)) as found:
        await found.send(("a", 1))
        for _ in range(1000):
            if await found.noted():
                break
            await asyncio.sleep(0.005)
        with pytest.raises(Exception, match="the transaction was undone"):
            kept[0].cursor().execute("INSERT INTO remarks VALUES ('a', 1)")
        assert await found.rows() == []


def test_what_is_lent_asks_for_a_store_with_sql_and_not_for_once() -> None:
    app = App("mail")

    with pytest.raises(DeclarationError, match="asks for a transaction and Once"):

        @app.on(Bumped)
        async def both(event: Event, session: Session, once: Once) -> None: ...

    with pytest.raises(DeclarationError, match="SQLAlchemy's Session or Connection"):

        @app.on(Bumped)
        async def path(event: Event, path: Path) -> None: ...
