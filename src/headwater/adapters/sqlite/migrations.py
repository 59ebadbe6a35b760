"""Versioned forward migrations: a component's tables are at version n when its first n scripts have run."""

from __future__ import annotations

from collections.abc import Sequence

import apsw

from headwater import fault
from headwater.adapters.sqlite.faults import translated
from headwater.adapters.sqlite.file import File, fetch
from headwater.errors import ConfigurationError, SchemaMismatch

REGISTER = """
CREATE TABLE IF NOT EXISTS headwater_schema (
    component TEXT NOT NULL, version INTEGER NOT NULL, applied INTEGER NOT NULL, PRIMARY KEY (component, version)
) STRICT, WITHOUT ROWID
"""


def migrate(file: File, component: str, scripts: Sequence[str], now: int, *, upgrade: bool = False) -> None:
    """Make the tables of a component, or check that they are at the newest version.

    A file where the component is new is always given its tables; one of an older version only if `upgrade` says so.
    Raises SchemaMismatch. `now` is in microseconds.
    """
    lock = file.lock()
    try:
        with lock, translated(file.path):
            connection = file.connect()
            try:
                found = version_of(connection, component)
                if found != len(scripts):
                    _check(file, component, found, len(scripts), upgrade)
                    _apply(connection, component, found, scripts, now)
            finally:
                connection.close()
    finally:
        lock.close()


def _check(file: File, component: str, found: int, newest: int, upgrade: bool) -> None:
    if found > newest:
        raise SchemaMismatch(f"{file.path} is at {component} version {found}, and we know {newest}: upgrade headwater")
    if found and not upgrade:
        raise SchemaMismatch(f"{file.path} is at {component} version {found} of {newest}: run `headwater db upgrade`")


def _apply(connection: apsw.Connection, component: str, found: int, scripts: Sequence[str], now: int) -> None:
    connection.execute("BEGIN IMMEDIATE")
    try:
        connection.execute(REGISTER)
        fault.point("migration.begun")
        for version, script in enumerate(scripts[found:], found + 1):
            connection.execute(script)
            connection.execute("INSERT INTO headwater_schema VALUES (?, ?, ?)", (component, version, now))
        fault.point("migration.applied")
        connection.execute("COMMIT")
        fault.point("migration.committed")
    except apsw.SQLError as error:
        raise ConfigurationError(f"the tables of {component} cannot be made: {error}") from error


def version_of(connection: apsw.Connection, component: str) -> int:
    """The version that a component's tables are at; 0 where there are none."""
    if not connection.table_exists("main", "headwater_schema"):
        return 0
    sql = "SELECT coalesce(max(version), 0) FROM headwater_schema WHERE component = ?"
    return int(fetch(connection, sql, (component,))[0][0])
