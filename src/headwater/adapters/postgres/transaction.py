"""The interactive transaction: free SQL and write sets on a blocking connection of its own."""

from __future__ import annotations

import asyncio
import re
import threading
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import asynccontextmanager, contextmanager
from functools import lru_cache
from itertools import count
from typing import Any, Final

import psycopg
from psycopg.adapt import PyFormat, Transformer
from psycopg.pq import ConnStatus, ExecStatus, Format, TransactionStatus

from headwater import fault
from headwater.adapters.postgres.faults import AGAIN, lost, translate, translated
from headwater.adapters.postgres.server import BEGIN, COMMIT, Blocking, Server
from headwater.adapters.postgres.statement import Row, pipelined_now, run_now
from headwater.adapters.postgres.trip import Trip
from headwater.adapters.postgres.writer import RACES
from headwater.adapters.postgres.writes import writing
from headwater.database import Answer, Failed, InlineFold, Transaction, WriteSet
from headwater.errors import ConfigurationError, DatabaseError, Unknown

MARKS: Final = re.compile(r"""'(?:[^']|'')*'|"[^"]*"|--[^\n]*|/\*.*?\*/|\?""", re.DOTALL)
"""What may hold a question mark: text, names, comments; and a question mark."""


class PostgresTransaction:
    """An open transaction. A statement that fails undoes it, back to the innermost savepoint around it."""

    dialect = "postgresql"

    def __init__(self, connection: Blocking, trip: Trip, folds: Sequence[InlineFold], server: Server) -> None:
        self._connection = connection
        self._trip = trip
        self._folds = folds
        self._server = server
        self._guard = threading.Lock()
        self._savepoints = 0
        self._due: list[str] = []
        self._cursor = psycopg.RawCursor(connection)
        self.wrote = False

    @property
    def connection(self) -> Blocking:
        self._settle()
        return self._connection

    def execute(self, sql: str, parameters: Sequence[Any] = ()) -> list[Row]:
        """Run a statement; its parameters are `?`, as on SQLite, or `$1`, `$2` and so on."""
        if not parameters:
            self._settle()  # what does not parse would keep a savepoint from beginning before it
        with self._guard:
            self._check()
            try:
                return self._bound(sql, parameters) if parameters else self._plain(sql)
            except psycopg.Error as error:
                raise translate(error, self._server.place) from None

    def savepoint(self) -> Savepoint:
        self._savepoints += 1
        return Savepoint(self, f"part_{self._savepoints}")

    def _begin(self, name: str) -> None:
        """Begin a savepoint with the next statement."""
        self._due.append(f"SAVEPOINT {name}")

    def _release(self, name: str) -> None:
        """Release a savepoint with the next statement; raises what one within it had failed with."""
        self._check()
        if self._dropped(name):
            return
        if self._connection.pgconn.transaction_status == TransactionStatus.INERROR:
            self._command(f"RELEASE {name}")
        self._due.append(f"RELEASE {name}")

    def _undo(self, name: str) -> None:
        """Undo all since a savepoint began, and end it."""
        if not self._dropped(name):
            self._due.clear()  # of savepoints within this one
            self._command(f"ROLLBACK TO {name}; RELEASE {name}")

    def _dropped(self, name: str) -> bool:
        """Whether a savepoint had not begun; then it does not any more, nor what was within it."""
        begin = f"SAVEPOINT {name}"
        if begin not in self._due:
            return False
        del self._due[self._due.index(begin) :]
        return True

    def _settle(self) -> None:
        """Begin and release the savepoints that are due: what comes next is not known here."""
        self._check()
        if self._due:
            due, self._due = self._due, []
            self._command("; ".join(due))

    def _command(self, sql: str) -> None:
        """Run statements that have neither values nor rows, past psycopg's cursors."""
        with self._guard, translated(self._server.place):
            self._check()
            result = self._connection.pgconn.exec_(sql.encode())
            if result.status != ExecStatus.COMMAND_OK:
                raise psycopg.errors.error_from_result(result)

    def _plain(self, sql: str) -> list[Row]:
        """The rows of what has no values; of several statements, those of the first."""
        cursor = self._cursor
        cursor.execute(sql, prepare=False)
        return cursor.fetchall() if cursor.description else []

    def _bound(self, sql: str, parameters: Sequence[Any]) -> list[Row]:
        """The rows of a statement with values."""
        trip, connection = self._trip, self._connection
        writer = reader = Transformer(connection)
        values = writer.dump_sequence(parameters, [PyFormat.AUTO] * len(parameters))
        due, self._due = self._due, []
        with trip:
            for one in due:
                trip.command(one.encode())
            trip.send(_numbered(sql).encode(), values, tuple(writer.types or ()), writer.formats, Format.TEXT)
            results = connection.wait(trip.answers())
        *_, result = trip.checked(results, connection.info.encoding)
        reader.set_pgresult(result)
        return reader.load_rows(0, result.ntuples, tuple)

    def write(self, writes: Sequence[WriteSet]) -> list[Answer]:
        self._settle()
        with self._guard:
            self.wrote = True
            try:
                return self._write(writes)
            except Exception:  # noqa: BLE001 - a fold in it is user code; each set is tried alone
                self._check()
            return [self._alone(one) for one in writes]

    def _alone(self, one: WriteSet) -> Answer:
        try:
            return self._write([one])[0]
        except Exception as error:  # noqa: BLE001 - a fold in it is user code
            self._check()
            return Failed(translate(error, self._server.place))

    def _write(self, writes: Sequence[WriteSet]) -> list[Answer]:
        for _ in range(RACES):
            self._connection.execute("SAVEPOINT writes", prepare=False)
            try:
                answers = run_now(self._connection, writing(writes, self._folds))
            except BaseException as error:
                if not self._connection.closed:
                    self._connection.execute("ROLLBACK TO writes; RELEASE writes", prepare=False)
                if isinstance(error, psycopg.Error) and error.sqlstate in AGAIN:
                    continue
                raise
            self._connection.execute("RELEASE writes", prepare=False)
            return answers
        raise DatabaseError("other processes were faster again and again: try again")

    def _check(self) -> None:
        self._server.check()
        pgconn = self._connection.pgconn
        if pgconn.status == ConnStatus.BAD or pgconn.transaction_status == TransactionStatus.IDLE:
            raise DatabaseError("the transaction was undone: it ended itself, or its connection was lost")


class Savepoint:
    """It begins, and the one before is released, with the first statement in it: one trip for all.

    Whatever ends the transaction releases the last.
    """

    def __init__(self, transaction: PostgresTransaction, name: str) -> None:
        self._transaction = transaction
        self._name = name

    async def __aenter__(self) -> None:
        self._transaction._begin(self._name)

    async def __aexit__(self, kind: type[BaseException] | None, *_: object) -> None:
        if kind is None:
            self._transaction._release(self._name)
        else:
            self._transaction._undo(self._name)


@lru_cache(maxsize=256)
def _numbered(sql: str) -> str:
    """A statement with `$1`, `$2` and so on in the place of its question marks."""
    numbers = count(1)
    return MARKS.sub(lambda found: f"${next(numbers)}" if found[0] == "?" else found[0], sql)


class ConnectionLender:
    """Lends a handler psycopg's connection within its transaction."""

    @contextmanager
    def __call__(self, transaction: Transaction) -> Iterator[Blocking]:
        """The connection, for as long as the handler runs."""
        if not isinstance(transaction, PostgresTransaction):
            raise ConfigurationError("a handler asks for psycopg's connection, and the store is no PostgreSQL database")
        yield transaction.connection


class Desk:
    """The connection of interactive transactions, one at a time."""

    def __init__(self, server: Server) -> None:
        self._server = server
        self._connection: Blocking | None = None
        self._trip: Trip

    @asynccontextmanager
    async def transaction(self, folds: Sequence[InlineFold]) -> AsyncIterator[PostgresTransaction]:
        """An open transaction; commits at the end of the block, is undone if it raises."""
        connection = await asyncio.to_thread(self._begun)
        transaction = PostgresTransaction(connection, self._trip, folds, self._server)
        try:
            yield transaction
        except BaseException:
            await asyncio.shield(asyncio.to_thread(self._undo, connection))
            raise
        transaction._check()
        await asyncio.shield(asyncio.to_thread(self._commit, connection))

    def close(self) -> None:
        """Close the connection."""
        if self._connection is not None:
            self._connection.close()

    def _begun(self) -> Blocking:
        for _ in range(2):
            if self._connection is None or self._connection.closed:
                self._connection = self._server.connect_now()
                self._trip = Trip(self._connection.pgconn, keeps=not self._server.place.pooled)
            try:
                pipelined_now(self._connection, [BEGIN])
            except psycopg.Error as error:
                if not lost(error):
                    raise translate(error, self._server.place) from None
                self._connection.close()
            else:
                return self._connection
        raise DatabaseError(f"{self._server.place.name} closes its connections at once: look into the server's log")

    def _commit(self, connection: Blocking) -> None:
        failed = connection.info.transaction_status == TransactionStatus.INERROR
        fault.point("postgres.returned")
        try:
            pipelined_now(connection, [COMMIT])
        except psycopg.Error as error:
            if lost(error):
                connection.close()
                raise Unknown(cause="the connection was lost") from None
            raise translate(error, self._server.place) from None
        fault.point("postgres.committed_loan")
        if failed:
            raise DatabaseError("the transaction was undone: a statement in it had failed")

    def _undo(self, connection: Blocking) -> None:
        try:
            if not connection.closed:
                connection.rollback()
        except psycopg.Error:
            connection.close()
