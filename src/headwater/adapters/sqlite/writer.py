"""The writer of a file: one a process, which writes all that is wanted at a time in one transaction (group commit).

It is a thread, in which it queues with the writers of other processes on a blocking `flock`, never on SQLite's busy
handler, which sleeps. What one turn of an event loop submits goes there together. But a request that is alone and has
nothing to wait for is written in the loop itself: the way to the thread and back takes as long as writing it.
"""

from __future__ import annotations

import asyncio
import threading
import time
from collections import defaultdict, deque
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from queue import SimpleQueue
from typing import Any, Final, Generic, TypeVar

import apsw
from msgspec import Struct

from headwater import fault
from headwater.adapters.sqlite.faults import translate
from headwater.adapters.sqlite.file import File
from headwater.adapters.sqlite.loan import Loan
from headwater.adapters.sqlite.session import NotBegunError, Session
from headwater.errors import DatabaseError, HeadwaterError, Unknown

Request = TypeVar("Request")
Result = TypeVar("Result")

QUICK: Final = 0.001
"""Seconds that a transaction may block an event loop."""
MEMORY: Final = 8
"""How many transactions the mean is over that tells how long the next may last."""
ALONE: Final = 8
"""How many in a row must have been alone before the next is taken to be: the loop has nothing better to do."""
LOOK: Final = 4
"""Of so many that are taken to be alone, one lets a turn of the loop pass, to see whether anybody else writes."""


class Ticket(Struct, Generic[Request, Result], frozen=True):
    """Requests of one caller and the future that their results go to."""

    requests: Sequence[Request]
    loop: asyncio.AbstractEventLoop
    future: asyncio.Future[list[Result | HeadwaterError]]


class Writer(Generic[Request, Result]):
    """Writes requests with `work(connection, requests) -> results`: all that are queued, in one transaction.

    A transaction takes about `limit` requests. If it fails it is undone and its halves are tried, down to the guilty
    request alone, whose result is then the error. A result is `Unknown` where the disk failed at COMMIT. `committed` is
    called after each transaction that changed something. `work` may be called again after a failure. Both are called in
    the writer's thread, or, while transactions last less than `quick` seconds, in the loop of requests that come alone.
    """

    def __init__(
        self,
        file: File,
        work: Callable[[apsw.Connection, Sequence[Request]], Sequence[Result]],
        committed: Callable[[], None],
        *,
        limit: int = 1_000,
        patience: float = 30.0,
        quick: float = QUICK,
    ) -> None:
        self._file = file
        self._work = work
        self._committed = committed
        self._limit = limit
        self._patience = patience
        self._quick = self._lasting = quick
        self._session = Session(file)
        self._turn = threading.Lock()  # to use the session
        self._gathered: dict[asyncio.AbstractEventLoop, list[Ticket[Request, Result]]] = {}
        self._queued: deque[Ticket[Request, Result] | Loan | None] = deque()
        self._bell: SimpleQueue[None] = SimpleQueue()
        self._busy = False
        self._alone = 0
        self._closed = False
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._serve, name=f"headwater-writer {file.path.name}", daemon=True)
        self._thread.start()

    async def submit(self, requests: Sequence[Request]) -> list[Result | HeadwaterError]:
        """The result of each request, in order, once all are on disk or have failed.

        A caller that is cancelled meanwhile does not learn the outcome; requests not yet begun are then dropped.
        """
        loop = asyncio.get_running_loop()
        ticket: Ticket[Request, Result] = Ticket(requests, loop, loop.create_future())
        gathered = self._gathered.get(loop)
        if gathered is not None:  # the first of this turn has checked
            gathered.append(ticket)
            return await ticket.future
        self._check()
        self._gathered[loop] = [ticket]
        try:
            if self._alone <= ALONE or self._alone % LOOK == 0:
                await asyncio.sleep(0)  # whoever else writes in this turn of the loop joins
        except BaseException:
            ticket.future.cancel()
            raise
        finally:
            results = self._send_off(loop)
        return results if results is not None else await ticket.future

    @asynccontextmanager
    async def exclusive(self) -> AsyncIterator[Loan]:
        """Lends the writer's connection with an open transaction; commits at the end, is undone if the block raises.

        While it lasts all other writers of the file wait, so it is undone after `patience` seconds. Raises
        DatabaseError, or Unknown where the disk failed at COMMIT.
        """
        self._check()
        loop = asyncio.get_running_loop()
        loan = Loan(self._file, loop)
        self._enqueue([*self._gathered.pop(loop, ()), loan])
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
            for loop in tuple(self._gathered):
                self._enqueue(self._gathered.pop(loop, ()))
            self._enqueue([None])
        await asyncio.to_thread(self._ended.wait)

    def _check(self) -> None:
        self._file.check()
        if self._closed:
            raise DatabaseError(f"{self._file.path} is closed")

    def _enqueue(self, items: Sequence[Ticket[Request, Result] | Loan | None]) -> None:
        if items:
            self._queued.extend(items)
            self._bell.put(None)  # once for all: each ring may wake the thread, which then wants the interpreter's lock

    # --- in a loop ---

    def _send_off(self, loop: asyncio.AbstractEventLoop) -> list[Result | HeadwaterError] | None:
        """Write what this turn of the loop has gathered if it is but one, and give the results; else send it on."""
        tickets = self._gathered.pop(loop, [])
        self._alone = self._alone + 1 if len(tickets) == 1 and not (self._queued or self._busy) else 0
        results = self._write_here(tickets[0]) if self._alone > ALONE else None
        if results is None:
            self._enqueue(tickets)
        return results

    def _write_here(self, ticket: Ticket[Request, Result]) -> list[Result | HeadwaterError] | None:
        """The results, at once; None where that would mean to wait, or where it failed: the thread is to try."""
        if self._lasting >= self._quick or ticket.future.done() or not self._turn.acquire(blocking=False):
            return None
        try:
            return list(self._transact(ticket.requests, wait=False))
        except Unknown as error:
            return [error for _ in ticket.requests]
        except Exception:  # noqa: BLE001 - nothing is stored, and what it was shows when it happens again
            return None
        finally:
            self._turn.release()

    # --- in the writer's thread ---

    def _serve(self) -> None:
        while not self._ended.is_set():
            self._bell.get()
            while self._queued:
                self._busy = True  # before it is no longer queued, until it is settled: the loops look
                self._serve_one(self._queued.popleft())
                self._busy = False

    def _serve_one(self, item: Ticket[Request, Result] | Loan | None) -> None:
        if item is None:
            with self._turn:
                self._session.close()
            self._ended.set()
        elif isinstance(item, Loan):
            self._lend(item)
        else:
            self._write(self._gather(item))

    def _gather(self, first: Ticket[Request, Result]) -> list[Ticket[Request, Result]]:
        """This ticket and those queued behind it, up to the limit; what is no ticket ends the group."""
        group, size = [first], len(first.requests)
        while size < self._limit and self._queued and isinstance(item := self._queued[0], Ticket):
            self._queued.popleft()
            group.append(item)
            size += len(item.requests)
        return group

    def _write(self, group: list[Ticket[Request, Result]]) -> None:
        group = [ticket for ticket in group if not ticket.future.cancelled()]
        requests = [request for ticket in group for request in ticket.requests]
        with self._turn:
            results = self._settle(requests) if requests else []
        self._busy = False
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

    def _transact(self, requests: Sequence[Request], *, wait: bool = True) -> Sequence[Result]:
        begun = time.perf_counter()
        session = self._session
        connection = session.begin(wait=wait)
        try:
            fault.point("sqlite.begun")
            before = connection.total_changes()
            results = self._work(connection, requests)
            fault.point("sqlite.written")
            session.commit(connection)
            fault.point("sqlite.committed")
        finally:
            session.end(connection)
        fault.point("sqlite.unlocked")
        self._lasting += (time.perf_counter() - begun - self._lasting) / MEMORY
        if connection.total_changes() != before:
            self._committed()
        return results

    def _lend(self, loan: Loan) -> None:
        if loan.abandoned:
            return
        with self._turn:
            error = self._carry_out(loan)
        self._busy = False
        loan.settle(error)
        if error is None:
            self._committed()

    def _carry_out(self, loan: Loan) -> HeadwaterError | None:
        """Lend the open transaction and end it as the borrower wants; what went wrong, if anything did."""
        session = self._session
        try:
            connection = session.begin()
            try:
                loan.lend(connection, self._patience)
                if loan.commit:
                    fault.point("sqlite.returned")
                    session.commit(connection)
                    fault.point("sqlite.committed_loan")
            finally:
                session.end(connection)
        except NotBegunError as error:
            return error.cause
        except Exception as error:  # noqa: BLE001 - the borrower gets it
            return translate(error, self._file.path)
        return None


def _answer(loop: asyncio.AbstractEventLoop, told: list[tuple[asyncio.Future[Any], list[Any]]]) -> None:
    def resolve() -> None:
        for future, results in told:
            if not future.done():
                future.set_result(results)

    try:
        loop.call_soon_threadsafe(resolve)
    except RuntimeError:  # the loop is closed: nobody waits any more
        return
