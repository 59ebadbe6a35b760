"""Tables of read models: plain SQL tables with typed columns, each in `STRICT` mode."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from functools import lru_cache, partial
from typing import Any, Final

import apsw
import msgspec

from headwater.adapters.sqlite.facts import as_json
from headwater.adapters.sqlite.file import fetch
from headwater.adapters.sqlite.many import insert
from headwater.adapters.sqlite.schema import RESERVED
from headwater.database import InlineFold
from headwater.errors import ConfigurationError, DatabaseError, SchemaError
from headwater.message import Recorded
from headwater.table import Table, Upsert

Row = tuple[Any, ...]
Rows = Callable[[str, Sequence[Any]], list[Row]]

TYPES: Final = {
    "text": "TEXT",
    "integer": "INTEGER",
    "real": "REAL",
    "boolean": "INTEGER",
    "bytes": "BLOB",
    "json": "TEXT",
}
NAME: Final = re.compile(r"[A-Za-z][A-Za-z0-9_]{0,62}")
IN_JSON: Final = frozenset({"text", "integer", "boolean"})
"""Types of key columns whose values can be given as one JSON text."""


class Layout:
    """The statements for one table, and its values as SQLite keeps them."""

    def __init__(self, name: str, columns: tuple[tuple[str, str], ...], keys: int) -> None:
        for one in (name, *(column for column, _ in columns)):
            if not NAME.fullmatch(one):
                raise ConfigurationError(f"{one!r} cannot name a table or column: use letters, digits and _")
        if name in RESERVED or name.startswith(("sqlite_", "headwater_")):
            raise ConfigurationError(f"a read model cannot be called {name!r}: that table is Headwater's own")
        if not 0 < keys <= len(columns) or any(kind == "json" for _, kind in columns[:keys]):
            raise ConfigurationError(f"{name} needs at least one key column, and none of them may be json")
        if wrong := [f"{column}: {kind}" for column, kind in columns if kind not in TYPES]:
            raise ConfigurationError(
                f"{name} has columns of unknown types ({', '.join(wrong)}): use {', '.join(TYPES)}"
            )
        self.name, self.columns, self.keys = name, columns, keys
        names = [f'"{column}"' for column, _ in columns]
        self.key, self.all = ", ".join(names[:keys]), ", ".join(names)
        typed = ", ".join(f'"{column}" {TYPES[kind]}' for column, kind in columns)
        self.create = f'CREATE TABLE "{name}" ({typed}, PRIMARY KEY ({self.key})) STRICT, WITHOUT ROWID'
        changed = ", ".join(f"{column} = excluded.{column}" for column in names[keys:])
        self.into, self.conflict = f'"{name}"', f"ON CONFLICT DO {f'UPDATE SET {changed}' if changed else 'NOTHING'}"
        one = " AND ".join(f"{column} = ?" for column in names[:keys])
        self.delete = f'DELETE FROM "{name}" WHERE {one}'
        self.select = f'SELECT {self.all} FROM "{name}" WHERE {one}'
        each = " AND ".join(f"t.{column} = j.value ->> {place}" for place, column in enumerate(names[:keys]))
        some = ", ".join(f"t.{column}" for column in names)
        self.select_many = f'SELECT {some} FROM json_each(?) j CROSS JOIN "{name}" t ON {each}'
        self.bulk = all(kind in IN_JSON for _, kind in columns[:keys])
        self._real = tuple(place for place, (_, kind) in enumerate(columns) if kind == "real")
        self._json = tuple(place for place, (_, kind) in enumerate(columns) if kind == "json")
        self._boolean = tuple(place for place, (_, kind) in enumerate(columns) if kind == "boolean")

    def pack(self, row: Sequence[Any]) -> Sequence[Any]:
        """A row as it is bound."""
        for place in self._real:
            if row[place] != row[place]:
                raise SchemaError(f"{self.name}.{self.columns[place][0]} is not a number: SQLite would keep NULL")
        if not self._json:
            return row
        values = list(row)
        for place in self._json:
            if values[place] is not None:
                values[place] = as_json(values[place])
        return values

    def unpack(self, row: Row) -> Row:
        """A row as its reader gets it."""
        if not self._json and not self._boolean:
            return row
        values = list(row)
        for place in self._json:
            if values[place] is not None:
                values[place] = msgspec.json.decode(values[place])
        for place in self._boolean:
            if values[place] is not None:
                values[place] = bool(values[place])
        return tuple(values)

    def find(self, where: Mapping[str, Any]) -> tuple[str, list[Any]]:
        """The statement for rows whose columns equal values, in key order, and its parameters but the limit."""
        kinds = dict(self.columns)
        if unknown := where.keys() - kinds.keys():
            raise ConfigurationError(f"table {self.name} has no column {min(unknown)!r}")
        condition = " AND ".join(f'"{name}" IS ?' for name in where) or "1"
        values = [
            as_json(value) if kinds[name] == "json" and value is not None else value for name, value in where.items()
        ]
        return f'SELECT {self.all} FROM "{self.name}" WHERE {condition} ORDER BY {self.key} LIMIT ?', values


@lru_cache(maxsize=256)
def _layout(name: str, columns: tuple[tuple[str, str], ...], keys: int) -> Layout:
    return Layout(name, columns, keys)


def layout(table: Table) -> Layout:
    """The layout of a table. Raises ConfigurationError for names and types that cannot be."""
    return _layout(table.name, tuple([(column.name, column.type) for column in table.columns]), table.keys)


def missing(table: str, error: Exception) -> Exception:
    """A better error where the table was never made."""
    if isinstance(error, apsw.SQLError) and "no such table" in str(error):
        return DatabaseError(f"there is no table {table}: make it with create_table before it is used")
    return error


def create(connection: apsw.Connection, table: Table) -> None:
    """Make a table, or check that the one that is there has the same columns."""
    shape = layout(table)
    columns = as_json(shape.columns)
    known = fetch(connection, "SELECT columns, keys FROM read_models WHERE name = ?", (table.name,))
    if not known:
        if connection.table_exists("main", table.name):
            raise ConfigurationError(
                f"there is a table {table.name} already that is no read model: choose another name"
            )
        connection.execute(shape.create)
        connection.execute("INSERT INTO read_models VALUES (?, ?, ?)", (table.name, columns, table.keys))
    elif known[0] != (columns, table.keys):
        raise ConfigurationError(f"table {table.name} has other columns than its read model: rebuild it")


def drop(connection: apsw.Connection, name: str) -> None:
    """Remove a table if it is there."""
    if fetch(connection, "DELETE FROM read_models WHERE name = ? RETURNING 1", (name,)):
        connection.execute(f'DROP TABLE IF EXISTS "{name}"')


def swap(connection: apsw.Connection, built: Table, live: Table) -> None:
    """Put one table in the place of another, which is dropped."""
    layout(live)
    drop(connection, live.name)
    try:
        connection.execute(f'ALTER TABLE "{layout(built).name}" RENAME TO "{live.name}"')
    except apsw.SQLError as error:
        raise missing(built.name, error) from error
    connection.execute("UPDATE read_models SET name = ? WHERE name = ?", (live.name, built.name))


def select(rows: Rows, shape: Layout, keys: Sequence[Row]) -> dict[Row, Row]:
    """The rows of those keys that exist; `rows` runs a statement."""
    if shape.bulk:
        found = rows(shape.select_many, (as_json(keys),)) if keys else []
    else:
        found = [row for key in keys for row in rows(shape.select, key)]
    unpacked = map(shape.unpack, found)
    return {row[: shape.keys]: row for row in unpacked}


def write_rows(connection: apsw.Connection, upserts: Sequence[Upsert]) -> None:
    """Delete and write the rows of upserts, as if one came after the other."""
    for one in upserts:
        shape = layout(one.table)
        try:
            if one.deleted:
                connection.executemany(shape.delete, one.deleted)
            _upsert(connection, shape, one.rows)
        except apsw.SQLError as error:
            raise missing(shape.name, error) from error
        except apsw.BindingsError as error:
            raise SchemaError(f"a row of {shape.name} has not the {len(shape.columns)} columns of its table") from error


def _upsert(connection: apsw.Connection, shape: Layout, rows: Sequence[Row]) -> None:
    width = len(shape.columns)
    if any(len(row) != width for row in rows):
        raise SchemaError(f"a row of {shape.name} has not the {width} columns of its table")
    insert(connection, shape.into, list(map(shape.pack, rows)), shape.conflict)


def fold_rows(connection: apsw.Connection, fold: InlineFold, recorded: Sequence[Recorded]) -> None:
    """Fold messages into the rows of a read model."""
    if keys := fold.keys(recorded):
        found = select(partial(fetch, connection), layout(fold.table), keys)
        write_rows(connection, [fold.fold(found, recorded)])
