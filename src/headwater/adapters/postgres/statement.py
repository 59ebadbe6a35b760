"""Statements as data, and plans: generators that ask for the rows of some statements and go on with them.

A plan is written once and driven on connections of both kinds: those of the loop (`Connection.drive`), and that of an
interactive transaction.
"""

from __future__ import annotations

from collections.abc import Generator, Mapping, Sequence
from contextlib import suppress
from typing import Any, NamedTuple, TypeVar

import psycopg

from headwater.adapters.postgres.text import escaped, plain

Row = tuple[Any, ...]
Result = TypeVar("Result")


class Statement(NamedTuple):
    """One SQL statement and its values."""

    sql: str
    values: Sequence[Any] | Mapping[str, Any] = ()


Plan = Generator[list[Statement], list[list[Row]], Result]
"""Yields the statements of a step, gets the rows of each, and returns what came of it."""


def run_now(connection: psycopg.Connection[Row], plan: Plan[Result]) -> Result:
    """Drive a plan on a blocking connection."""
    try:
        step = next(plan)
        while True:
            step = plan.send(pipelined_now(connection, step))
    except StopIteration as end:
        result: Result = end.value
        return result


def pipelined_now(connection: psycopg.Connection[Row], statements: Sequence[Statement]) -> list[list[Row]]:
    """The rows of each statement, all sent at once."""
    cursors = []
    pipeline = connection.pipeline()
    pipeline.__enter__()
    try:
        for sql, values in statements:
            cursor = connection.cursor(binary=True)
            cursors.append(cursor)
            cursor.execute(sql, escaped(values))
    except BaseException:
        with suppress(psycopg.Error):
            pipeline.__exit__(None, None, None)
        raise
    pipeline.__exit__(None, None, None)
    return [plain(cursor.fetchall()) if cursor.description else [] for cursor in cursors]
