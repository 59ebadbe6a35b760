"""The writer of a file: one thread a process that writes all that is queued in one transaction (group commit).

Writers of several processes queue on a blocking `flock`, never on SQLite's busy handler, which sleeps.
"""

from __future__ import annotations

import asyncio
import threading
from collections import defaultdict, deque
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from queue import SimpleQueue
from typing import Any, Final, Generic, TypeVar

import apsw

from headwater import fault
from headwater.adapters.sqlite.faults import translate
from headwater.adapters.sqlite.file import File
from headwater.adapters.sqlite.loan import Loan
from headwater.errors import DatabaseError, HeadwaterError, Unknown

Request = TypeVar("Request")
Result = TypeVar("Result")

CERTAIN: Final = (apsw.FullError, apsw.BusyError, apsw.ConstraintError)
"""Failures of a COMMIT after which nothing is stored; any other leaves the outcome unknown."""


class Ticket(Generic[Request, Result]):
    """Requests of one caller and the future that their results go to."""

    __slots__ = ("future", "loop", "requests")

    def __init__(self, requests: Sequence[Request], loop: asyncio.AbstractEventLoop) -> None:
        self.requests = requests
        self.loop = loop
        self.future: asyncio.Future[list[Result | HeadwaterError]] = loop.create_future()


class Writer(Generic[Request, Result]):
    """Writes requests with `work(connection, requests) -> results`: all that are queued, in one transaction.

    A transaction takes about `limit` requests. If it fails it is undone and its halves are tried, down to the guilty
    request alone, whose result is then the error. A result is `Unknown` where the disk failed at COMMIT. `committed` is
    called, in the writer's thread, after each transaction that changed something. `work` may be called again after a
    failure.
    """

    def __init__(
        self,
        file: File,
        work: Callable[[apsw.Connection, Sequence[Request]], Sequence[Result]],
        committed: Callable[[], None],
        *,
        limit: int = 1_000,
        patience: float = 30.0,
    ) -> None:
        self._file = file
        self._work = work
        self._committed = committed
        self._limit = limit
        self._patience = patience
        self._lock = file.lock()
        self._connection: apsw.Connection | None = file.connect()
        self._queue: SimpleQueue[Ticket[Request, Result] | Loan | None] = SimpleQueue()
        self._taken: deque[Loan | None] = deque()
        self._closed = False
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._serve, name=f"headwater-writer {file.path.name}", daemon=True)
        self._thread.start()

    async def submit(self, requests: Sequence[Request]) -> list[Result | HeadwaterError]:
        """The result of each request, in order, once all are on disk or have failed.

        A caller that is cancelled meanwhile does not learn the outcome; requests not yet begun are then dropped.
        """
        self._check()
        ticket: Ticket[Request, Result] = Ticket(requests, asyncio.get_running_loop())
        self._queue.put(ticket)
        return await ticket.future

    @asynccontextmanager
    async def exclusive(self) -> AsyncIterator[Loan]:
        """Lends the writer's connection with an open transaction; commits at the end, is undone if the block raises.

        While it lasts all other writers of the file wait, so it is undone after `patience` seconds. Raises
        DatabaseError, or Unknown where the disk failed at COMMIT.
        """
        self._check()
        loan = Loan(self._file, asyncio.get_running_loop())
        self._queue.put(loan)
        try:
            await loan.opened
            yield loan
        except BaseException:
            loan.give_back(commit=False)
            raise
        loan.give_back(commit=True)
        await loan.settled

    async def close(self) -> None:
        """Write what is queued, and end."""
        if not self._closed:
            self._check()
            self._closed = True
            self._queue.put(None)
        await asyncio.to_thread(self._ended.wait)

    def _check(self) -> None:
        self._file.check()
        if self._closed:
            raise DatabaseError(f"{self._file.path} is closed")

    # --- in the writer's thread ---

    def _serve(self) -> None:
        while (item := self._next()) is not None:
            if isinstance(item, Loan):
                self._lend(item)
            else:
                self._write(self._gather(item))
        if self._connection is not None:
            self._connection.close()
        self._lock.close()
        self._ended.set()

    def _next(self) -> Ticket[Request, Result] | Loan | None:
        return self._taken.popleft() if self._taken else self._queue.get()

    def _gather(self, first: Ticket[Request, Result]) -> list[Ticket[Request, Result]]:
        """This ticket and those queued behind it, up to the limit; what is no ticket ends the group."""
        group, size = [first], len(first.requests)
        while size < self._limit and not self._queue.empty():
            item = self._queue.get()
            if not isinstance(item, Ticket):
                self._taken.append(item)
                break
            group.append(item)
            size += len(item.requests)
        return group

    def _write(self, group: list[Ticket[Request, Result]]) -> None:
        group = [ticket for ticket in group if not ticket.future.cancelled()]
        requests = [request for ticket in group for request in ticket.requests]
        results = self._settle(requests) if requests else []
        answers: dict[asyncio.AbstractEventLoop, list[tuple[asyncio.Future[Any], list[Any]]]] = defaultdict(list)
        start = 0
        for ticket in group:
            end = start + len(ticket.requests)
            answers[ticket.loop].append((ticket.future, results[start:end]))
            start = end
        for loop, told in answers.items():
            _answer(loop, told)

    def _settle(self, requests: list[Request]) -> list[Result | HeadwaterError]:
        """The results of a transaction with all of these; where it fails, of its halves."""
        try:
            return list(self._transact(requests))
        except Unknown as error:
            return [error for _ in requests]
        except NotBegunError as error:
            return [error.cause for _ in requests]
        except Exception as error:  # noqa: BLE001 - a fold in it is user code
            if len(requests) == 1:
                return [translate(error, self._file.path)]
            half = len(requests) // 2
            return self._settle(requests[:half]) + self._settle(requests[half:])

    def _transact(self, requests: list[Request]) -> Sequence[Result]:
        with self._lock:
            connection = self._begin()
            try:
                fault.point("sqlite.begun")
                before = connection.total_changes()
                results = self._work(connection, requests)
                fault.point("sqlite.written")
                self._commit(connection)
                fault.point("sqlite.committed")
            finally:
                self._undo(connection)
        fault.point("sqlite.unlocked")
        if connection.total_changes() != before:
            self._committed()
        return results

    def _lend(self, loan: Loan) -> None:
        if loan.abandoned:
            return
        try:
            with self._lock:
                connection = self._begin()
                try:
                    loan.lend(connection, self._patience)
                    if loan.commit:
                        fault.point("sqlite.returned")
                        self._commit(connection)
                        fault.point("sqlite.committed_loan")
                finally:
                    self._undo(connection)
        except NotBegunError as error:
            loan.settle(error.cause)
        except Exception as error:  # noqa: BLE001 - the borrower gets it
            loan.settle(translate(error, self._file.path))
        else:
            loan.settle(None)
            self._committed()

    def _begin(self) -> apsw.Connection:
        try:
            if self._connection is None:
                self._connection = self._file.connect()
            self._connection.execute("BEGIN IMMEDIATE")
        except (apsw.Error, HeadwaterError) as error:
            raise NotBegunError(translate(error, self._file.path)) from error
        return self._connection

    def _commit(self, connection: apsw.Connection) -> None:
        try:
            connection.execute("COMMIT")
        except CERTAIN:
            raise
        except apsw.Error as error:
            raise Unknown(cause=str(error)) from error

    def _undo(self, connection: apsw.Connection) -> None:
        """Undo what is still open; where even that fails, the next transaction has a new connection."""
        try:
            if connection.in_transaction:
                connection.execute("ROLLBACK")
        except apsw.Error:
            self._connection = None
            connection.close(True)


class NotBegunError(Exception):
    """The transaction could not begin: trying its parts would not help."""

    def __init__(self, cause: HeadwaterError) -> None:
        super().__init__(str(cause))
        self.cause = cause


def _answer(loop: asyncio.AbstractEventLoop, told: list[tuple[asyncio.Future[Any], list[Any]]]) -> None:
    def resolve() -> None:
        for future, results in told:
            if not future.done():
                future.set_result(results)

    try:
        loop.call_soon_threadsafe(resolve)
    except RuntimeError:  # the loop is closed: nobody waits any more
        return
