"""The server as this process sees it: how it is connected to, guarded against fork, and a small pool for short work."""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager, suppress
from typing import Any, Final, TypeVar

import msgspec
import psycopg
from psycopg.pq import TransactionStatus
from psycopg.types.json import set_json_loads

from headwater.adapters.postgres.connection import Connection
from headwater.adapters.postgres.faults import lost, refused, translate, translated
from headwater.adapters.postgres.statement import Plan, Row, Statement
from headwater.adapters.postgres.trip import PREPARED
from headwater.adapters.postgres.url import BY_KEY, FREE, Place
from headwater.errors import ConfigurationError, DatabaseError

OLDEST: Final = 130_000
BEGIN: Final = Statement("BEGIN ISOLATION LEVEL READ COMMITTED READ WRITE")
COMMIT: Final = Statement("COMMIT")
ATTEMPTS: Final = 3
"""How often statements are sent that may run twice."""

Result = TypeVar("Result")
Asynchronous = Connection
Blocking = psycopg.Connection[Row]


class Server:
    """A PostgreSQL database: `check` it on every use, `connect` for a new connection. All of them are in autocommit."""

    def __init__(self, place: Place) -> None:
        self.place = place
        self._process = os.getpid()

    def check(self) -> None:
        """Refuse to be used in a forked child: two processes would talk on one connection."""
        if os.getpid() != self._process:
            raise ConfigurationError(
                f"{self.place.name} was opened before this process was forked: open it in the child"
            )

    async def connect(self) -> Asynchronous:
        """A new connection for the running loop."""
        self.check()
        options: dict[str, Any] = dict(self.place.planned(BY_KEY))
        try:
            connection = await Connection.connect(autocommit=True, **options)
        except psycopg.Error as error:
            raise refused(error, self.place) from None
        try:
            self._prepare(connection)
        except ConfigurationError:
            await connection.close()
            raise
        connection.trip.keeps = not self.place.pooled
        return connection

    def connect_now(self) -> Blocking:
        """A new blocking connection, for any thread and any statement."""
        self.check()
        options: dict[str, Any] = dict(self.place.planned(FREE))
        try:
            connection = psycopg.Connection.connect(autocommit=True, **options)
        except psycopg.Error as error:
            raise refused(error, self.place) from None
        try:
            self._prepare(connection)
        except ConfigurationError:
            connection.close()
            raise
        return connection

    def _prepare(self, connection: Asynchronous | Blocking) -> None:
        if connection.info.server_version < OLDEST:
            found = connection.info.parameter_status("server_version")
            raise ConfigurationError(
                f"{self.place.name} is PostgreSQL {found}: 13 or newer is needed, upgrade the server"
            )
        connection.prepare_threshold = None if self.place.pooled else 0
        connection.prepared_max = PREPARED
        set_json_loads(msgspec.json.decode, connection)


class LostError(DatabaseError):
    """A connection broke; what was asked may or may not have been done."""


class Pool:
    """A few connections for reads and short transactions, made when they are needed. `lost` is called when one breaks.

    `turn` is for transactions of several steps: a blocking one would wait for the locks of one that waits for the loop.
    """

    def __init__(self, server: Server, lost: Callable[[], None], size: int = 4) -> None:
        self.server = server
        self._lost = lost
        self._places = asyncio.Semaphore(size)
        self._idle: list[Asynchronous] = []
        self.turn = asyncio.Lock()
        self._closed = False

    @asynccontextmanager
    async def take(self) -> AsyncIterator[Asynchronous]:
        """A connection for a while; it comes back unless it broke, or something is still open on it."""
        self.server.check()
        async with self._places:
            if self._closed:
                raise DatabaseError(f"{self.server.place.name} is closed")
            connection = self._idle.pop() if self._idle else await self.server.connect()
            try:
                yield connection
            finally:
                await self._take_back(connection)

    async def rows(self, *statements: Statement) -> list[list[Row]]:
        """The rows of statements that may run twice: a connection that broke is replaced."""
        for _ in range(ATTEMPTS - 1):
            with suppress(LostError):
                return await self._rows(statements)
        return await self._rows(statements)

    async def _rows(self, statements: Sequence[Statement]) -> list[list[Row]]:
        async with self.take() as connection:
            try:
                return await connection.exchange(statements)
            except (psycopg.Error, ValueError, TypeError, OverflowError) as error:
                if lost(error):
                    await connection.close()
                    raise LostError(f"{self.server.place.name} closed the connection") from None
                raise translate(error, self.server.place) from None

    async def transact(self, plan: Plan[Result]) -> Result:
        """Drive a plan within a transaction, which is undone if it raises, in this process's turn."""
        async with self.turn, self.take() as connection:
            try:
                return await connection.drive(_within(plan))
            except Exception as error:  # noqa: BLE001 - whatever it was, the transaction is undone
                await undo(connection, error)
                if lost(error):
                    raise LostError(f"{self.server.place.name} closed the connection") from None
                raise translate(error, self.server.place) from None

    async def ask(self, plan: Plan[Result]) -> Result:
        """Drive a plan that only reads, without a transaction."""
        async with self.take() as connection:
            with translated(self.server.place):
                return await connection.drive(plan)

    async def settle(self, plan: Callable[[], Plan[Result]]) -> Result:
        """Drive a plan within a transaction which may run twice: where a connection breaks, it is made anew."""
        for _ in range(ATTEMPTS - 1):
            with suppress(LostError):
                return await self.transact(plan())
        return await self.transact(plan())

    async def close(self) -> None:
        """Close the connections that lie idle; those in use are closed when they come back."""
        self._closed = True
        while self._idle:
            await self._idle.pop().close()

    async def _take_back(self, connection: Asynchronous) -> None:
        if connection.closed:
            await self._drop()
        elif self._closed or connection.info.transaction_status != TransactionStatus.IDLE:
            await connection.close()
        else:
            self._idle.append(connection)

    async def _drop(self) -> None:
        """One broke: the others have probably too."""
        self._lost()
        idle, self._idle = self._idle, []
        for connection in idle:
            await connection.close()


def _within(plan: Plan[Result]) -> Plan[Result]:
    yield [BEGIN]
    result = yield from plan
    yield [COMMIT]
    return result


async def undo(connection: Asynchronous, error: BaseException) -> None:
    """Undo what is open on a connection after an error; one that does not work any more is closed."""
    try:
        if lost(error):
            await connection.close()
        elif not connection.closed:
            await connection.rollback()
    except psycopg.Error:
        await connection.close()
