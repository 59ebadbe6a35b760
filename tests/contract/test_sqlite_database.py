"""What only the SQLite database does: URLs, other processes, rows for other tools, upkeep."""

from __future__ import annotations

import asyncio
import subprocess
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import apsw
import pytest

from headwater.adapters.sqlite import SqliteDatabase
from headwater.adapters.sqlite.file import File
from headwater.adapters.sqlite.migrations import migrate
from headwater.adapters.sqlite.schema import COMPONENT, MIGRATIONS
from headwater.adapters.sqlite.session import Session
from headwater.clock import SystemClock
from headwater.database import Collision, Database, Failed, WriteSet, stands
from headwater.errors import ConfigurationError, DatabaseError, SchemaMismatch, Unknown
from headwater.message import JSON, Draft, Metadata, encode_metadata
from headwater.store import ANY, Append, CommandKey, Committed, Condition, Item, Seen
from headwater.table import Column, Table, Upsert
from headwater.timer import SagaState

CLOCK = SystemClock()
UUID = "0193a5b2-7c1d-7e3f-8a4b-5c6d7e8f9a0b"


ACTOR = encode_metadata(Metadata(actor="ada"))


def appending(
    stream: str = "bank.Account/a", message_id: str = UUID, data: bytes = b'{"cents":5}', meta: bytes = ACTOR
) -> WriteSet:
    draft = Draft("event", message_id, "bank.Paid", 1, JSON, 1, data, meta)
    return WriteSet(appends=[Append(stream, ANY, [draft])])


@asynccontextmanager
async def opened(path: Path) -> AsyncIterator[SqliteDatabase]:
    database = SqliteDatabase(path / "a.db", CLOCK)
    await database.open()
    try:
        yield database
    finally:
        await database.close()


def test_it_is_a_database(tmp_path: Path) -> None:
    database: Database = SqliteDatabase(tmp_path / "a.db", CLOCK)
    assert (database.capabilities.sql, database.capabilities.durable) == (True, True)
    with pytest.raises(DatabaseError, match="not open"):
        asyncio.run(database.head())
    asyncio.run(database.close())


def test_urls_name_files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert SqliteDatabase.from_url("sqlite:///data/a.db", CLOCK).file.path == tmp_path.resolve() / "data" / "a.db"
    assert SqliteDatabase.from_url("sqlite:////var/a%20b.db", CLOCK).file.path == Path("/var/a b.db")


@pytest.mark.parametrize(
    "url", ["sqlite://a.db", "sqlite:///", "sqlite:///a.db?mode=ro", "sqlite:///:memory:", "a.db", "postgres:///a"]
)
def test_other_urls_are_refused_with_an_example(url: str) -> None:
    with pytest.raises(ConfigurationError, match=r"sqlite:///relative/path\.db"):
        SqliteDatabase.from_url(url, CLOCK)


@pytest.mark.parametrize(
    ("message_id", "stored"),
    [(UUID, "blob"), (UUID.upper(), "text"), ("order-17", "text"), (UUID[:-1] + "g", "text"), ("-" * 36, "text")],
)
def test_ids_are_kept_small_if_that_loses_nothing(tmp_path: Path, message_id: str, stored: str) -> None:
    async def main() -> None:
        async with opened(tmp_path) as database:
            await database.commit([appending(message_id=message_id)])
            assert (await database.read(0, 1))[0].id == message_id
            assert await database.query("SELECT typeof(id) FROM events") == [(stored,)]

    asyncio.run(main())


def test_other_tools_can_query_the_log_and_cannot_write(tmp_path: Path) -> None:
    async def main() -> None:
        async with opened(tmp_path) as database:
            await database.commit([appending()])
            sql = "SELECT stream, json_extract(data, '$.cents'), actor, typeof(data) FROM headwater_events"
            assert await database.query(sql) == [("bank.Account/a", 5, "ada", "text")]
            with pytest.raises(DatabaseError):
                await database.query("DELETE FROM events")

    asyncio.run(main())


TRACE = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"


@pytest.mark.parametrize(
    "metadata",
    [
        Metadata(),
        Metadata(UUID),
        Metadata(UUID, UUID.replace("0", "e"), TRACE, "Zoë", "acme"),
        Metadata("", UUID, "", "", "acme"),
        Metadata("", "", TRACE, "ada", ""),
        Metadata("c-1", "m-0", "00-trace", "ada", "acme"),
        Metadata(UUID.upper(), UUID, TRACE + "00"),
    ],
)
def test_other_tools_read_ids_and_metadata_as_text(tmp_path: Path, metadata: Metadata) -> None:
    async def main() -> None:
        async with opened(tmp_path) as database:
            await database.commit([appending(message_id=UUID, meta=encode_metadata(metadata))])
            sql = "SELECT id, correlation, causation, traceparent, actor, tenant FROM headwater_events"
            [(found, *values)] = await database.query(sql)
            assert found == UUID
            assert Metadata(*(value or "" for value in values)) == metadata
            assert (await database.read(0, 1))[0].metadata == metadata

    asyncio.run(main())


def test_a_file_of_the_first_version_is_upgraded_with_its_rows(tmp_path: Path) -> None:
    async def main() -> None:
        path = tmp_path / "old.db"
        migrate(File(path), COMPONENT, MIGRATIONS[:1], now=1)
        old = apsw.Connection(str(path))
        row = "'bank.Account/a', {0}, 'event', '{0}', 'bank.Opened', 1, 0, 7, {0} - 1, '{{}}', '{{\"actor\":\"ada\"}}'"
        for version in (1, 2):
            old.execute(f"INSERT INTO events VALUES (NULL, {row.format(version)})")
        old.close()
        database = SqliteDatabase(path, CLOCK)
        with pytest.raises(SchemaMismatch, match="headwater db upgrade"):
            await database.open()
        await database.open(upgrade=True)
        found = await database.read(0, 10)
        assert [(one.position, one.version, one.id, one.metadata.actor) for one in found] == [
            (1, 1, "1", "ada"),
            (2, 2, "2", "ada"),
        ]
        assert await database.query("SELECT actor FROM headwater_events") == [("ada",), ("ada",)]
        [answer] = await database.commit([appending()])
        assert stands(answer).position == 3
        assert await database.verify() == []
        await database.close()

    asyncio.run(main())


def test_a_file_of_the_second_version_has_events_without_tags_and_takes_new_ones(tmp_path: Path) -> None:
    async def main() -> None:
        path = tmp_path / "old.db"
        migrate(File(path), COMPONENT, MIGRATIONS[:2], now=1)
        old = apsw.Connection(str(path))
        old.execute(
            "INSERT INTO events VALUES (1, 'bank.Account/a', 1, 'event', '1', 'bank.Opened', 1, 0, 7, 0, '{}', '{}')"
        )
        old.close()
        database = SqliteDatabase(path, CLOCK)
        await database.open(upgrade=True)
        items = (Item(("bank.Opened",)), Item(tags=("owner:ada",)))
        relevant = await database.read_relevant(items, Seen())
        assert [(one.position, places) for one, places in relevant.events] == [(1, [0])]
        tagged = Draft("event", "id", "bank.Closed", 1, JSON, 7, b"{}", b"{}", ("owner:ada",))
        append = WriteSet(appends=[Append("x", 0, [tagged])], conditions=[Condition(items, relevant.seen)])
        assert [type(answer) for answer in await database.commit([append, append])] == [Committed, Collision]
        assert await database.verify() == []
        await database.close()
        broken = apsw.Connection(str(path))
        broken.execute("UPDATE event_tags SET type = 'bank.Opened'")
        broken.close()
        await database.open()
        assert await database.verify() == ["tag owner:ada stands at position 2, where the log has no such event"]
        await database.close()

    asyncio.run(main())


CHILD = """
import asyncio, sys
sys.path.insert(0, sys.argv[2])
from test_sqlite_database import CLOCK, SqliteDatabase, appending

async def main():
    database = SqliteDatabase(sys.argv[1], CLOCK)
    await database.open()
    async def one():
        while True:
            (answer,) = await database.commit([appending()])
            print(answer.position, flush=True)
    await asyncio.gather(*(one() for _ in range(4)))

asyncio.run(main())
"""


def _start(path: Path) -> subprocess.Popen[str]:
    arguments = [sys.executable, "-c", CHILD, str(path), str(Path(__file__).parent)]
    return subprocess.Popen(arguments, stdout=subprocess.PIPE, text=True)


def test_processes_share_a_file_and_what_one_was_answered_survives_its_kill(tmp_path: Path) -> None:
    async def main() -> None:
        async with opened(tmp_path) as database:
            children = [_start(database.file.path) for _ in range(2)]
            ours = []
            while await database.head() < 300:
                answers = await database.commit([appending()])
                ours += [answer.position for answer in answers if isinstance(answer, Committed)]
            told = list(ours)
            for child in children:
                child.kill()
                told += [int(line) for line in child.communicate()[0].split("\n")[:-1]]
            log = await database.read(0, 100_000)
            assert [one.position for one in log] == [one.version for one in log] == list(range(1, len(log) + 1))
            assert len(told) == len(set(told))
            assert set(told) <= {one.position for one in log}
            assert await database.verify() == []

    asyncio.run(main())


def test_a_program_that_does_not_take_our_lock_is_waited_for(tmp_path: Path) -> None:
    async def main() -> None:
        async with opened(tmp_path) as database:
            await database.commit([appending()])
            other = apsw.Connection(str(database.file.path))
            other.execute("BEGIN IMMEDIATE; DELETE FROM events")
            task = asyncio.create_task(database.commit([appending()]))
            await asyncio.sleep(0.1)
            other.execute("COMMIT")
            other.close()
            assert [type(answer) for answer in await task] == [Committed]

    asyncio.run(main())


def test_an_unknown_outcome_names_its_command_key(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    async def main() -> None:
        async with opened(tmp_path) as database:

            def lost(self: object, connection: apsw.Connection) -> None:
                connection.execute("COMMIT")
                raise Unknown(cause="disk I/O error")

            (append,) = appending().appends
            write = WriteSet(appends=[append], key=CommandKey("", "k", b"h", 1))
            with monkeypatch.context() as patch:
                patch.setattr(Session, "commit", lost)
                keyed, plain = await database.commit([write, appending()])
            assert isinstance(keyed, Unknown)
            assert isinstance(plain, Unknown)
            assert (keyed.key, plain.key) == ("k", "")
            assert "disk I/O error" in str(keyed)
            assert await database.commit([write]) == [Committed(1, 1, repeated=True)]

    asyncio.run(main())


def test_a_value_that_no_row_can_hold_fells_its_set_alone(tmp_path: Path) -> None:
    async def main() -> None:
        async with opened(tmp_path) as database:
            answers = await database.commit([appending(), appending(stream="\udc80"), appending()])
            assert [type(answer) for answer in answers] == [Committed, Failed, Committed]
            assert isinstance(answers[1], Failed)
            assert not answers[1].error.retryable

    asyncio.run(main())


@pytest.mark.parametrize("name", ["events", "sqlite_x", "headwater_x", "a b", 'a"b', "", "1a", "x" * 64])
def test_a_read_model_cannot_take_a_name_that_is_not_free(tmp_path: Path, name: str) -> None:
    async def main() -> None:
        async with opened(tmp_path) as database:
            with pytest.raises(ConfigurationError):
                await database.create_table(Table(name, [Column("a", "text")]))
            with pytest.raises(ConfigurationError):
                await database.create_table(Table("fine", [Column("a", "varchar")]))
            await database.create_table(Table("order", [Column("group", "text"), Column("select", "json")]))
            assert await database.find(Table("order", [Column("group", "text")]), {"group": "x"}, 1) == []

    asyncio.run(main())


def test_a_saga_s_state_may_be_any_bytes(tmp_path: Path) -> None:
    async def main() -> None:
        async with opened(tmp_path) as database:
            state = SagaState("billing", "i-1", 0, b"\x00\xff")
            assert [type(answer) for answer in await database.commit([WriteSet(sagas=[state])])] == [Committed]
            assert (await database.sagas("billing", ["i-1"]))["i-1"].data == b"\x00\xff"

    asyncio.run(main())


def test_a_real_that_is_not_a_number_is_refused(tmp_path: Path) -> None:
    async def main() -> None:
        async with opened(tmp_path) as database:
            table = Table("rates", [Column("id", "text"), Column("rate", "real")])
            await database.create_table(table)
            bad, good = (WriteSet(upserts=[Upsert(table, [("a", rate)])]) for rate in (float("nan"), float("inf")))
            assert [type(answer) for answer in await database.commit([bad, good])] == [Failed, Committed]
            assert await database.find(table, {}, 10) == [("a", float("inf"))]

    asyncio.run(main())


def test_a_table_of_somebody_else_is_not_taken(tmp_path: Path) -> None:
    async def main() -> None:
        async with opened(tmp_path) as database:
            async with database.transaction() as transaction:
                transaction.execute("CREATE TABLE theirs (a TEXT)")
            table = Table("theirs", [Column("a", "text")])
            with pytest.raises(ConfigurationError, match="no read model"):
                await database.create_table(table)
            await database.drop_table(table)
            assert await database.query("SELECT * FROM theirs") == []

    asyncio.run(main())


def test_a_transaction_that_is_ended_by_its_own_sql_is_an_error(tmp_path: Path) -> None:
    async def main() -> None:
        async with opened(tmp_path) as database:
            with pytest.raises(DatabaseError, match="ended itself"):
                async with database.transaction() as transaction:
                    transaction.execute("ROLLBACK")
            async with database.transaction() as transaction:
                with pytest.raises(DatabaseError, match="no such table"):
                    transaction.execute("SELECT * FROM nowhere")
                transaction.write([appending()])
            assert await database.head() == 1

    asyncio.run(main())


def test_a_backup_is_a_whole_database(tmp_path: Path) -> None:
    async def main() -> None:
        copy = tmp_path / "copies" / "a.db"
        copy.parent.mkdir()
        async with opened(tmp_path) as database:
            await database.commit([appending(), appending()])
            await database.backup(copy)
            with pytest.raises(ConfigurationError, match="exists"):
                await database.backup(copy)
            await database.commit([appending()])
        async with opened(copy.parent) as other:
            assert await other.head() == 2
            assert await other.verify() == []

    asyncio.run(main())


@pytest.mark.parametrize(
    ("damage", "words"),
    [
        ("DELETE FROM events WHERE position = 2", "has 2 messages up to version 3"),
        ("UPDATE events SET previous = 0 WHERE position = 3", "version 3 names 0"),
        ("UPDATE events SET position = 9 WHERE position = 1", "lies at position 2, before"),
        ("INSERT INTO command_keys VALUES ('acme', 'k', x'', 9, 1, 1)", "command key k of tenant 'acme'"),
    ],
)
def test_verify_says_what_is_wrong(tmp_path: Path, damage: str, words: str) -> None:
    async def main() -> None:
        async with opened(tmp_path) as database:
            await database.commit([appending(), appending(), appending()])
            assert await database.verify() == []
            async with database.transaction() as transaction:
                transaction.execute(damage)
            assert any(words in line for line in await database.verify())

    asyncio.run(main())


def test_status_and_statements_show_the_file(tmp_path: Path) -> None:
    async def main() -> None:
        async with opened(tmp_path) as database:
            await database.commit([appending()])
            status = await database.status()
            assert (status["position"], status["held"], status["schema"]) == (1, 0, {"database": 3})
            assert any(sql.startswith("CREATE TABLE events") for sql in await database.statements())

    asyncio.run(main())
