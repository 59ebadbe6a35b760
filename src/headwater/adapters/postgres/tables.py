"""Tables of read models: plain SQL tables with typed columns, in the schema where the user's own tables are."""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import lru_cache
from typing import Any, Final

import msgspec

from headwater.adapters.postgres.facts import columns
from headwater.adapters.postgres.statement import Plan, Row, Statement
from headwater.adapters.postgres.text import escape
from headwater.errors import ConfigurationError, SchemaError
from headwater.table import Table, Upsert

LARGEST: Final = 2**63
NAME: Final = re.compile(r"[A-Za-z][A-Za-z0-9_]{0,62}")
TYPES: Final = {
    "text": 'text COLLATE "C"',
    "integer": "bigint",
    "real": "double precision",
    "boolean": "boolean",
    "bytes": "bytea",
    "json": "json",  # as it was written, which jsonb does not keep: NUL, large numbers; the text is equal where the value is
}
ARRAYS: Final = {name: kind.partition(" COLLATE")[0] for name, kind in TYPES.items()}

KNOWN: Final = "SELECT columns, keys FROM headwater.read_models WHERE name = %s"
THERE: Final = "SELECT EXISTS (SELECT FROM pg_class WHERE relname = %s AND pg_table_is_visible(oid))"
WRITE_DOWN: Final = "INSERT INTO headwater.read_models VALUES (%s, %s, %s)"
FORGET: Final = "DELETE FROM headwater.read_models WHERE name = %s RETURNING 1"
RENAME: Final = "UPDATE headwater.read_models SET name = %s WHERE name = %s"

_encode = msgspec.json.Encoder().encode


class Layout:
    """The statements for one table, and its values as PostgreSQL takes them."""

    def __init__(self, name: str, kinds: tuple[tuple[str, str], ...], keys: int) -> None:
        for one in (name, *(column for column, _ in kinds)):
            if not NAME.fullmatch(one):
                raise ConfigurationError(f"{one!r} cannot name a table or column: use letters, digits and _")
        if name.startswith(("pg_", "headwater_")):
            raise ConfigurationError(f"a read model cannot be called {name!r}: that name is reserved")
        if not 0 < keys <= len(kinds) or any(kind == "json" for _, kind in kinds[:keys]):
            raise ConfigurationError(f"{name} needs at least one key column, and none of them may be json")
        if wrong := [f"{column}: {kind}" for column, kind in kinds if kind not in TYPES]:
            raise ConfigurationError(
                f"{name} has columns of unknown types ({', '.join(wrong)}): use {', '.join(TYPES)}"
            )
        self.name, self.kinds, self.keys = name, kinds, keys
        self._names = [f'"{column}"' for column, _ in kinds]
        self._key, self._all = ", ".join(self._names[:keys]), ", ".join(self._names)
        typed = ", ".join(f'"{column}" {TYPES[kind]}' for column, kind in kinds)
        self.create = f'CREATE TABLE "{name}" ({typed}, PRIMARY KEY ({self._key}))'
        self._insert = f'INSERT INTO "{name}" SELECT * FROM {self._given(len(kinds))} {self._conflict()}'
        given = f"{self._given(keys)} AS w ({self._key})"
        joined = " AND ".join(f"t.{column} = w.{column}" for column in self._names[:keys])
        self._delete = f'DELETE FROM "{name}" t USING {given} WHERE {joined}'
        each = ", ".join(f"t.{column}" for column in self._names)
        self._select = f'SELECT {each} FROM {given} JOIN "{name}" t ON {joined}'
        self._pack = [PACK[kind] for _, kind in kinds]

    def _given(self, width: int) -> str:
        return f"unnest({', '.join(f'%s::{ARRAYS[kind]}[]' for _, kind in self.kinds[:width])})"

    def _conflict(self) -> str:
        changed = ", ".join(f"{column} = excluded.{column}" for column in self._names[self.keys :])
        return f"ON CONFLICT ({self._key}) DO {f'UPDATE SET {changed}' if changed else 'NOTHING'}"

    def selecting(self, keys: Sequence[Row]) -> Statement:
        """The statement for the rows of keys; there must be one at least."""
        return Statement(self._select, columns([self._packed(key, self.keys) for key in keys]))

    def by_key(self, rows: Iterable[Row]) -> dict[Row, Row]:
        """Rows by the values of their key columns."""
        return {row[: self.keys]: row for row in rows}

    def writing(self, rows: Mapping[Row, Row | None]) -> list[Statement]:
        """The statements that delete the keys without a row and write the others."""
        ordered = sorted(rows.items())
        gone = [key for key, row in ordered if row is None]
        kept = [row for _, row in ordered if row is not None]
        found = [Statement(self._delete, columns(gone))] if gone else []
        return [*found, Statement(self._insert, columns(kept))] if kept else found

    def row(self, row: Row) -> Row:
        """A row as it is bound. Raises SchemaError."""
        return self._packed(row, len(self.kinds))

    def key(self, key: Row) -> Row:
        """The values of the key columns as they are bound. Raises SchemaError."""
        return self._packed(key, self.keys)

    def _packed(self, values: Row, width: int) -> Row:
        if len(values) != width:
            raise SchemaError(f"a row of {self.name} has not the {width} columns of its table")
        try:
            return tuple(
                [None if value is None else pack(value) for pack, value in zip(self._pack, values, strict=False)]
            )
        except (TypeError, ValueError, OverflowError) as error:
            raise SchemaError(f"a value does not fit its column in {self.name}: {error}") from None

    def finding(self, where: Mapping[str, Any], limit: int) -> Statement:
        """The statement for rows whose columns equal values, in key order."""
        kinds = dict(self.kinds)
        if unknown := where.keys() - kinds.keys():
            raise ConfigurationError(f"table {self.name} has no column {min(unknown)!r}")
        given = {name: PACK[kinds[name]](value) for name, value in where.items() if value is not None}
        equal = [
            f'"{name}"::text = %s' if kinds[name] == "json" else f'"{name}" = %s::{ARRAYS[kinds[name]]}'
            for name in given
        ]
        empty = [f'"{name}" IS NULL' for name, value in where.items() if value is None]
        condition = " AND ".join(equal + empty) or "true"
        sql = f'SELECT {self._all} FROM "{self.name}" WHERE {condition} ORDER BY {self._key} LIMIT %s'
        return Statement(sql, [*given.values(), limit])


def _integer(value: Any) -> int:
    whole = int(value)
    if whole != value or isinstance(value, str):
        raise ValueError("an integer column holds whole numbers")
    if not -LARGEST <= whole < LARGEST:
        raise OverflowError("an integer column holds 64 bits")
    return whole


def _real(value: Any) -> float:
    if math.isnan(value):
        raise ValueError("a real column holds numbers")
    return float(value)


def _boolean(value: Any) -> bool:
    if not isinstance(value, int):
        raise TypeError(f"{type(value).__name__} is no boolean")
    return bool(value)


def _text(value: Any) -> str:
    if not isinstance(value, str):
        raise TypeError(f"{type(value).__name__} is no text")
    value.encode()
    return value


PACK: Final[dict[str, Callable[[Any], Any]]] = {
    "text": _text,
    "integer": _integer,
    "real": _real,
    "boolean": _boolean,
    "bytes": lambda value: bytes(memoryview(value)),
    "json": lambda value: _encode(escape(value) if isinstance(value, str) else value).decode(),
}


@lru_cache(maxsize=256)
def _layout(name: str, kinds: tuple[tuple[str, str], ...], keys: int) -> Layout:
    return Layout(name, kinds, keys)


def layout(table: Table) -> Layout:
    """The layout of a table. Raises ConfigurationError for names and types that cannot be."""
    return _layout(table.name, tuple([(column.name, column.type) for column in table.columns]), table.keys)


def upserting(upserts: Sequence[Upsert]) -> list[Statement]:
    """The statements that delete and write rows as if one upsert came after the other."""
    left: dict[Layout, dict[Row, Row | None]] = {}
    for one in upserts:
        shape = layout(one.table)
        rows = left.setdefault(shape, {})
        for key in one.deleted:
            rows[shape.key(key)] = None
        for row in one.rows:
            packed = shape.row(row)
            rows[packed[: shape.keys]] = packed
    return [statement for shape, rows in left.items() for statement in shape.writing(rows)]


def creating(table: Table) -> Plan[None]:
    """Make a table, or check that the one that is there has the same columns."""
    shape = layout(table)
    written = _encode(shape.kinds).decode()
    known, there = yield [Statement(KNOWN, (table.name,)), Statement(THERE, (table.name,))]
    if known and known[0] != (written, table.keys):
        raise ConfigurationError(f"table {table.name} has other columns than its read model: rebuild it")
    if not known:
        if there[0][0]:
            raise ConfigurationError(
                f"there is a table {table.name} already that is no read model: choose another name"
            )
        yield [Statement(shape.create), Statement(WRITE_DOWN, (table.name, written, table.keys))]


def dropping(name: str) -> Plan[None]:
    """Remove a table if it is there."""
    (known,) = yield [Statement(FORGET, (name,))]
    if known:
        yield [Statement(f'DROP TABLE IF EXISTS "{name}"')]


def swapping(built: Table, live: Table) -> Plan[None]:
    """Put one table in the place of another, which is dropped."""
    layout(live)
    yield from dropping(live.name)
    yield [
        Statement(f'ALTER TABLE "{layout(built).name}" RENAME TO "{live.name}"'),
        Statement(RENAME, (live.name, built.name)),
    ]
