"""How a SQLite file is opened, refused, migrated and guarded."""

from __future__ import annotations

import errno
import os
from collections.abc import Callable
from pathlib import Path

import apsw
import pytest

from headwater.adapters.sqlite import room
from headwater.adapters.sqlite.faults import translate
from headwater.adapters.sqlite.file import PRAGMAS, File, Reader
from headwater.adapters.sqlite.migrations import migrate, version_of
from headwater.adapters.sqlite.room import make_room, wanted
from headwater.adapters.sqlite.session import OFTEN, Session
from headwater.errors import (
    ConfigurationError,
    DatabaseError,
    DatabaseFull,
    DatabaseReadOnly,
    HeadwaterError,
    SchemaError,
    SchemaMismatch,
)

ONE = "CREATE TABLE one (a INTEGER NOT NULL) STRICT"
TWO = "ALTER TABLE one ADD COLUMN b TEXT"


@pytest.fixture
def file(tmp_path: Path) -> File:
    return File(tmp_path / "a.db")


def test_every_connection_has_our_settings(file: File) -> None:
    connection = file.connect()
    assert {name: connection.pragma(name) for name in PRAGMAS} == PRAGMAS
    assert PRAGMAS["synchronous"] == 2
    connection.close()


def test_a_reader_cannot_write(file: File) -> None:
    migrate(file, "test", [ONE], now=1)
    reader = Reader(file)
    with pytest.raises(DatabaseReadOnly):
        reader.rows("INSERT INTO one VALUES (1)")
    reader.close()
    with pytest.raises(DatabaseError, match="closed"):
        reader.rows("SELECT 1")


@pytest.mark.parametrize("version", ["3.40.1", "3.51.2"])
def test_a_sqlite_with_the_wal_reset_bug_is_refused(file: File, monkeypatch: pytest.MonkeyPatch, version: str) -> None:
    monkeypatch.setattr(apsw, "sqlite_lib_version", lambda: version)
    with pytest.raises(ConfigurationError, match=rf"{version} .*upgrade apsw"):
        file.connect()


def test_a_missing_folder_is_named(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match=r"folder .*nowhere does not exist"):
        migrate(File(tmp_path / "nowhere" / "a.db"), "test", [ONE], now=1)


def test_a_folder_is_no_file(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match="is a folder"):
        migrate(File(tmp_path), "test", [ONE], now=1)
    assert not Path(f"{tmp_path}.lock").exists()


def test_what_is_no_database_is_refused(file: File) -> None:
    file.path.write_text("this is no database, whatever its name says")
    with pytest.raises(ConfigurationError, match="restore it from a backup"):
        migrate(file, "test", [ONE], now=1)


@pytest.mark.parametrize(
    ("fault", "error"),
    [
        (apsw.FullError(), DatabaseFull),
        (OSError(errno.ENOSPC, "full"), DatabaseFull),
        (apsw.ReadOnlyError(), DatabaseReadOnly),
        (OSError(errno.EROFS, "read only"), DatabaseReadOnly),
        (PermissionError(errno.EACCES, "denied"), DatabaseReadOnly),
        (apsw.CorruptError(), ConfigurationError),
        (apsw.IOError("disk I/O error"), DatabaseError),
        (apsw.BusyError(), DatabaseError),
        (OverflowError("too large"), SchemaError),
        (ZeroDivisionError("of a fold"), DatabaseError),
    ],
)
def test_every_fault_has_an_error_that_says_what_to_do(
    file: File, fault: Exception, error: type[HeadwaterError]
) -> None:
    assert type(translate(fault, file.path)) is error
    assert len(str(translate(fault, file.path))) > 20


def _in_child(act: Callable[[], object]) -> str:
    """What acting in a forked child raised."""
    out, into = os.pipe()
    if os.fork() == 0:  # pragma: no cover - the child
        try:
            act()
            os.write(into, b"nothing")
        except ConfigurationError as error:
            os.write(into, str(error).encode())
        finally:
            os._exit(0)
    os.close(into)
    with os.fdopen(out) as pipe:
        return pipe.read()


@pytest.mark.filterwarnings("ignore:.*multi-threaded.*fork:DeprecationWarning")
def test_a_forked_child_is_refused(file: File) -> None:
    migrate(file, "test", [ONE], now=1)
    reader = Reader(file)
    assert "forked" in _in_child(lambda: reader.rows("SELECT 1"))
    assert "forked" in _in_child(file.connect)
    assert reader.rows("SELECT 1") == [(1,)]
    reader.close()


@pytest.mark.filterwarnings("ignore:.*multi-threaded.*fork:DeprecationWarning")
def test_a_forked_child_does_not_keep_a_lock(file: File) -> None:
    lock = file.lock()
    assert lock.take()
    (ready, begun), (end, over) = os.pipe(), os.pipe()
    child = os.fork()
    if child == 0:  # pragma: no cover - the child lives on after its parent has let go
        os.write(begun, b".")
        os.read(end, 1)
        os._exit(0)
    os.read(ready, 1)
    lock.close()
    assert file.lock().take()
    os.write(over, b".")
    os.waitpid(child, 0)


def test_a_new_file_gets_all_migrations_and_an_old_one_on_request(file: File) -> None:
    migrate(file, "test", [ONE], now=1)
    migrate(file, "test", [ONE], now=2)
    with pytest.raises(SchemaMismatch, match="headwater db upgrade"):
        migrate(file, "test", [ONE, TWO], now=3)
    migrate(file, "test", [ONE, TWO], now=4, upgrade=True)
    connection = file.connect()
    assert version_of(connection, "test") == 2
    assert connection.execute("SELECT version, applied FROM headwater_schema").fetchall() == [(1, 1), (2, 4)]
    connection.execute("INSERT INTO one VALUES (1, 'b')")
    connection.close()


def test_a_file_of_a_newer_package_is_refused(file: File) -> None:
    migrate(file, "test", [ONE, TWO], now=1)
    with pytest.raises(SchemaMismatch, match="upgrade headwater"):
        migrate(file, "test", [ONE], now=1, upgrade=True)


def test_components_are_migrated_apart(file: File) -> None:
    migrate(file, "one", [ONE, TWO], now=1)
    migrate(file, "two", ["CREATE TABLE two (a TEXT) STRICT"], now=1)
    connection = file.connect()
    assert (version_of(connection, "one"), version_of(connection, "two")) == (2, 1)
    connection.close()


def test_a_migration_that_fails_changes_nothing(file: File) -> None:
    with pytest.raises(ConfigurationError, match="cannot be made"):
        migrate(file, "test", [ONE, "CREATE TABLE one (a)"], now=1)
    connection = file.connect()
    assert connection.execute("SELECT count(*) FROM sqlite_schema").fetchall() == [(0,)]
    connection.close()


# --- room in the write-ahead log ---


def test_who_writes_often_makes_room_at_once_and_nothing_else_changes(file: File) -> None:
    migrate(file, "test", [ONE], now=1)
    session = Session(file)
    wal = file.path.with_name("a.db-wal")
    lengths = []
    for number in range(OFTEN + 2):
        connection = session.begin()
        connection.execute("INSERT INTO one VALUES (?)", (number,))
        session.commit(connection)
        session.end(connection)
        lengths.append(wal.stat().st_size)
    reader = Reader(file)
    assert max(lengths[: OFTEN - 1]) < wanted() // 8, "who writes seldom takes no room"
    assert lengths[OFTEN - 1] >= wanted()
    assert lengths[-1] == lengths[OFTEN - 1], "and the log does not grow from there on"
    assert reader.rows("SELECT a FROM one") == [(number,) for number in range(OFTEN + 2)]
    assert reader.value("SELECT count(*) FROM sqlite_schema WHERE name = 'headwater_room'") == 0
    assert reader.value("PRAGMA integrity_check") == "ok"
    reader.close()
    session.close()


def test_room_is_made_once_and_not_where_the_disk_is_nearly_full(file: File, monkeypatch: pytest.MonkeyPatch) -> None:
    migrate(file, "test", [ONE], now=1)
    wal = file.path.with_name("a.db-wal")
    connection = file.connect()
    connection.execute("INSERT INTO one VALUES (0)")
    with monkeypatch.context() as patched:
        patched.setattr(room, "SPARE", 1 << 40)
        make_room(connection, file.path)
    assert wal.stat().st_size < wanted() // 8
    make_room(connection, file.path)
    length = wal.stat().st_size
    make_room(connection, file.path)
    assert wal.stat().st_size == length >= wanted()
    assert connection.pragma("cache_size") == PRAGMAS["cache_size"]
    connection.close()
