"""A rebuild folds exactly what stands up to the live reader, though positions have gaps and another process is surer of them."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, closing

import msgspec
import psycopg

from headwater import App
from headwater.adapters.postgres import PostgresDatabase
from headwater.adapters.postgres.horizon import Horizon
from headwater.checkpoint import Checkpoint
from headwater.clock import SystemClock
from headwater.database import Collision, Database, WriteSet, stands
from headwater.message import JSON, Draft, Recorded
from headwater.projection.rebuild import rebuild
from headwater.store import ANY, Append
from headwater.table import Column, Table, Upsert, turn_of
from tests.fault.rigs.pair import Copy, Entry
from tests.servers.postgres import Databases, run

CLOCK = SystemClock()
READER = "desk.copy"
TABLE = Table("copy", [Column("key", "text"), Column("count", "integer"), Column("total", "integer")])
BUILT = msgspec.structs.replace(TABLE, name="copy__new")
FIRST = WriteSet(
    checkpoints=[Checkpoint(READER, 1, 0), Checkpoint(turn_of(READER), 0, 0)], upserts=[Upsert(TABLE, [("k", 1, 1)])]
)
BURN = "SELECT nextval('headwater.positions') FROM generate_series(1, 8)"
OPEN = """
INSERT INTO headwater.events (version, time, id, type_version, codec, kind, type, stream, data, meta)
VALUES (1, 0, gen_random_uuid(), 1, 0, 'event', 't', 't/slow', '{}', '{}')
"""


@asynccontextmanager
async def opened(url: str, kind: type[PostgresDatabase] = PostgresDatabase) -> AsyncIterator[PostgresDatabase]:
    found = kind(url, CLOCK)
    await found.open()
    try:
        yield found
    finally:
        await found.close()


def booking(number: int) -> WriteSet:
    data = msgspec.json.encode({"key": "k", "number": number})
    draft = Draft("event", CLOCK.new_id(), "desk.Booked", 1, JSON, 1, data, b"{}")
    return WriteSet(appends=[Append("desk.Entry/k", ANY, [draft])])


async def book(database: Database, *numbers: int) -> int:
    """Book these; the position of the last."""
    answers = [stands(one) for one in await database.commit([booking(number) for number in numbers])]
    return answers[-1].position


async def rebuilt(database: Database) -> list[tuple[object, ...]]:
    """Rebuild, and look."""
    app = App("desk", store="memory:", channel="memory:")
    app.add(Entry, Copy)
    projection = next(iter(app.declared.projections.values()))
    await rebuild(READER, projection, app.schema, database, lambda done, of: None)
    return [tuple(row) for row in (await database.rows(projection.table, [("k",)])).values()]


async def made(database: Database) -> None:
    app = App("desk", store="memory:", channel="memory:")
    app.add(Entry, Copy)
    await database.create_table(next(iter(app.declared.projections.values())).table)


def test_what_comes_after_the_live_reader_is_not_folded_though_positions_have_gaps(postgres: Databases) -> None:
    url = postgres.make()

    async def main() -> None:
        async with opened(url) as database:
            await made(database)
            await book(database, 1)
            run(url, BURN)
            place = await book(database, 2)
            await book(database, 3, 4)
            await database.commit([WriteSet(checkpoints=[Checkpoint(READER, place, 0)])])
            assert await rebuilt(database) == [("k", 2, 3)]

    asyncio.run(main())


def test_what_this_process_is_not_sure_of_yet_is_waited_for(postgres: Databases) -> None:
    url = postgres.make()

    async def main() -> None:
        async with opened(url) as database:
            await made(database)
            run(url, BURN)
            place = await book(database, 1)
            await database.commit([WriteSet(checkpoints=[Checkpoint(READER, place, 0)])])
        with closing(psycopg.connect(url)) as slow:
            slow.execute(OPEN)
            async with opened(url) as late:  # it cannot know that nothing below that place is still to come
                assert await late.read(0, 10) == []
                rebuilding = asyncio.create_task(rebuilt(late))
                await asyncio.sleep(0.2)
                assert not rebuilding.done()
                slow.rollback()
                assert await rebuilding == [("k", 1, 1)]

    asyncio.run(main())


class Forgetful(PostgresDatabase):
    """Its connections are lost whenever a page is about to be read: what it was sure of, it has to find out again."""

    async def read(self, after: int, limit: int, *, backwards: bool = False) -> list[Recorded]:
        assert isinstance(self._horizon, Horizon)
        self._horizon.forget()
        return await super().read(after, limit, backwards=backwards)


def test_what_this_process_was_sure_of_before_it_lost_its_connections_is_waited_for(postgres: Databases) -> None:
    url = postgres.make()

    async def main() -> None:
        async with opened(url, Forgetful) as database:
            await made(database)
            run(url, BURN)
            place = await book(database, 1)
            await database.commit([WriteSet(checkpoints=[Checkpoint(READER, place, 0)])])
            assert await database.head() == place
            with closing(psycopg.connect(url)) as slow:
                slow.execute(OPEN)
                rebuilding = asyncio.create_task(rebuilt(database))
                await asyncio.sleep(0.2)
                assert not rebuilding.done()
                slow.rollback()
                assert await rebuilding == [("k", 1, 1)]

    asyncio.run(main())


@asynccontextmanager
async def live_and_built(postgres: Databases) -> AsyncIterator[tuple[PostgresDatabase, PostgresDatabase]]:
    """The database of a reader and that of a rebuild, with the live table and the one that was built."""
    url = postgres.make()
    async with opened(url) as reading, opened(url) as rebuilding:
        await reading.create_table(TABLE)
        await reading.create_table(BUILT)
        yield reading, rebuilding


def test_the_first_batch_of_the_live_reader_is_not_lost_to_a_swap_beside_it(postgres: Databases) -> None:
    async def main() -> None:
        async with live_and_built(postgres) as (reading, rebuilding):
            async with reading.transaction() as transaction:
                transaction.write([FIRST])
                swapping = asyncio.create_task(rebuilding.swap_table(BUILT, TABLE, READER, "built", 0))
                await asyncio.sleep(0.2)
            assert await swapping is False
            assert await reading.find(TABLE, {}, 10) == [("k", 1, 1)]

    asyncio.run(main())


def test_a_swap_fells_the_first_batch_of_a_live_reader_that_comes_after_it(postgres: Databases) -> None:
    async def main() -> None:
        async with live_and_built(postgres) as (reading, rebuilding):
            assert await rebuilding.swap_table(BUILT, TABLE, READER, "built", 0)
            [answer] = await reading.commit([FIRST])
            assert isinstance(answer, Collision)

    asyncio.run(main())
