"""Many rows to a statement.

Every step of a statement lets go of the interpreter's lock, and a busy thread keeps it for 5 ms: beside a thread that computes,
`executemany` waits so long for each row.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache
from itertools import chain
from typing import Any, Final

import apsw

SIZES: Final = (256, 64, 16, 4, 1)
"""How many rows one statement writes."""


@cache
def statement(into: str, width: int, size: int, tail: str) -> str:
    """An INSERT of so many rows of so many values."""
    row = f"({', '.join('?' * width)})"
    return f"INSERT INTO {into} VALUES {', '.join([row] * size)} {tail}"


def insert(connection: apsw.Connection, into: str, rows: Sequence[Sequence[Any]], tail: str = "") -> None:
    """Insert rows of equal width; `into` is the table, with columns where not all are given, `tail` what follows the values."""
    if not rows:
        return
    width, start = len(rows[0]), 0
    if len(rows) == 1:
        connection.execute(statement(into, width, 1, tail), rows[0])
        return
    for size in SIZES:
        while len(rows) - start >= size:
            values = list(chain.from_iterable(rows[start : start + size]))
            connection.execute(statement(into, width, size, tail), values)
            start += size
