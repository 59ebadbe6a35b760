"""A connection that sends statements together, in one trip. A cursor of psycopg takes several for each."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from functools import lru_cache
from typing import Any, Final

import psycopg
from psycopg import abc
from psycopg.adapt import PyFormat, Transformer
from psycopg.pq import Format, TransactionStatus
from psycopg.pq.abc import PGresult
from psycopg.waiting import wait_async

from headwater.adapters.postgres.faults import changed
from headwater.adapters.postgres.statement import Plan, Result, Row, Statement
from headwater.adapters.postgres.text import escaped, plain
from headwater.adapters.postgres.trip import Trip

LOOK: Final = 0.1
"""Seconds between two looks at a connection whose socket is silent."""
PLACE: Final = re.compile(r"%(?:(%)|s|\((\w+)\)s)")


class Connection(psycopg.AsyncConnection[Row]):
    """psycopg's, which can do one thing more: `exchange`."""

    def __init__(self, *arguments: Any, **options: Any) -> None:
        super().__init__(*arguments, **options)
        self.trip = Trip(self.pgconn)

    async def exchange(self, statements: Sequence[Statement]) -> list[list[Row]]:
        """The rows of each statement, all sent at once; what comes after one that fails is not run. Raises psycopg's errors.

        Who is cancelled meanwhile ends the connection, without asking the server to cancel: pgbouncer 1.18 may end of that.
        """
        async with self.lock:
            if self.closed:
                raise psycopg.OperationalError("the connection is closed")
            try:
                results = await self._sent(statements)
            except psycopg.Error as error:
                if not changed(error) or self.info.transaction_status != TransactionStatus.IDLE:
                    raise
                results = await self._sent(statements)
        reader = Transformer(self)
        return [_rows(reader, result) for result in results]

    async def drive(self, plan: Plan[Result]) -> Result:
        """What a plan comes to, a step at a time."""
        try:
            step = next(plan)
            while True:
                step = plan.send(await self.exchange(step))
        except StopIteration as end:
            result: Result = end.value
            return result

    async def _sent(self, statements: Sequence[Statement]) -> list[PGresult]:
        trip, writer = self.trip, Transformer(self)
        with trip:
            for statement in statements:
                sql, values = _bound(statement)
                bound = writer.dump_sequence(values, [PyFormat.AUTO] * len(values))
                trip.send(sql, bound, tuple(writer.types or ()), writer.formats or (), Format.BINARY)
            results = await wait_async(trip.answers(), self.pgconn.socket, LOOK)
        return trip.checked(results, self.info.encoding)


def _rows(reader: abc.Transformer, result: PGresult) -> list[Row]:
    if not result.nfields:
        return []
    reader.set_pgresult(result, set_loaders=True, format=Format.BINARY)
    return plain(reader.load_rows(0, result.ntuples, tuple))


def _bound(statement: Statement) -> tuple[bytes, Sequence[Any]]:
    """A statement as the server wants it, and its values in the order of their places."""
    values = escaped(statement.values)
    if values is None:
        return statement.sql.encode(), ()
    sql, names = _numbered(statement.sql)
    return sql, [values[name] for name in names] if isinstance(values, Mapping) else values


@lru_cache(maxsize=2000)
def _numbered(sql: str) -> tuple[bytes, list[str]]:
    """A statement with numbered places, and the names of these where they have names."""
    names: list[str] = []
    count = 0

    def place(found: re.Match[str]) -> str:
        nonlocal count
        if found[1]:
            return "%"
        if not found[2]:
            count += 1
            return f"${count}"
        if found[2] not in names:
            names.append(found[2])
        return f"${names.index(found[2]) + 1}"

    return PLACE.sub(place, sql).encode(), names
