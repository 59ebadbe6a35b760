"""One SQLite file as this process sees it: how it is opened, locked, guarded against fork, and read.

The file, its -wal and its -shm are never opened by any other means than SQLite: closing a second descriptor would drop
SQLite's locks and lose acknowledged writes.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final

import apsw

from headwater.adapters.sqlite.faults import read_only, translate, translated
from headwater.adapters.sqlite.lock import FileLock
from headwater.errors import ConfigurationError, DatabaseError

OLDEST: Final = 3_051_003
PRAGMAS: Final[dict[str, Any]] = {
    "busy_timeout": 5_000,
    "journal_mode": "wal",
    "synchronous": 2,
    "wal_autocheckpoint": 4_000,
    "fullfsync": 1,
    "checkpoint_fullfsync": 1,
    "mmap_size": 0,
    "foreign_keys": 1,
    "trusted_schema": 0,
    "cell_size_check": 1,
    "temp_store": 2,
    "cache_size": -32_768,
    "journal_size_limit": 64 * 1024 * 1024,
}


class File:
    """A SQLite file: `check` it on every use, `connect` for a new connection, `lock` for a holder of its write lock."""

    def __init__(self, path: str | Path) -> None:
        self.path = Path(os.path.realpath(path))
        self._process = os.getpid()

    def check(self) -> None:
        """Refuse to be used in a forked child: a connection carried over a fork loses writes silently."""
        if os.getpid() != self._process:
            raise ConfigurationError(f"{self.path} was opened before this process was forked: open it in the child")

    def connect(self, *, writable: bool = True) -> apsw.Connection:
        """A new connection with our settings, each read back; without `writable` it refuses to write."""
        self.check()
        check_version()
        with translated(self.path):
            connection = apsw.Connection(str(self.path))
            if connection.readonly("main"):
                raise read_only(self.path)
            for name, wanted in PRAGMAS.items():
                connection.pragma(name, wanted)
                if (found := connection.pragma(name)) != wanted:
                    raise ConfigurationError(f"{self.path}: {name} stays at {found!r} where {wanted!r} is needed")
            connection.pragma("query_only", not writable)
            connection.config(apsw.SQLITE_DBCONFIG_ENABLE_QPSG, 1)  # else each binding prepares the statement anew
        return connection

    def lock(self) -> FileLock:
        """A new holder of the lock that every writer of the file takes around its transaction: `<file>.lock`."""
        self.check()
        if self.path.is_dir():
            raise ConfigurationError(f"{self.path} is a folder: name a file")
        with translated(self.path):
            return FileLock(self.path.with_name(self.path.name + ".lock"))


class Reader:
    """Short reads on a connection of their own, from any thread; they see all that is committed, and block nobody."""

    def __init__(self, file: File) -> None:
        self._file = file
        self._connection = file.connect(writable=False)
        self._one_at_a_time = threading.Lock()

    def rows(self, sql: str, parameters: Sequence[Any] = ()) -> list[tuple[Any, ...]]:
        """All rows of one statement."""
        self._file.check()
        try:
            with self._one_at_a_time:
                return fetch(self._connection, sql, parameters)
        except apsw.ConnectionClosedError as error:
            raise DatabaseError(f"{self._file.path} is closed") from error
        except apsw.Error as error:
            raise translate(error, self._file.path) from error

    def value(self, sql: str, parameters: Sequence[Any] = ()) -> Any:
        """The first column of the first row; None where there is no row."""
        found = self.rows(sql, parameters)
        return found[0][0] if found else None

    def version(self) -> int:
        """A number that changes whenever anyone else commits to the file."""
        return int(self.value("PRAGMA data_version"))

    def close(self) -> None:
        """Close the connection."""
        with self._one_at_a_time:
            self._connection.close()


def fetch(connection: apsw.Connection, sql: str, parameters: Sequence[Any] = ()) -> list[tuple[Any, ...]]:
    """All rows of one statement."""
    return connection.execute(sql, parameters).fetchall()


def check_version() -> None:
    """Refuse a SQLite that may corrupt a WAL file shared by several processes (the WAL-reset bug, mended in 3.51.3)."""
    if apsw.SQLITE_VERSION_NUMBER < OLDEST or _number(apsw.sqlite_lib_version()) < OLDEST:
        raise ConfigurationError(
            f"SQLite {apsw.sqlite_lib_version()} can corrupt a file that several processes share (the WAL-reset bug): "
            "upgrade apsw to 3.51.3 or newer"
        )


def _number(version: str) -> int:
    major, minor, patch = (int(part) for part in version.split(".")[:3])
    return major * 1_000_000 + minor * 1_000 + patch
