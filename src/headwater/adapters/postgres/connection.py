"""A connection that sends statements together: one flush and one wait for all. A cursor of psycopg takes several for each."""

from __future__ import annotations

import re
from collections.abc import Generator, Mapping, Sequence
from functools import lru_cache
from typing import Any, Final

import psycopg
from psycopg import abc
from psycopg.adapt import PyFormat, Transformer
from psycopg.errors import error_from_result
from psycopg.pq import ConnStatus, ExecStatus, Format, TransactionStatus
from psycopg.pq.abc import PGconn, PGresult
from psycopg.waiting import Ready, Wait

from headwater.adapters.postgres.faults import changed
from headwater.adapters.postgres.statement import Plan, Result, Row, Statement
from headwater.adapters.postgres.text import escaped, plain

PREPARED: Final = 500
"""Statements that a connection keeps prepared."""
PLACE: Final = re.compile(r"%(?:(%)|s|\((\w+)\)s)")
SYNC, OUTCOMES = ExecStatus.PIPELINE_SYNC, (ExecStatus.TUPLES_OK, ExecStatus.COMMAND_OK, ExecStatus.EMPTY_QUERY)

Key = tuple[bytes, tuple[int, ...]]
"""A statement, and the types that its values have."""


class Connection(psycopg.AsyncConnection[Row]):
    """psycopg's, which can do one thing more: `exchange`. With `keeps`, it prepares what it sends."""

    keeps = True

    def __init__(self, *arguments: Any, **options: Any) -> None:
        super().__init__(*arguments, **options)
        self._kept: dict[Key, bytes] = {}
        self._kept_ever = 0

    async def exchange(self, statements: Sequence[Statement]) -> list[list[Row]]:
        """The rows of each statement, all sent at once; what comes after one that fails is not run. Raises psycopg's errors."""
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
        pgconn = self.pgconn
        fresh: dict[int, Key] = {}
        pgconn.enter_pipeline_mode()
        try:
            writer, count = Transformer(self), 0
            for statement in statements:
                count += self._send(writer, statement, count, fresh)
            pgconn.pipeline_sync()
            results = await self.wait(answers(pgconn))
            pgconn.exit_pipeline_mode()
        except BaseException:
            if pgconn.status == ConnStatus.OK and pgconn.pipeline_status:
                pgconn.finish()  # what was sent cannot be told from what comes next
            raise
        return self._checked(results, fresh)

    def _send(self, writer: abc.Transformer, statement: Statement, place: int, fresh: dict[int, Key]) -> int:
        """Queue one statement, prepared where it pays; how many answers it will have."""
        sql, values = _bound(statement)
        bound = writer.dump_sequence(values, [PyFormat.AUTO] * len(values))
        types, formats = writer.types or (), writer.formats or ()
        key = (sql, tuple(types))
        name = self._kept.get(key)
        if name is None and (not self.keeps or len(self._kept) >= PREPARED):
            self.pgconn.send_query_params(sql, bound, types, formats, Format.BINARY)
            return 1
        if name is not None:
            self.pgconn.send_query_prepared(name, bound, formats, Format.BINARY)
            return 1
        self._kept_ever += 1
        name = self._kept[key] = b"hw%d" % self._kept_ever
        fresh[place] = key
        self.pgconn.send_prepare(name, sql, types)
        self.pgconn.send_query_prepared(name, bound, formats, Format.BINARY)
        return 2

    def _checked(self, results: list[PGresult], fresh: dict[int, Key]) -> list[PGresult]:
        """The results of what was asked, without those of preparing it; raises what the first that failed tells."""
        failed = next((place for place, one in enumerate(results) if one.status not in OUTCOMES), None)
        if failed is not None:
            for place, key in fresh.items():
                if place >= failed:
                    del self._kept[key]
            error = error_from_result(results[failed], encoding=self.info.encoding)
            if changed(error):
                self._kept.clear()
            raise error
        return [one for place, one in enumerate(results) if place not in fresh]


def answers(pgconn: PGconn) -> Generator[Wait, Ready | int, list[PGresult]]:
    """Send what is queued, and the result of each statement up to the mark at their end."""
    while pgconn.flush():
        if (yield Wait.RW) & Ready.R:
            pgconn.consume_input()
    results: list[PGresult] = []
    while True:
        while pgconn.is_busy():
            yield Wait.R
            pgconn.consume_input()
        result = pgconn.get_result()
        if result is None:
            if pgconn.status == ConnStatus.BAD:
                raise psycopg.OperationalError("the connection was lost")
        elif result.status == SYNC:
            return results
        else:
            results.append(result)


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
