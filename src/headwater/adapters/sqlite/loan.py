"""The writer's connection with an open transaction, lent to a task of a loop."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Iterator
from contextlib import contextmanager

import apsw

from headwater.adapters.sqlite.faults import translate
from headwater.adapters.sqlite.file import File
from headwater.errors import DatabaseError, HeadwaterError


class Loan:
    """A transaction in a task's hands: `use` its connection for each statement, and keep nothing of it."""

    def __init__(self, file: File, loop: asyncio.AbstractEventLoop) -> None:
        self._file = file
        self._loop = loop
        self._connection: apsw.Connection | None = None
        self._one_at_a_time = threading.Lock()
        self._returned = threading.Event()
        self.commit = False
        self.opened: asyncio.Future[None] = loop.create_future()
        self.settled: asyncio.Future[None] = loop.create_future()

    @contextmanager
    def use(self) -> Iterator[apsw.Connection]:
        """The connection, for as long as the block; DatabaseError where the transaction has been undone."""
        self._file.check()
        with self._one_at_a_time:
            if self._connection is None or not self._connection.in_transaction:
                raise self.undone()
            try:
                yield self._connection
            except (apsw.Error, OverflowError, TypeError) as error:
                raise translate(error, self._file.path) from error

    def undone(self) -> DatabaseError:
        """The error for a transaction that is no longer open."""
        return DatabaseError("the transaction was undone: it failed as a whole, ended itself, or took too long")

    def give_back(self, *, commit: bool) -> None:
        """Called by the task: it is done, and wants the transaction committed or undone."""
        self.commit = commit
        self._returned.set()
        if not commit and not self.settled.cancel():
            self.settled.exception()

    # --- in the writer's thread ---

    @property
    def abandoned(self) -> bool:
        """Whether the task gave it back before it began."""
        return self._returned.is_set()

    def lend(self, connection: apsw.Connection, patience: float) -> None:
        """Give the connection to the task and wait until it comes back, at most `patience` seconds."""
        self._connection = connection
        if tell(self._loop, self.opened, None):
            self._returned.wait(patience)
        with self._one_at_a_time:
            self._connection = None
        if not self._returned.is_set() or (self.commit and not connection.in_transaction):
            raise self.undone()

    def settle(self, error: HeadwaterError | None) -> None:
        """Tell the task how it ended."""
        tell(self._loop, self.settled if self.opened.done() else self.opened, error)


def tell(loop: asyncio.AbstractEventLoop, future: asyncio.Future[None], error: HeadwaterError | None) -> bool:
    """Resolve a future of another thread's loop; false where the loop is closed."""

    def resolve() -> None:
        if not future.done():
            future.set_exception(error) if error else future.set_result(None)

    try:
        loop.call_soon_threadsafe(resolve)
    except RuntimeError:
        return False
    return True
