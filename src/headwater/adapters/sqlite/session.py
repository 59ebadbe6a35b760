"""The connection that a file is written through: a transaction at a time, from begin to end under the file's lock."""

from __future__ import annotations

from typing import Final

import apsw

from headwater.adapters.sqlite.faults import translate
from headwater.adapters.sqlite.file import PRAGMAS, File
from headwater.adapters.sqlite.room import make_room
from headwater.errors import DatabaseError, HeadwaterError, Unknown

CERTAIN: Final = (apsw.FullError, apsw.BusyError, apsw.ConstraintError)
"""Failures of a COMMIT after which nothing is stored; any other leaves the outcome unknown."""

OFTEN: Final = 8
"""Transactions after which a process counts as one that writes often."""


class Session:
    """`begin`, perhaps `commit`, and `end`: by one thread at a time."""

    def __init__(self, file: File) -> None:
        self._file = file
        self._lock = file.lock()
        self._begun = 0
        self._connection: apsw.Connection | None = self._connect()

    def begin(self, *, wait: bool = True) -> apsw.Connection:
        """The connection with an open transaction. Raises NotBegunError; without `wait` also where another writes."""
        if not self._lock.take(wait=wait):
            raise NotBegunError(DatabaseError(f"another process writes to {self._file.path}"))
        try:
            connection = self._connection
            if connection is None:
                connection = self._connection = self._connect()
            self._begun += 1
            if self._begun == OFTEN:
                make_room(connection, self._file.path)
            _begin(connection, wait=wait)
        except (apsw.Error, HeadwaterError) as error:
            self._lock.free()
            raise NotBegunError(translate(error, self._file.path)) from error
        except BaseException:
            self._lock.free()
            raise
        return connection

    def commit(self, connection: apsw.Connection) -> None:
        """Commit; Unknown where the disk fails."""
        try:
            connection.execute("COMMIT")
        except CERTAIN:
            raise
        except apsw.Error as error:
            raise Unknown(cause=str(error)) from error

    def end(self, connection: apsw.Connection) -> None:
        """Undo what is still open, and let others write; where even that fails, the next begin has a new connection."""
        try:
            if connection.in_transaction:
                connection.execute("ROLLBACK")
        except apsw.Error:
            self._connection = None
            connection.close(True)
        finally:
            self._lock.free()

    def close(self) -> None:
        """Let go of the file."""
        if self._connection is not None:
            self._connection.close()
        self._lock.close()

    def _connect(self) -> apsw.Connection:
        connection = self._file.connect()
        connection.set_busy_timeout(0)
        return connection


def _begin(connection: apsw.Connection, *, wait: bool) -> None:
    """Begin; with `wait`, give a program that writes without taking the lock some time to end."""
    try:
        connection.execute("BEGIN IMMEDIATE")
    except apsw.BusyError:
        if not wait:
            raise
        connection.set_busy_timeout(PRAGMAS["busy_timeout"])
        try:
            connection.execute("BEGIN IMMEDIATE")
        finally:
            connection.set_busy_timeout(0)


class NotBegunError(Exception):
    """The transaction could not begin: trying its parts would not help."""

    def __init__(self, cause: HeadwaterError) -> None:
        super().__init__(str(cause))
        self.cause = cause
