"""The interactive transaction: free SQL and write sets on the writer's connection."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import apsw

from headwater.adapters.sqlite.dbapi import Connection
from headwater.adapters.sqlite.faults import translate
from headwater.adapters.sqlite.file import fetch
from headwater.adapters.sqlite.loan import Loan
from headwater.database import Answer, Failed, WriteSet

Commit = Callable[[apsw.Connection, Sequence[WriteSet]], list[Answer]]


class SqliteTransaction:
    """An open transaction; a full disk or an interrupt undoes the whole of it, and every later call then says so."""

    dialect = "sqlite"

    def __init__(self, loan: Loan, commit: Commit, path: Path) -> None:
        self._loan = loan
        self._commit = commit
        self._path = path

    @property
    def connection(self) -> Connection:
        return Connection(self._loan.use)

    def execute(self, sql: str, parameters: Sequence[Any] = ()) -> list[tuple[Any, ...]]:
        with self._loan.use() as connection:
            rows = fetch(connection, sql, parameters)
            if not connection.in_transaction:
                raise self._loan.undone()
            return rows

    @asynccontextmanager
    async def savepoint(self) -> AsyncIterator[None]:
        self.execute("SAVEPOINT part")
        try:
            yield
        except BaseException:
            self.execute("ROLLBACK TO part; RELEASE part")
            raise
        self.execute("RELEASE part")

    def write(self, writes: Sequence[WriteSet]) -> list[Answer]:
        with self._loan.use() as connection:
            try:
                return self._write(connection, writes)
            except Exception as error:
                if not connection.in_transaction:
                    raise translate(error, self._path) from error
            return [self._alone(connection, one) for one in writes]

    def _alone(self, connection: apsw.Connection, one: WriteSet) -> Answer:
        try:
            return self._write(connection, [one])[0]
        except Exception as error:
            if not connection.in_transaction:
                raise translate(error, self._path) from error
            return Failed(translate(error, self._path))

    def _write(self, connection: apsw.Connection, writes: Sequence[WriteSet]) -> list[Answer]:
        connection.execute("SAVEPOINT writes")
        try:
            answers = self._commit(connection, writes)
        except BaseException:
            if connection.in_transaction:
                connection.execute("ROLLBACK TO writes; RELEASE writes")
            raise
        connection.execute("RELEASE writes")
        return answers
