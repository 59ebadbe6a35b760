"""A DB-API 2.0 module over apsw, for SQLAlchemy: the same library, settings and lock as all who write to the file.

Python's own `sqlite3` has another copy of SQLite in it. Two copies in one process take the locks of a file from one another,
and an old one lacks what was mended for files that several processes share.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from typing import Any, Final, TypeVar

import apsw

from headwater.adapters.sqlite.file import File
from headwater.adapters.sqlite.session import NotBegunError, Session
from headwater.adapters.sqlite.wake import Wake
from headwater.errors import HeadwaterError

Result = TypeVar("Result")
Row = tuple[Any, ...]

apilevel: Final = "2.0"
threadsafety: Final = 1
paramstyle: Final = "qmark"
sqlite_version: Final = apsw.sqlite_lib_version()
sqlite_version_info: Final = tuple(int(part) for part in sqlite_version.split(".")[:3])
Binary: Final = bytes


class Error(Exception):
    """The root of the errors of this module."""


class InterfaceError(Error):
    """It is used in a way that cannot work."""


class DatabaseError(Error):
    """SQLite refused."""


class DataError(DatabaseError):
    """A value cannot be stored."""


class OperationalError(DatabaseError):
    """SQLite could not do it."""


class IntegrityError(DatabaseError):
    """A constraint does not hold."""


class InternalError(DatabaseError):
    """SQLite is in trouble."""


class ProgrammingError(DatabaseError):
    """The SQL or its parameters are wrong."""


class NotSupportedError(DatabaseError):
    """SQLite has no such thing."""


KINDS: Final[tuple[tuple[type[Exception], type[Error]], ...]] = (
    (apsw.ConstraintError, IntegrityError),
    (apsw.BindingsError, ProgrammingError),
    (apsw.MismatchError, DataError),
    (apsw.TooBigError, DataError),
    (TypeError, DataError),
    (OverflowError, DataError),
    (apsw.Error, OperationalError),
    (HeadwaterError, OperationalError),
)


@contextmanager
def _raised() -> Iterator[None]:
    try:
        yield
    except tuple(kind for kind, _ in KINDS) as error:
        cause = error.__cause__ if isinstance(error, HeadwaterError) else None
        origin = cause if isinstance(cause, apsw.Error) else error
        raise next(ours for kind, ours in KINDS if isinstance(origin, kind))(str(error)) from error


class Connection:
    """A connection within somebody's transaction, who alone ends it; `lend` gives apsw's for the time of a statement."""

    def __init__(self, lend: Callable[[], AbstractContextManager[apsw.Connection]]) -> None:
        self._lend = lend

    def cursor(self) -> Cursor:
        return Cursor(self)

    def run(self, work: Callable[[apsw.Connection], Result]) -> Result:
        """Do something with apsw's connection."""
        with _raised(), self._lend() as connection:
            return work(connection)

    def commit(self) -> None:
        """Left to whom it belongs."""

    def rollback(self) -> None:
        """Left to whom it belongs."""

    def close(self) -> None:
        """Left to whom it belongs."""


class FileConnection(Connection):
    """A connection of its own. Its first statement waits for the file's lock, which it has until `commit` or `rollback`.

    With `autocommit` it takes no lock, and only reads.
    """

    def __init__(self, file: File) -> None:
        super().__init__(self._begun)
        self._file = file
        self._session = Session(file)
        self._reading: apsw.Connection | None = None
        self._writing: apsw.Connection | None = None
        self._wake = Wake(file, lambda: -1)
        self.grown = False

    @contextmanager
    def _begun(self) -> Iterator[apsw.Connection]:
        self._file.check()
        connection = self._reading or self._writing
        if connection is None:
            connection = self._writing = self._begin()
        elif connection is self._writing and not connection.in_transaction:
            raise OperationalError("the transaction was undone: it failed as a whole, or ended itself")
        yield connection

    def _begin(self) -> apsw.Connection:
        try:
            return self._session.begin()
        except NotBegunError as error:
            raise error.cause from error

    @property
    def autocommit(self) -> bool:
        return self._reading is not None

    @autocommit.setter
    def autocommit(self, value: bool) -> None:
        self.rollback()
        if self._reading is not None:
            self._reading.close()
        self._reading = self._file.connect(writable=False) if value else None

    def commit(self) -> None:
        if self._writing is None:
            return
        try:
            self.run(self._session.commit)
        finally:
            grown = self.grown
            self.rollback()
        if grown:
            self._wake.hint()

    def rollback(self) -> None:
        if self._writing is not None:
            connection, self._writing, self.grown = self._writing, None, False
            self._session.end(connection)

    def close(self) -> None:
        self.autocommit = False
        self._wake.close()
        self._session.close()


class Cursor:
    """Runs a statement and has all its rows at once: nothing of it stays open."""

    arraysize = 1

    def __init__(self, connection: Connection) -> None:
        self.connection = connection
        self.description: Sequence[Row] | None = None
        self.rowcount = -1
        self.lastrowid: int | None = None
        self._rows: Iterator[Row] = iter(())

    def execute(self, sql: str, parameters: Sequence[Any] = ()) -> Cursor:
        self._take(self.connection.run(lambda connection: _executed(connection, sql, [parameters])))
        return self

    def executemany(self, sql: str, parameters: Sequence[Sequence[Any]]) -> Cursor:
        self._take(self.connection.run(lambda connection: _executed(connection, sql, parameters)))
        return self

    def _take(self, found: tuple[Sequence[Row] | None, list[Row], int, int]) -> None:
        self.description, rows, self.rowcount, self.lastrowid = found
        self._rows = iter(rows)

    def fetchone(self) -> Row | None:
        return next(self._rows, None)

    def fetchmany(self, size: int | None = None) -> list[Row]:
        return [row for row, _ in zip(self._rows, range(size or self.arraysize), strict=False)]

    def fetchall(self) -> list[Row]:
        return list(self._rows)

    def __iter__(self) -> Iterator[Row]:
        return self._rows

    def setinputsizes(self, sizes: object) -> None:
        """SQLite needs none."""

    def setoutputsize(self, size: int, column: int | None = None) -> None:
        """SQLite needs none."""

    def close(self) -> None:
        self._rows = iter(())

    async def _async_soft_close(self) -> None:
        """What SQLAlchemy closes before it gives buffered rows; there is nothing to close."""


def _executed(
    connection: apsw.Connection, sql: str, many: Sequence[Sequence[Any]]
) -> tuple[Sequence[Row] | None, list[Row], int, int]:
    """The description, the rows, how many rows were changed, and the last row's id."""
    described: list[Sequence[Any]] = []

    def describe(cursor: apsw.Cursor, *_: object) -> bool:
        described[:] = cursor.get_description()
        return True

    cursor = connection.cursor()
    cursor.exec_trace = describe  # one without rows describes itself no later
    rows: list[Row] = []
    changed = 0
    for parameters in many:
        before = connection.total_changes()
        rows += cursor.execute(sql, parameters)
        changed += connection.changes() if connection.total_changes() != before else 0
    description = [(column[0], None, None, None, None, None, None) for column in described]
    return description or None, rows, changed, connection.last_insert_rowid()


def connect(path: str) -> FileConnection:
    """A connection to the file at a path."""
    return FileConnection(File(path))
