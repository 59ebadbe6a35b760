"""What the memory database does beyond the contract: crashes, names, and a clock that is injected."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

import pytest

from headwater.adapters.memory import MemoryDatabase, MemoryFile
from headwater.database import Collision, Database, Failed
from headwater.errors import ConfigurationError, DatabaseError
from headwater.lease import Fence
from headwater.table import Column, Table
from headwater.testing.clock import VirtualClock
from headwater.testing.contracts.database.tables import rows_of
from headwater.testing.contracts.database.values import TOTALS, A, appending, commit_one, committing, versions


def running(test: Callable[[], Awaitable[None]]) -> Callable[[], None]:
    def run() -> None:
        asyncio.run(asyncio.wait_for(test(), 5))

    run.__name__ = test.__name__
    return run


async def opened(file: MemoryFile | None = None, clock: VirtualClock | None = None) -> MemoryDatabase:
    database = MemoryDatabase(clock or VirtualClock(), file)
    await database.open()
    return database


def test_it_is_a_database_without_sql_that_does_not_last():
    database: Database = MemoryDatabase.from_url("memory://", VirtualClock())
    assert (database.capabilities.sql, database.capabilities.durable) == (False, False)


def test_a_url_without_a_name_is_its_own_data_and_a_name_is_shared():
    clock = VirtualClock()
    one, two, bare = (MemoryDatabase.from_url(url, clock) for url in ("memory://shop", "memory://shop", "memory://"))
    assert one.file is two.file
    assert len({id(one.file), id(bare.file), id(MemoryDatabase.from_url("memory://", clock).file)}) == 3
    assert one.file.name == "shop"
    with pytest.raises(ConfigurationError, match="memory://name"):
        MemoryDatabase.from_url("sqlite:///x.db", clock)


@running
async def test_two_handles_on_one_file_see_each_other():
    file = MemoryFile()
    one, two = await opened(file), await opened(file)
    waiting = asyncio.create_task(two.changed(0, 5.0))
    await committing(one, appending(A))
    assert await waiting
    assert isinstance(await commit_one(two, appending(A, 0)), Collision)
    await committing(two, appending(A, 1))
    assert await versions(one) == [1, 2]


@running
async def test_a_handle_that_is_not_open_does_nothing():
    database = MemoryDatabase(VirtualClock())
    for use in (database.head, lambda: database.commit([]), lambda: database.acquire("relay", "one")):
        with pytest.raises(DatabaseError, match="not open"):
            await use()
    await database.open()
    await database.close()
    with pytest.raises(DatabaseError, match="not open"):
        await database.head()


@running
async def test_a_crash_within_a_transaction_leaves_nothing_of_it_and_blocks_nobody():
    one = await opened()
    two = await opened(one.file)
    with pytest.raises(DatabaseError):
        async with one.transaction() as transaction:
            transaction.write([appending(A)])
            waiting = asyncio.create_task(two.commit([appending(A, 0, 2)]))
            await asyncio.sleep(0)
            one.crash()
            await waiting
    assert await versions(two) == [1, 2]


@running
async def test_a_cancelled_transaction_leaves_nothing_and_lets_others_write():
    database = await opened()
    inside = asyncio.Event()

    async def stuck() -> None:
        async with database.transaction() as transaction:
            transaction.write([appending(A)])
            inside.set()
            await asyncio.sleep(60)

    task = asyncio.create_task(stuck())
    await inside.wait()
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)
    await committing(database, appending(A, 0))
    assert await versions(database) == [1]


@running
async def test_a_lease_goes_by_the_clock_and_its_old_holder_knows():
    clock = VirtualClock()
    one = await opened(clock=clock)
    two = await opened(one.file, clock)
    old = await one.acquire("relay", "one", ttl=9.0)
    assert old is not None
    await clock.run_for(30)
    assert await two.acquire("relay", "two", ttl=9.0) is None
    clock.advance(9.0)  # the holder was paused: its renewal comes too late
    new = await two.acquire("relay", "two", ttl=9.0)
    assert new is not None
    assert (old.held, new.held, new.epoch) == (False, True, old.epoch + 1)
    await clock.run_for(30)
    assert (old.held, new.held) == (False, True)
    assert isinstance(await commit_one(one, appending(A, fence=Fence("relay", old.epoch))), Collision)


@running
async def test_closing_gives_leases_back_and_crashing_does_not():
    clock = VirtualClock()
    one = await opened(clock=clock)
    await one.acquire("relay", "one")
    await one.close()
    two = await opened(one.file, clock)
    assert await two.acquire("relay", "two") is not None
    two.crash()
    three = await opened(one.file, clock)
    assert await three.acquire("relay", "three") is None


@pytest.mark.parametrize("row", [("a", 2**63), ("a", "x"), ("a",), ("a", 1, 2), ("\ud800", 1), (5, 1)])
def test_a_row_that_a_real_table_could_not_hold_fells_its_set(row):
    async def run() -> None:
        database = await opened()
        await database.create_table(TOTALS)
        answers = await database.commit([rows_of(TOTALS, row), rows_of(TOTALS, ("b", 2))])
        assert isinstance(answers[0], Failed)
        assert await database.find(TOTALS, {}, 10) == [("b", 2)]

    asyncio.run(run())


@running
async def test_mistakes_in_tables_are_named():
    database = await opened()
    with pytest.raises(ConfigurationError, match="varchar"):
        await database.create_table(Table("t", (Column("a", "varchar"),)))
    await database.create_table(TOTALS)
    with pytest.raises(ConfigurationError, match="'euros'"):
        await database.find(TOTALS, {"euros": 1}, 1)
