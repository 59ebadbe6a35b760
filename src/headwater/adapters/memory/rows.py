"""Rows of read models in memory: kept as a database would keep them, so that nobody can change them from outside."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

import msgspec

from headwater.errors import DatabaseError
from headwater.table import Column, Table

Row = tuple[Any, ...]


def _integer(value: Any) -> int:
    if not -(2**63) <= value < 2**63:
        raise OverflowError("an integer column holds 64 bits")
    if value != int(value):
        raise ValueError(f"{value!r} is no integer")
    return int(value)


def _real(value: Any) -> float:
    if math.isnan(value):
        raise ValueError("a real column holds numbers")
    return float(value)


def _boolean(value: int) -> bool:
    if not isinstance(value, int):
        raise TypeError(f"{value!r} is no boolean")
    return bool(value)


def _text(value: str) -> str:
    value.encode()
    return value


PACK: dict[str, Callable[[Any], Any]] = {
    "text": _text,
    "integer": _integer,
    "real": _real,
    "boolean": _boolean,
    "bytes": lambda value: bytes(memoryview(value)),
    "json": msgspec.json.encode,
}


def pack(columns: Sequence[Column], row: Sequence[Any]) -> Row:
    """A row as it is stored. Raises DatabaseError where a value does not fit its column."""
    try:
        pairs = zip(columns, row, strict=True)
        return tuple(None if value is None else PACK[column.type](value) for column, value in pairs)
    except (TypeError, ValueError, AttributeError, OverflowError) as error:
        raise DatabaseError(f"a row does not fit its columns {[column.name for column in columns]}: {error}") from error


def pack_key(table: Table, key: Sequence[Any]) -> Row:
    """A key as it is stored."""
    return pack(table.columns[: table.keys], key)


def unpack(table: Table, row: Row) -> Row:
    """A stored row as its reader gets it."""
    return tuple(
        msgspec.json.decode(value) if column.type == "json" and value is not None else value
        for column, value in zip(table.columns, row, strict=True)
    )
