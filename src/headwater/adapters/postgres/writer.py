"""The writer of a database object: one task that commits all that is queued in one transaction (group commit)."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from typing import Final

import psycopg

from headwater import fault
from headwater.adapters.postgres.faults import AGAIN, changed, translate, translated
from headwater.adapters.postgres.outright import BACKEND
from headwater.adapters.postgres.server import COMMIT, Asynchronous, Server, undo
from headwater.adapters.postgres.writes import Commit
from headwater.database import Answer, Failed, InlineFold, WriteSet
from headwater.errors import DatabaseError, HeadwaterError, Unknown

RACES: Final = 20
"""How often sets are judged anew after a race with another process was lost."""
RESERVE: Final = 64
"""After a commit that did not go outright, so many go by what is stored."""
PATIENCE: Final = 5.0
"""Seconds for which the end of a commit is asked for after its connection was lost."""
PAUSE: Final = 0.05


class Ticket:
    """The sets of one caller and the future that their answers go to."""

    __slots__ = ("future", "writes")

    def __init__(self, writes: Sequence[WriteSet]) -> None:
        self.writes = writes
        self.future: asyncio.Future[list[Answer]] = asyncio.get_running_loop().create_future()


class DoubtError(Exception):
    """The connection was lost after COMMIT was sent."""


class Writer:
    """Commits write sets, in their turn. `committed` is called after each transaction that may have written messages."""

    def __init__(
        self, server: Server, turn: asyncio.Lock, committed: Callable[[], None], *, limit: int = 1_000
    ) -> None:
        self.folds: Sequence[InlineFold] = ()
        self._server = server
        self._committed = committed
        self._limit = limit
        self._connection: Asynchronous | None = None
        self._backend = 0
        self._reserve = 0
        self._queue: deque[Ticket] = deque()
        self._queued = asyncio.Event()
        self._turn = turn
        self._closed = False
        self._task = asyncio.create_task(self._serve())

    async def submit(self, writes: Sequence[WriteSet]) -> list[Answer]:
        """The answer of each set, in order, once all are on disk or have failed.

        A caller that is cancelled meanwhile does not learn the outcome; sets not yet begun are then dropped.
        """
        self._check()
        ticket = Ticket(writes)
        self._queue.append(ticket)
        self._queued.set()
        return await ticket.future

    @asynccontextmanager
    async def exclusive(self) -> AsyncIterator[None]:
        """Nothing else of this process is in a transaction meanwhile: the loop may wait for the server in the block."""
        self._check()
        async with self._turn:
            yield

    async def close(self) -> None:
        """Write what is queued, and end."""
        self._closed = True
        self._queued.set()
        await self._task

    def _check(self) -> None:
        self._server.check()
        if self._closed:
            raise DatabaseError(f"{self._server.place.name} is closed")

    async def _serve(self) -> None:
        while not self._closed or self._queue:
            await self._queued.wait()
            self._queued.clear()
            while self._queue:
                async with self._turn:
                    await self._write(self._gather())
        await self._drop()

    def _gather(self) -> list[Ticket]:
        """What is queued, up to the limit."""
        group: list[Ticket] = []
        size = 0
        while self._queue and size < self._limit:
            ticket = self._queue.popleft()
            if not ticket.future.cancelled():
                group.append(ticket)
                size += len(ticket.writes)
        return group

    async def _write(self, group: list[Ticket]) -> None:
        writes = [write for ticket in group for write in ticket.writes]
        answers = await self._settle(writes) if writes else []
        start = 0
        for ticket in group:
            end = start + len(ticket.writes)
            if not ticket.future.done():
                ticket.future.set_result(answers[start:end])
            start = end

    async def _settle(self, writes: list[WriteSet]) -> list[Answer]:
        """The answers of a transaction with all of these; where it fails, of its halves."""
        try:
            connection = await self._connected()
        except HeadwaterError as error:
            return [Failed(error) for _ in writes]
        try:
            return await self._raced(connection, writes)
        except Exception as error:  # noqa: BLE001 - a fold in it is user code
            if len(writes) == 1:
                return [Failed(translate(error, self._server.place))]
            half = len(writes) // 2
            return await self._settle(writes[:half]) + await self._settle(writes[half:])

    async def _raced(self, connection: Asynchronous, writes: list[WriteSet]) -> list[Answer]:
        for _ in range(RACES):
            self._reserve = max(self._reserve - 1, 0)
            commit = Commit(writes, self.folds, 0 if self._reserve else self._backend)
            try:
                return await self._transact(connection, commit)
            except DoubtError:
                answers = await self._ask(commit)
                if answers is not None:
                    return answers
            except psycopg.Error as error:
                if error.sqlstate not in AGAIN and not changed(error) and not connection.closed:
                    raise
                if commit.outright:
                    self._reserve = RESERVE
            connection = await self._connected()
        raise DatabaseError("other processes were faster again and again: try again")

    async def _transact(self, connection: Asynchronous, commit: Commit) -> list[Answer]:
        plan = commit.steps()
        ending = False
        try:
            step = next(plan)
            while True:
                ending = step[-1] is COMMIT
                if ending:
                    fault.point("postgres.committing")
                step = plan.send(await connection.exchange(step))
        except StopIteration as end:
            fault.point("postgres.committed")
            if commit.judged.recorded:
                self._committed()
            answers: list[Answer] = end.value
            return answers
        except psycopg.Error as error:
            await undo(connection, error)
            if ending and connection.closed:
                raise DoubtError from error
            raise
        except BaseException as error:
            await undo(connection, error)
            raise

    async def _ask(self, commit: Commit) -> list[Answer] | None:
        """What became of a commit whose connection was lost; None: nothing of it is stored, or asking by key is safe."""
        deadline = asyncio.get_running_loop().time() + PATIENCE
        while asyncio.get_running_loop().time() < deadline:
            try:
                outcome = await (await self._connected()).drive(commit.outcome())
            except (HeadwaterError, psycopg.Error):
                outcome = True
            if outcome is None:
                return None
            if isinstance(outcome, list):
                self._committed()
                return outcome
            if not outcome:
                break
            await asyncio.sleep(PAUSE)
        return [Unknown(write.key.key if write.key else "") for write in commit.writes]

    async def _connected(self) -> Asynchronous:
        if self._connection is None or self._connection.closed:
            self._connection, self._backend = await self._server.connect(), 0
            if not self._server.place.pooled:
                with translated(self._server.place):
                    (((self._backend,),),) = await self._connection.exchange([BACKEND])
        return self._connection

    async def _drop(self) -> None:
        if self._connection is not None:
            await self._connection.close()
