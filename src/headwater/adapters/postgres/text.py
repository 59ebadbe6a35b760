"""Values as they are bound: arrays as text, and text without NUL characters, which PostgreSQL does not store.

Two other characters stand for a NUL, and the order stays.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Final

MARK: Final = "\1"
"""Stands before what it escapes: itself as MARK 2, NUL as MARK 1."""

Values = Sequence[Any] | Mapping[str, Any]


def escaped(values: Values) -> Values | None:
    """Values as they are bound; None for no values."""
    if not values:
        return None
    if isinstance(values, Mapping):
        return {name: _escaped(value) for name, value in values.items()}
    return [_escaped(value) for value in values]


def plain(rows: list[tuple[Any, ...]]) -> list[tuple[Any, ...]]:
    """Rows as they were before they were bound."""
    if not any(_marked(column) for column in zip(*rows, strict=True)):
        return rows
    return [tuple([_plain(value) for value in row]) for row in rows]


def _marked(column: tuple[Any, ...]) -> bool:
    return MARK in "".join([value for value in column if value.__class__ is str])


def _escaped(value: Any) -> Any:
    if isinstance(value, str):
        return escape(value)
    return _array(value) if isinstance(value, list) else value


def _array(values: list[Any]) -> Any:
    """A list as PostgreSQL writes an array, which is sooner made than what psycopg makes of it; some are left to psycopg."""
    kinds = {one.__class__ for one in values}
    if kinds == {str}:
        return _texts(values)
    if kinds == {int}:
        return "{%s}" % ",".join(map(str, values))  # noqa: UP031 - braces
    if kinds == {bytes}:
        return '{"\\\\x' + '","\\\\x'.join([one.hex() for one in values]) + '"}'
    return [escape(one) if isinstance(one, str) else one for one in values]


def _texts(values: list[str]) -> str:
    together = "".join(values)
    if "\0" in together or MARK in together:
        values = [escape(one) for one in values]
    if "\\" in together or '"' in together:
        values = [one.replace("\\", "\\\\").replace('"', '\\"') for one in values]
    return '{"' + '","'.join(values) + '"}'


def escape(text: str) -> str:
    """Text without NUL."""
    return text.replace(MARK, f"{MARK}\2").replace("\0", MARK * 2)


def _plain(value: Any) -> Any:
    return value.replace(MARK * 2, "\0").replace(f"{MARK}\2", MARK) if isinstance(value, str) else value
