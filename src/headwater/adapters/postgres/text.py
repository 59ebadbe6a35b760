"""Text with NUL characters, which PostgreSQL does not store: two other characters stand for one, and the order stays."""

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
    return [
        tuple([_plain(value) for value in row])
        if any(value.__class__ is str and MARK in value for value in row)
        else row
        for row in rows
    ]


def _escaped(value: Any) -> Any:
    if isinstance(value, str):
        return escape(value)
    if isinstance(value, list) and any(one.__class__ is str and ("\0" in one or MARK in one) for one in value):
        return [escape(one) if isinstance(one, str) else one for one in value]
    return value


def escape(text: str) -> str:
    """Text without NUL."""
    return text.replace(MARK, f"{MARK}\2").replace("\0", MARK * 2)


def _plain(value: Any) -> Any:
    return value.replace(MARK * 2, "\0").replace(f"{MARK}\2", MARK) if isinstance(value, str) else value
