"""What only the PostgreSQL database does: URLs and TLS, refusals that say what to do, migrations, upkeep, rows for other tools."""

from __future__ import annotations

import asyncio
import json
import traceback
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import LiteralString

import psycopg
import pytest

from headwater.adapters.postgres import PostgresChannel, PostgresDatabase, database, server
from headwater.adapters.postgres.connection import Connection
from headwater.adapters.postgres.migrations import split
from headwater.adapters.postgres.server import BEGIN, COMMIT, Server
from headwater.adapters.postgres.statement import Statement
from headwater.adapters.postgres.url import Place
from headwater.channel import Publication
from headwater.checkpoint import Checkpoint
from headwater.cli import main
from headwater.clock import SystemClock
from headwater.database import Collision, Database, Failed, WriteSet
from headwater.errors import ConfigurationError, DatabaseError, HeadwaterError, SchemaMismatch
from headwater.inbox import Mark, Reason, Release
from headwater.message import JSON, Draft, Metadata, encode_metadata
from headwater.store import ANY, Append, CommandKey, Committed
from headwater.table import Column, Table, Upsert
from headwater.testing.contracts.database.values import A, committing, held
from headwater.timer import SagaState, Timer
from tests.servers.postgres import WITH_PASSWORD, Databases, run

CLOCK = SystemClock()
UUID = "0193a5b2-7c1d-7e3f-8a4b-5c6d7e8f9a0b"
SECRET = "alice@example.org"


def appending(
    stream: str = "bank.Account/a",
    message_id: str = UUID,
    data: bytes = b'{"cents":5}',
    meta: bytes = b'{"actor":"ada"}',
) -> WriteSet:
    draft = Draft("event", message_id, "bank.Paid", 1, JSON, 1, data, meta)
    return WriteSet(appends=[Append(stream, ANY, [draft])])


def named(stream: str, expect: int, count: int = 1) -> WriteSet:
    """Events for a stream that is at a version."""
    drafts = [Draft("event", CLOCK.new_id(), "bank.Paid", 1, JSON, 1, b"{}", b"{}") for _ in range(count)]
    return WriteSet(appends=[Append(stream, expect, drafts)])


@asynccontextmanager
async def opened(url: str, upgrade: bool = False) -> AsyncIterator[PostgresDatabase]:
    found = PostgresDatabase(url, CLOCK)
    await found.open(upgrade=upgrade)
    try:
        yield found
    finally:
        await found.close()


def refusal(url: str) -> str:
    """What `open` says, and what is raised with it never holds a password."""

    async def main() -> str:
        with pytest.raises((ConfigurationError, DatabaseError)) as caught:
            await PostgresDatabase(url, CLOCK).open()
        assert "hunter2" not in "".join(traceback.format_exception(caught.value))
        return str(caught.value)

    return asyncio.run(main())


# --- urls ---


def test_it_is_a_database() -> None:
    found: Database = PostgresDatabase("postgresql://ada@localhost/bank", CLOCK)
    assert (found.capabilities.sql, found.capabilities.durable) == (True, True)
    with pytest.raises(DatabaseError, match="not open"):
        asyncio.run(found.head())
    asyncio.run(found.close())


@pytest.mark.parametrize(
    "url",
    ["postgresql://", "postgresql:///", "postgresql://ada:hunter2@host", "postgresql://h/b?hunter2=1", "mysql://h/b"],
)
def test_other_urls_are_refused_with_an_example(url: str) -> None:
    with pytest.raises(ConfigurationError, match="postgresql://user@host:5432/database") as caught:
        PostgresDatabase.from_url(url, CLOCK)
    assert "hunter2" not in str(caught.value)


@pytest.mark.parametrize(
    ("url", "mode"),
    [
        ("postgresql://ada@localhost/bank", None),
        ("postgresql://ada@127.0.0.1:5433/bank", None),
        ("postgresql://ada@[::1]/bank", None),
        ("postgresql://ada@/bank?host=/var/run/postgresql", None),
        ("postgresql://ada@db.example.org/bank", "verify-full"),
        ("postgresql://ada@localhost,db.example.org/bank", "verify-full"),
        ("postgresql://ada@10.0.0.1/bank", "verify-full"),
        ("postgresql://ada@10.0.0.1/bank?sslmode=disable", "disable"),
    ],
)
def test_off_this_machine_tls_is_demanded_unless_the_url_names_otherwise(url: str, mode: str | None) -> None:
    assert Place(url).options.get("sslmode") == mode


def test_a_server_without_tls_is_refused_where_it_is_demanded(postgres: Databases) -> None:
    said = refusal(f"{postgres.make()}?sslmode=verify-full")
    assert "offers no TLS" in said


# --- refusals ---


def test_a_wrong_password_is_said_and_not_shown(postgres: Databases) -> None:
    if postgres.server is None:
        pytest.skip("the given server has no user with a password")
    url = postgres.make()
    postgres.run(f"DROP ROLE IF EXISTS {WITH_PASSWORD}")
    postgres.run(f"CREATE ROLE {WITH_PASSWORD} LOGIN PASSWORD 'right'")
    name = url.rpartition("/")[2]
    said = refusal(postgres.url(name, f"{WITH_PASSWORD}:hunter2"))
    assert f"refused the password of {WITH_PASSWORD}: check the URL of the store" in said
    assert "wants a password" in refusal(postgres.url(name, WITH_PASSWORD))


def test_a_missing_database_user_or_server_is_said(postgres: Databases) -> None:
    url = postgres.make()
    assert "there is no database nowhere on the server: make it (createdb nowhere)" in refusal(postgres.url("nowhere"))
    assert "knows no user nobody" in refusal(postgres.url(url.rpartition("/")[2], "nobody"))
    assert "cannot be reached: start the server" in refusal("postgresql://ada@127.0.0.1:1/bank")


def test_a_missing_right_is_said(postgres: Databases) -> None:
    url = postgres.make()
    postgres.run("DROP ROLE IF EXISTS headwater_guest")
    postgres.run("CREATE ROLE headwater_guest LOGIN")
    said = refusal(postgres.url(url.rpartition("/")[2], "headwater_guest"))
    assert "headwater_guest lacks a right" in said
    assert "headwater db" in said


def test_an_old_server_is_refused(postgres: Databases, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(server, "OLDEST", 990_000)
    assert "13 or newer is needed" in refusal(postgres.make())


def test_a_database_that_may_lose_what_it_answered_is_refused(postgres: Databases) -> None:
    url = postgres.make()
    run(url, f"ALTER DATABASE {url.rpartition('/')[2]} SET synchronous_commit = off")
    assert "synchronous_commit" in refusal(url)


def test_the_detail_of_a_server_s_error_is_never_shown(postgres: Databases) -> None:
    async def main() -> None:
        async with opened(postgres.make()) as found:
            async with found.transaction() as transaction:
                transaction.execute("CREATE TABLE people (email text PRIMARY KEY, age integer)")
                transaction.execute("INSERT INTO people VALUES (?, 1)", (SECRET,))
            for sql in (
                "INSERT INTO people VALUES (?, 1)",
                "INSERT INTO people VALUES ('x', cast(? AS text)::integer)",
            ):
                with pytest.raises(DatabaseError if "cast" not in sql else Exception) as caught:
                    async with found.transaction() as transaction:
                        transaction.execute(sql, (SECRET,))
                assert SECRET not in "".join(traceback.format_exception(caught.value))

    asyncio.run(main())


# --- migrations ---


def test_a_newer_schema_is_refused(postgres: Databases) -> None:
    async def main() -> None:
        url = postgres.make()
        async with opened(url):
            pass
        run(url, "INSERT INTO headwater.schema_versions VALUES ('database', 99, 0)")
        with pytest.raises(SchemaMismatch, match="upgrade headwater"):
            await PostgresDatabase(url, CLOCK).open()

    asyncio.run(main())


def test_an_older_schema_is_upgraded_when_asked(postgres: Databases, monkeypatch: pytest.MonkeyPatch) -> None:
    async def main() -> None:
        url = postgres.make()
        async with opened(url) as found:
            await found.commit([appending()])
        monkeypatch.setattr(
            database, "MIGRATIONS", (*database.MIGRATIONS, "ALTER TABLE headwater.held ADD COLUMN more int;\n")
        )
        with pytest.raises(SchemaMismatch, match="headwater db upgrade"):
            await PostgresDatabase(url, CLOCK).open()
        async with opened(url, upgrade=True) as found:
            assert (await found.status())["schema"] == {"database": len(database.MIGRATIONS)}
            assert await found.query("SELECT count(more) FROM headwater.held") == [(0,)]
            assert await found.head() == 1
        async with opened(url):
            pass

    asyncio.run(main())


def test_a_failed_upgrade_changes_nothing(postgres: Databases, monkeypatch: pytest.MonkeyPatch) -> None:
    async def main() -> None:
        url = postgres.make()
        async with opened(url):
            pass
        scripts = (*database.MIGRATIONS, "CREATE TABLE headwater.more (n int);\nSELECT nonsense;\n")
        monkeypatch.setattr(database, "MIGRATIONS", scripts)
        with pytest.raises(DatabaseError):
            await PostgresDatabase(url, CLOCK).open(upgrade=True)
        monkeypatch.undo()
        async with opened(url) as found:
            assert await found.query("SELECT to_regclass('headwater.more')") == [(None,)]

    asyncio.run(main())


def test_processes_that_start_at_once_make_the_tables_once(postgres: Databases) -> None:
    async def main() -> None:
        url = postgres.make()
        found = [PostgresDatabase(url, CLOCK) for _ in range(8)]
        await asyncio.gather(*(one.open() for one in found))
        for one in found:
            assert isinstance((await one.commit([appending()]))[0], Committed)
        await asyncio.gather(*(one.close() for one in found))
        assert run(url, "SELECT count(*) FROM headwater.events") == [(8,)]

    asyncio.run(main())


def test_an_administrator_may_make_the_tables_from_the_printed_sql(postgres: Databases) -> None:
    async def main() -> None:
        url = postgres.make()
        for statement in await PostgresDatabase(url, CLOCK).statements():
            run(url, statement)
        postgres.run("DROP ROLE IF EXISTS headwater_clerk")
        postgres.run("CREATE ROLE headwater_clerk LOGIN")
        run(url, "GRANT USAGE ON SCHEMA headwater TO headwater_clerk")
        run(url, "GRANT SELECT, INSERT, UPDATE, DELETE ON ALL TABLES IN SCHEMA headwater TO headwater_clerk")
        run(url, "GRANT USAGE ON ALL SEQUENCES IN SCHEMA headwater TO headwater_clerk")
        async with opened(postgres.url(url.rpartition("/")[2], "headwater_clerk")) as found:
            assert isinstance((await found.commit([appending()]))[0], Committed)
        run(url, "REASSIGN OWNED BY headwater_clerk TO postgres; DROP OWNED BY headwater_clerk")
        postgres.run("DROP ROLE headwater_clerk")

    asyncio.run(main())


def test_a_script_is_split_at_its_statements() -> None:
    script = "CREATE TABLE a ();\nCREATE FUNCTION f() AS $$\nBEGIN\n    x;\nEND $$;\nCREATE INDEX b;\n"
    assert split(script) == ["CREATE TABLE a ()", "CREATE FUNCTION f() AS $$\nBEGIN\n    x;\nEND $$", "CREATE INDEX b"]


# --- rows ---


@pytest.mark.parametrize(
    "message_id", [UUID, UUID.upper(), "order-17", UUID[:-1] + "g", "0" * 36, "-" * 36, str(UUID)[:-1]]
)
def test_ids_of_any_form_read_back(postgres: Databases, message_id: str) -> None:
    async def main() -> None:
        async with opened(postgres.make()) as found:
            await found.commit([appending(message_id=message_id)])
            assert (await found.read(0, 1))[0].id == message_id

    asyncio.run(main())


def test_other_tools_can_query_the_log_and_cannot_write(postgres: Databases) -> None:
    async def main() -> None:
        async with opened(postgres.make()) as found:
            await found.commit([appending()])
            sql = "SELECT stream, data::jsonb ->> 'cents', id, actor FROM headwater_events"
            assert await found.query(sql) == [("bank.Account/a", "5", UUID, "ada")]
            with pytest.raises(DatabaseError):
                await found.query("DELETE FROM headwater.events")

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
        Metadata("", "", "", "\0\0 \\u0000 \\\0", "a\0"),
    ],
)
def test_other_tools_read_ids_and_metadata_as_text(postgres: Databases, metadata: Metadata) -> None:
    async def main() -> None:
        async with opened(postgres.make()) as found:
            await found.commit([appending(meta=encode_metadata(metadata))])
            sql = "SELECT id, correlation, causation, traceparent, actor, tenant FROM headwater_events"
            [(name, *values)] = await found.query(sql)
            assert name == UUID
            shown = Metadata(*(value.replace("\u2400", "\0") if value else "" for value in values))
            assert shown == metadata
            assert (await found.read(0, 1))[0].metadata == metadata

    asyncio.run(main())


def test_the_view_shows_what_is_no_json_in_hexadecimal_digits(postgres: Databases) -> None:
    async def main() -> None:
        async with opened(postgres.make()) as found:
            draft = Draft("event", "no uuid", "bank.Paid", 1, 7, 1, b"\xff\0", b"")
            await found.commit([WriteSet(appends=[Append("bank.Account/a", ANY, [draft])])])
            assert await found.query("SELECT id, data, actor FROM headwater_events") == [("no uuid", "ff00", None)]

    asyncio.run(main())


def test_a_value_that_no_row_can_hold_fells_its_set_alone(postgres: Databases) -> None:
    async def main() -> None:
        async with opened(postgres.make()) as found:
            table = Table("people", [Column("name", "text"), Column("age", "integer"), Column("more", "json")])
            await found.create_table(table)
            bad = [("b", 2**63, {}), ("c", 1.5, {}), (7, 1, {}), ("d", 1)]
            wrong = [WriteSet(upserts=[Upsert(table, [row])]) for row in bad]
            answers = await found.commit([appending(), appending("\udc80"), *wrong, appending()])
            assert [type(one) for one in answers] == [Committed, *[Failed] * 5, Committed]
            assert not any(one.error.retryable for one in answers if isinstance(one, Failed))
            assert await found.find(table, {}, 10) == []

    asyncio.run(main())


@pytest.mark.parametrize("text", ["\0", "\1", "\0\1", "\1\0", "\0\0\1\1\2", "\2", "a\0b"])
def test_text_with_nul_is_kept(postgres: Databases, text: str) -> None:
    async def main() -> None:
        async with opened(postgres.make()) as found:
            streams = [text, f"{text}\0", f"{text}\1", f"{text}\2", f"{text}x"]
            await found.commit([appending(stream, text) for stream in streams])
            log = await found.read(0, 10)
            assert [(one.stream, one.id) for one in log] == [(stream, text) for stream in streams]
            past = await found.read_streams(dict.fromkeys(streams, 0))
            assert set(past) == set(streams)

    asyncio.run(main())


@pytest.mark.parametrize(
    "value", ["\0", "\1\1", "\1\2", "\\u0000", {"\0": ["\0\1", "\\\0", 1.5e300, -0.0, 1e22]}, ["\1\1"], [], None, 12]
)
def test_json_is_kept_as_it_was(postgres: Databases, value: object) -> None:
    async def main() -> None:
        async with opened(postgres.make()) as found:
            table = Table("notes", [Column("name", "text"), Column("note", "json")])
            await found.create_table(table)
            await found.commit([WriteSet(upserts=[Upsert(table, [("a", value), ("b", "other")])])])
            assert repr(await found.rows(table, [("a",)])) == repr({("a",): ("a", value)})
            assert await found.find(table, {"note": value}, 10) == [("a", value)]

    asyncio.run(main())


def test_parameters_are_question_marks_as_on_sqlite_or_numbers(postgres: Databases) -> None:
    async def main() -> None:
        async with opened(postgres.make()) as found, found.transaction() as transaction:
            transaction.execute('CREATE TABLE notes (note text, "odd?" integer)')
            transaction.execute("INSERT INTO notes VALUES ('why?', 7), (?, ?) -- really?", ("100 %", 8))
            rows = transaction.execute('SELECT note, "odd?" FROM notes WHERE "odd?" >= $1 ORDER BY 2', (7,))
            assert rows == [("why?", 7), ("100 %", 8)]
            assert transaction.execute("SELECT note FROM notes WHERE note LIKE '100 %'") == [("100 %",)]

    asyncio.run(main())


def test_a_statement_that_failed_undoes_the_transaction_or_its_savepoint(postgres: Databases) -> None:
    async def main() -> None:
        async with opened(postgres.make()) as found:
            async with found.transaction() as transaction:
                transaction.write([appending()])
                with pytest.raises(DatabaseError, match="nowhere"):
                    async with transaction.savepoint():
                        transaction.execute("SELECT * FROM nowhere")
            assert await found.head() == 1
            with pytest.raises(DatabaseError, match="undone"):
                async with found.transaction() as transaction:
                    transaction.write([appending()])
                    with pytest.raises(DatabaseError):
                        transaction.execute("SELECT * FROM nowhere")
            with pytest.raises(DatabaseError, match="ended itself"):
                async with found.transaction() as transaction:
                    transaction.execute("ROLLBACK")
            assert await found.head() == 1

    asyncio.run(main())


def test_what_is_broken_off_ends_its_connection_and_asks_the_server_for_nothing(
    postgres: Databases, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def asked(*_: object, **__: object) -> None:
        raise AssertionError("a pooler may end of a request to cancel")

    monkeypatch.setattr(psycopg.AsyncConnection, "_try_cancel", asked)
    url = postgres.make()

    async def main() -> None:
        connection = await Server(Place(url)).connect()
        waiting = asyncio.create_task(connection.exchange([Statement("SELECT pg_sleep(30)")]))
        await asyncio.sleep(0.2)
        waiting.cancel()
        with pytest.raises(asyncio.CancelledError):
            async with asyncio.timeout(5):
                await waiting
        assert connection.closed

    asyncio.run(main())


def test_sets_that_only_append_at_versions_they_name_take_one_trip(
    postgres: Databases, monkeypatch: pytest.MonkeyPatch
) -> None:
    trips: list[int] = []
    exchange = Connection.exchange

    async def counted(self: Connection, statements: Sequence[Statement]) -> list[list[tuple[object, ...]]]:
        if statements[0] is BEGIN or statements[-1] is COMMIT:
            trips.append(len(statements))
        return await exchange(self, statements)

    async def trips_of(found: PostgresDatabase, *sets: WriteSet) -> tuple[list[object], int]:
        before = len(trips)
        answers: list[object] = list(await found.commit(sets))
        return answers, len(trips) - before

    monkeypatch.setattr(Connection, "exchange", counted)

    async def main() -> None:
        async with opened(postgres.make()) as found:
            await found.commit([named("a", 0)])  # its connection is made then
            assert await trips_of(found, named("a", 1), named("b", 0, 2), named("a", 2)) == (
                [Committed(2, 2), Committed(4, 2), Committed(5, 3)],
                1,
            )
            assert await trips_of(found, named("a", ANY)) == ([Committed(6, 4)], 2)
            assert await trips_of(found, named("a", 4), named("b", 2), named("b", 1)) == (
                [Committed(7, 5), Committed(8, 3), Collision("stream b is at version 3, expected 1")],
                2,
            )
            answers, count = await trips_of(found, named("a", 9), named("b", 3))
            assert answers == [Collision("stream a is at version 5, expected 9"), Committed(9, 4)]
            assert count > 2, "one of them did not stand: all are judged by what is stored"
            assert (await trips_of(found, named("a", 5)))[1] == 2, "and for a while, what comes next"
            assert await found.verify() == []

    asyncio.run(main())


@pytest.mark.parametrize(
    ("sql", "values"),
    [
        ("SELECT * FROM nowhere", ()),
        ("SELEC 1", ()),
        ("SELEC ?", (1,)),
        ("SELECT 1 / ?::integer", (0,)),
        ("SELECT ?, ?", (1,)),
        ("SELECT ?", (object(),)),
        ("SELECT 1; SELECT ?", (1,)),
    ],
)
def test_whatever_is_wrong_with_a_statement_its_savepoint_alone_is_undone(
    postgres: Databases, sql: str, values: tuple[object, ...]
) -> None:
    async def main() -> None:
        async with opened(postgres.make()) as found:
            async with found.transaction() as transaction:
                transaction.execute("CREATE TABLE notes (note text)")
                for before in (False, True):
                    with pytest.raises(HeadwaterError):
                        async with transaction.savepoint():
                            if before:
                                transaction.execute("INSERT INTO notes VALUES (?)", ("undone",))
                            transaction.execute(sql, values)
                    async with transaction.savepoint():
                        transaction.execute("INSERT INTO notes VALUES (?)", ("kept",))
            assert await found.query("SELECT note FROM notes") == [("kept",)] * 2

    asyncio.run(main())


def test_a_statement_whose_table_has_changed_fails_once_at_most(postgres: Databases) -> None:
    async def read(found: PostgresDatabase) -> list[tuple[object, ...]]:
        async with found.transaction() as transaction:
            return transaction.execute("SELECT * FROM notes WHERE note = ?", ("a",))

    url = postgres.make()

    async def main() -> None:
        async with opened(url) as found:
            async with found.transaction() as transaction:
                transaction.execute("CREATE TABLE notes (note text)")
                transaction.execute("INSERT INTO notes VALUES (?)", ("a",))
            assert await read(found) == [("a",)]
            run(url, "ALTER TABLE notes ADD COLUMN more integer DEFAULT 7")
            with suppress(DatabaseError):
                await read(found)
            assert await read(found) == [("a", 7)]

    asyncio.run(main())


def test_a_savepoint_in_which_nothing_happens_is_none(postgres: Databases) -> None:
    async def main() -> None:
        async with opened(postgres.make()) as found:
            async with found.transaction() as transaction:
                transaction.execute("CREATE TABLE notes (note integer)")
                async with transaction.savepoint():
                    async with transaction.savepoint():
                        assert transaction.connection.info.transaction_status.name == "INTRANS"
                    with pytest.raises(ZeroDivisionError):
                        async with transaction.savepoint():
                            raise ZeroDivisionError
                    transaction.execute("INSERT INTO notes VALUES (?)", (1,))
                with pytest.raises(ZeroDivisionError):
                    async with transaction.savepoint():
                        async with transaction.savepoint():
                            transaction.execute("INSERT INTO notes VALUES (?)", (2,))
                        async with transaction.savepoint():
                            pass
                        raise ZeroDivisionError
                with pytest.raises(ZeroDivisionError):
                    async with transaction.savepoint():
                        raise ZeroDivisionError
                transaction.execute("INSERT INTO notes VALUES (?)", (3,))
                transaction.write([appending()])
            assert await found.query("SELECT note FROM notes") == [(1,), (3,)]
            assert await found.head() == 1

    asyncio.run(main())


@pytest.mark.parametrize("name", ["pg_x", "headwater_x", "a b", 'a"b', "", "1a", "x" * 64])
def test_a_read_model_cannot_take_a_name_that_is_not_free(postgres: Databases, name: str) -> None:
    async def main() -> None:
        async with opened(postgres.make()) as found:
            with pytest.raises(ConfigurationError):
                await found.create_table(Table(name, [Column("a", "text")]))
            await found.create_table(Table("order", [Column("group", "text"), Column("select", "json")]))
            assert await found.find(Table("order", [Column("group", "text")]), {"group": "x"}, 1) == []

    asyncio.run(main())


def test_a_table_of_somebody_else_is_not_taken(postgres: Databases) -> None:
    async def main() -> None:
        async with opened(postgres.make()) as found:
            async with found.transaction() as transaction:
                transaction.execute("CREATE TABLE theirs (a text)")
            with pytest.raises(ConfigurationError, match="no read model"):
                await found.create_table(Table("theirs", [Column("a", "text")]))
            await found.drop_table(Table("theirs", [Column("a", "text")]))
            assert await found.query("SELECT * FROM theirs") == []

    asyncio.run(main())


# --- upkeep ---


@pytest.mark.parametrize(
    ("damage", "words"),
    [
        ("DELETE FROM headwater.events WHERE position = 2", "has 2 messages up to version 3"),
        ("SELECT setval('headwater.positions', 1)", "ends at position 3 and its counter at 1"),
        ("UPDATE headwater.events SET position = 9 WHERE position = 1", "lies at position 2, before"),
        ("INSERT INTO headwater.command_keys VALUES ('acme', 'k', '', 9, 1, 1)", "command key k of tenant 'acme'"),
    ],
)
def test_verify_says_what_is_wrong(postgres: Databases, damage: str, words: str) -> None:
    async def main() -> None:
        url = postgres.make()
        async with opened(url) as found:
            await found.commit([appending(), appending(), appending()])
            assert await found.verify() == []
            run(url, damage)
            assert any(words in line for line in await found.verify())

    asyncio.run(main())


def test_status_says_what_is_there_also_before_anything_is(postgres: Databases) -> None:
    async def main() -> None:
        url = postgres.make()
        with pytest.raises(DatabaseError, match="no tables of Headwater"):
            await PostgresDatabase(url, CLOCK).status()
        async with opened(url) as found:
            await found.commit([appending()])
            status = await found.status()
            assert (status["position"], status["held"], status["schema"]) == (
                1,
                0,
                {"database": len(database.MIGRATIONS)},
            )
            with pytest.raises(ConfigurationError, match="pg_dump"):
                await found.backup("copy")

    asyncio.run(main())


def test_a_log_that_was_dumped_and_restored_elsewhere_is_read_whole(postgres: Databases) -> None:
    async def main() -> None:
        old, new = postgres.make(), postgres.make()
        async with opened(old) as found:
            await found.commit([appending() for _ in range(50)])
            log = await found.read(0, 100)
        async with opened(new) as found:
            with psycopg.connect(old) as source, psycopg.connect(new) as target:
                copy = "COPY headwater.events {} WITH (FORMAT binary)"
                with (
                    source.cursor().copy(copy.format("TO STDOUT")) as given,
                    target.cursor().copy(copy.format("FROM STDIN")) as taken,
                ):
                    for data in given:
                        taken.write(data)
                target.execute("SELECT setval('headwater.positions', 50)")
            assert await found.read(0, 100) == log
            (answer,) = await found.commit([appending()])
            assert answer == Committed(51, 51)

    asyncio.run(main())


# --- races ---


RETRIED = WriteSet(releases=[Release("mail", A, 1)])
ARRIVED = WriteSet(holds=[held(A, 2, Reason.BEHIND)])


@pytest.mark.parametrize(("first", "second"), [(RETRIED, ARRIVED), (ARRIVED, RETRIED)])
def test_what_comes_behind_a_held_message_while_that_is_retried_elsewhere_is_held_by_its_key(
    first: WriteSet, second: WriteSet, postgres: Databases
) -> None:
    async def main() -> None:
        url = postgres.make()
        async with opened(url) as retrying, opened(url) as feeding:
            await committing(retrying, WriteSet(holds=[held(A, 1, Reason.RETRY, due=1)]))
            async with retrying.transaction() as transaction:
                transaction.write([first])
                meanwhile = asyncio.create_task(committing(feeding, second))
                await asyncio.sleep(0.2)
            await meanwhile
            assert await feeding.held_keys("mail", [A]) == {A}
            assert [row.message.version for row in await feeding.held_due("mail", CLOCK.now(), 10)] == [2]

    asyncio.run(main())


# --- the command line ---


def test_the_command_line_keeps_a_database_up(
    postgres: Databases, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    def command(*words: str) -> tuple[int, str]:
        code = main([*words, "--store", url])
        return code, "".join(capsys.readouterr())

    url = postgres.make()
    for looking in (("db", "status"), ("events", "list")):
        code, said = command(*looking)
        assert code != 0
        assert "no tables of Headwater" in said
    assert run(url, "SELECT to_regclass('headwater.events')") == [(None,)]
    assert command("db", "init")[1].strip().endswith("is made")
    assert command("db", "init")[1].strip().endswith("was there, and is current")
    assert command("db", "verify") == (0, "whole\n")
    assert command("db", "upgrade") == (0, f"nothing to do: database version {len(database.MIGRATIONS)}\n")
    assert json.loads(command("db", "status", "--json")[1])["schema"] == {"database": len(database.MIGRATIONS)}
    assert "CREATE TABLE headwater.events (" in command("db", "sql")[1]
    assert command("db", "sql", "SELECT count(*) FROM headwater.events") == (0, "0\n")
    code, said = command("db", "sql", "DELETE FROM headwater.events")
    assert (code, "only reads" in said) == (1, True)
    code, said = command("db", "backup", str(tmp_path / "copy"))
    assert code != 0
    assert "pg_dump" in said


# --- plans ---

READ: LiteralString = """
SELECT relname, seq_tup_read FROM pg_stat_user_tables WHERE schemaname LIKE 'headwater%' AND seq_tup_read > 1000
"""


def test_statements_that_were_prepared_on_empty_tables_read_no_table_whole_when_it_has_grown(
    postgres: Databases,
) -> None:
    url = postgres.make()

    async def main() -> None:
        channel = PostgresChannel(url, CLOCK)
        await channel.open()
        member = await channel.subscribe("mail", ["t"], "one")
        async with opened(url) as found:
            for number in range(300):
                name = str(number)
                moved = WriteSet(
                    key=CommandKey("", name, b"h", 1),
                    appends=[Append(name, 0, [appending().appends[0].drafts[0]])],
                    marks=[Mark("mail", name, 1, 0)],
                    checkpoints=[Checkpoint(name, 1, 0), Checkpoint("mail", number + 1, number)],
                    sagas=[SagaState("buying", name, 0, b"{}", False)],
                    timers=[Timer("buying", name, "late", 1, name, appending().appends[0].drafts[0])],
                )
                assert isinstance((await found.commit([moved]))[0], Committed)
                async with found.transaction() as transaction:
                    (answer,) = transaction.write([WriteSet(marks=[Mark("post", name, 1, 0)])])
                    assert isinstance(answer, Committed)
                assert len(await found.read(number, 10)) == 1
                assert await found.marks("mail", [name, "other"]) == {name: 1}
                assert await found.sagas("buying", [name]) != {}
                await channel.publish([Publication("t", name, {}, b"")])
                await member.acknowledge(await member.fetch(10))
        await channel.close()

    asyncio.run(main())
    assert run(url, READ) == []


LOOKED_AT: LiteralString = """
SELECT indexrelname, idx_tup_read FROM pg_stat_user_indexes WHERE schemaname = 'headwater' AND idx_tup_read > 20000
"""


def test_what_is_known_of_many_streams_costs_a_look_each_in_tables_that_nobody_has_analyzed(
    postgres: Databases,
) -> None:
    """Without statistics PostgreSQL takes all rows of a consumer for a few: it would read them all, and search them."""
    url = postgres.make()
    asked = [str(number) for number in range(1, 401)]

    async def main() -> None:
        async with opened(url) as found:
            for at in range(1, 5001, 500):
                streams = [str(number) for number in range(at, at + 500)]
                messages = [held(stream, 1, Reason.RETRY, due=1) for stream in streams]
                sagas = [SagaState("mail", stream, 0, b"{}", False) for stream in streams]
                marks = [Mark("mail", stream, 1, 0) for stream in streams]
                await committing(found, WriteSet(marks=marks, sagas=sagas, holds=messages))
            with psycopg.connect(url, autocommit=True) as connection:
                connection.execute("SELECT pg_stat_reset()")
            for _ in range(8):
                assert await found.marks("mail", [*asked, "other"]) == dict.fromkeys(asked, 1)
                assert await found.held_keys("mail", [*asked, "other"]) == {*asked}
                assert (await found.sagas("mail", [*asked, "other"])).keys() == {*asked}
            for version in range(1, 9):
                marks = [Mark("mail", stream, version + 1, version) for stream in asked]
                sagas = [SagaState("mail", stream, version, b"{}", False) for stream in asked]
                releases = [Release("mail", str(number), 1) for number in range(400 * version, 400 * version + 400)]
                await committing(found, WriteSet(marks=marks, sagas=sagas, releases=releases))

    asyncio.run(main())
    assert run(url, READ) == []
    assert run(url, LOOKED_AT) == []


# --- prepared statements ---


def test_a_table_that_others_change_is_read_as_it_is_now(postgres: Databases) -> None:
    async def main() -> None:
        url = postgres.make()
        server = Server(Place(url))
        reader, other = await server.connect(), await server.connect()
        read, change = Statement("SELECT * FROM changing"), Statement("ALTER TABLE changing ADD COLUMN b text")
        await other.exchange(
            [Statement("CREATE TABLE changing (a integer)"), Statement("INSERT INTO changing VALUES (1)")]
        )
        assert await reader.exchange([read]) == [[(1,)]]
        await other.exchange([change])
        assert await reader.exchange([read]) == [[(1, None)]]
        await other.exchange([Statement("ALTER TABLE changing DROP COLUMN b")])
        await reader.exchange([BEGIN])
        with pytest.raises(psycopg.errors.FeatureNotSupported):
            await reader.exchange([read])
        await reader.rollback()
        assert await reader.exchange([BEGIN, read, COMMIT]) == [[], [(1,)], []]
        for connection in (reader, other):
            await connection.close()

    asyncio.run(main())


def test_what_comes_after_a_statement_that_fails_is_not_run_and_the_connection_goes_on(postgres: Databases) -> None:
    async def main() -> None:
        connection = await Server(Place(postgres.make())).connect()
        await connection.exchange([Statement("CREATE TABLE kept (a integer)")])
        insert = Statement("INSERT INTO kept VALUES (%s)", (1,))
        with pytest.raises(psycopg.errors.DivisionByZero):
            await connection.exchange([insert, Statement("SELECT 1 / 0"), insert])
        assert await connection.exchange([Statement("SELECT count(*) FROM kept")]) == [[(0,)]]
        assert await connection.exchange([insert, Statement("SELECT a, 'x%%', %(b)s::text FROM kept", {"b": "é"})]) == [
            [],
            [(1, "x%", "é")],
        ]
        await connection.close()

    asyncio.run(main())


def test_who_is_cancelled_while_the_server_works_leaves_a_connection_that_can_be_used_or_is_closed(
    postgres: Databases,
) -> None:
    async def main() -> None:
        connection = await Server(Place(postgres.make())).connect()
        waiting = asyncio.ensure_future(connection.exchange([Statement("SELECT pg_sleep(30)")]))
        await asyncio.sleep(0.2)
        waiting.cancel()
        with pytest.raises(asyncio.CancelledError):
            await waiting
        if not connection.closed:
            assert await connection.exchange([Statement("SELECT 1")]) == [[(1,)]]
            await connection.close()

    asyncio.run(main())
