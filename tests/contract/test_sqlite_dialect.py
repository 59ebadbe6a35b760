"""`sqlite+headwater`: SQLAlchemy on apsw, one writer of the file at a time."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Iterator
from datetime import date, datetime
from decimal import Decimal
from pathlib import Path
from typing import Any
from unittest import mock
from uuid import UUID, uuid4

import pytest
from sqlalchemy import ForeignKey, Numeric, create_engine, insert, inspect, select, text, update
from sqlalchemy.exc import ArgumentError, IntegrityError, OperationalError
from sqlalchemy.ext.asyncio import create_async_engine
from sqlalchemy.orm import DeclarativeBase, Mapped, Session, mapped_column

from headwater.adapters.sqlite.wake import Wake
from tests.flow.rig import played


class Base(DeclarativeBase):
    pass


class Owner(Base):
    __tablename__ = "owners"
    id: Mapped[int] = mapped_column(primary_key=True)
    name: Mapped[str] = mapped_column(unique=True)


class Thing(Base):
    __tablename__ = "things"
    id: Mapped[UUID] = mapped_column(primary_key=True)
    owner: Mapped[int | None] = mapped_column(ForeignKey("owners.id"))
    price: Mapped[Decimal] = mapped_column(Numeric(10, 2, asdecimal=True))
    made: Mapped[datetime]
    day: Mapped[date]
    raw: Mapped[bytes]
    sold: Mapped[bool]


@pytest.fixture
def place(tmp_path: Path) -> str:
    return f"sqlite+headwater:///{tmp_path / 'shop.db'}"


@pytest.fixture
def engine(place: str) -> Iterator[Any]:
    found = create_engine(place)
    Base.metadata.create_all(found)
    yield found
    found.dispose()


@pytest.mark.filterwarnings("ignore:Dialect sqlite.headwater does .not. support Decimal")
def test_values_come_back_as_they_went(engine):
    thing = {
        "id": uuid4(),
        "owner": None,
        "price": Decimal("12.50"),
        "made": datetime(2026, 1, 2, 3, 4, 5, 678901),  # noqa: DTZ001 - SQLite has no zones
        "day": date(2026, 1, 2),
        "raw": b"\0\1",
        "sold": True,
    }
    with Session(engine) as session, session.begin():
        session.add(Thing(**thing))
    with Session(engine) as session:
        found = session.scalars(select(Thing)).one()
        assert {name: getattr(found, name) for name in thing} == thing
    assert inspect(engine).get_table_names() == ["owners", "things"]


def test_counts_ids_and_empty_answers_are_those_of_the_statement(engine):
    with engine.begin() as connection:
        made = connection.execute(insert(Owner).values(name="ada"))
        assert (made.rowcount, made.inserted_primary_key) == (1, (1,))
        many = connection.execute(insert(Owner), [{"name": "bob"}, {"name": "cleo"}])
        assert many.rowcount == 2
        assert connection.execute(update(Owner).where(Owner.id > 1).values(name=Owner.name + "!")).rowcount == 2
        assert connection.execute(update(Owner).where(Owner.id > 9).values(name="x")).rowcount == 0
        none = connection.execute(select(Owner).where(Owner.id > 9))
        assert (list(none.keys()), none.all()) == (["id", "name"], [])
        returned = connection.execute(insert(Owner).returning(Owner.id), [{"name": "d"}, {"name": "e"}])
        assert returned.scalars().all() == [4, 5]


def test_errors_are_those_of_their_kind(engine):
    with Session(engine) as session, session.begin():
        session.add(Owner(name="ada"))
    with pytest.raises(IntegrityError, match="UNIQUE"), Session(engine) as session, session.begin():
        session.add(Owner(name="ada"))
    with pytest.raises(IntegrityError, match="FOREIGN KEY"), engine.begin() as connection:
        connection.execute(text("INSERT INTO things VALUES ('x', 99, 1, '', '', '', 1)"))
    with pytest.raises(OperationalError, match="no such table"), engine.begin() as connection:
        connection.execute(text("SELECT * FROM nowhere"))


def test_a_transaction_that_ended_itself_takes_no_further_statement(engine):
    with pytest.raises(OperationalError, match="the transaction was undone"), engine.begin() as connection:
        connection.execute(text("ROLLBACK"))
        connection.execute(text("INSERT INTO owners VALUES (1, 'ada')"))
    with Session(engine) as session:
        assert session.scalars(select(Owner)).all() == []


@pytest.mark.parametrize(
    "url", ["sqlite+headwater://", "sqlite+headwater:///:memory:", "sqlite+headwater:///a.db?mode=ro"]
)
def test_a_url_names_a_file_and_nothing_else(url):
    with pytest.raises(ArgumentError, match=r"sqlite\+headwater:////absolute/path\.db"):
        create_engine(url).connect()


# --- turns ---


def test_transactions_take_turns_from_their_first_statement_on(engine):
    """Each reads and writes what it has read: no update is lost, and none is refused."""
    with Session(engine) as session, session.begin():
        session.add(Owner(name="0"))

    def count() -> None:
        for _ in range(25):
            with Session(engine) as session, session.begin():
                owner = session.get_one(Owner, 1)
                owner.name = str(int(owner.name) + 1)

    threads = [threading.Thread(target=count) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    with Session(engine) as session:
        assert session.get_one(Owner, 1).name == "100"


def test_who_only_reads_takes_no_turn_and_cannot_write(engine):
    reading = engine.execution_options(isolation_level="AUTOCOMMIT")
    with Session(engine) as writer, writer.begin():
        writer.add(Owner(name="ada"))
        writer.flush()
        with reading.connect() as connection:
            assert connection.execute(select(Owner)).all() == []
            with pytest.raises(OperationalError, match="readonly"):
                connection.execute(insert(Owner).values(name="bob"))
    with engine.begin() as connection:  # the same connection of the pool writes again
        connection.execute(insert(Owner).values(name="bob"))
    with reading.connect() as connection:
        assert len(connection.execute(select(Owner)).all()) == 2


@played
async def test_more_asyncio_transactions_than_threads_take_turns(place, engine):
    asynchronous = create_async_engine(place, pool_size=50)
    async with asynchronous.begin() as connection:
        await connection.execute(insert(Owner).values(name="0"))

    async def count() -> None:
        async with asynchronous.begin() as connection:
            name = (await connection.execute(select(Owner.name))).scalar_one()
            await asyncio.sleep(0)
            await connection.execute(update(Owner).values(name=str(int(name) + 1)))

    await asyncio.gather(*(count() for _ in range(50)))
    async with asynchronous.connect() as connection:
        assert (await connection.execute(select(Owner.name))).scalar_one() == "50"
    await asynchronous.dispose()


@played
async def test_one_who_is_cancelled_while_it_waits_for_its_turn_leaves_the_file_to_others(place, engine):
    asynchronous = create_async_engine(place)

    async def add(name: str) -> None:
        async with asynchronous.begin() as connection:
            await connection.execute(insert(Owner).values(name=name))

    async with asynchronous.begin() as connection:
        await connection.execute(insert(Owner).values(name="first"))
        waiting = asyncio.create_task(add("cancelled"))
        await asyncio.sleep(0.2)
        assert not waiting.done()
        waiting.cancel()
        await asyncio.sleep(0.1)
    with pytest.raises(asyncio.CancelledError):
        await waiting
    await add("last")
    async with asynchronous.connect() as connection:
        assert (await connection.execute(select(Owner.name))).scalars().all() == ["first", "last"]
    await asynchronous.dispose()


def test_an_append_is_told_of_once_it_is_committed(engine):
    with mock.patch.object(Wake, "hint") as hint, engine.connect() as connection:
        for grown in (False, True):
            connection.execute(insert(Owner).values(name=str(grown)))
            connection.connection.dbapi_connection.grown = grown
            connection.rollback() if not grown else connection.commit()
            assert hint.call_count == grown
