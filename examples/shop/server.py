"""The logs of a run that keeps them on a PostgreSQL server, in a database a service."""

from __future__ import annotations

import contextlib
import shutil
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any, LiteralString, TypeVar
from urllib.parse import urlsplit

import apsw
import psycopg
from psycopg import sql

from headwater import DatabaseError
from headwater.config import redact

from .folder import Folder
from .logs import Counts
from .routes import SERVICES

JOURNAL: LiteralString = """
SELECT max(sequence), sequence <= %s AS settled, consumer, count(*)
FROM headwater.journal WHERE sequence > %s GROUP BY 2, 3
"""
EVENTS: LiteralString = """
SELECT max(position), position <= %s AS settled, kind, split_part(stream, '/', 1), type, count(*)
FROM headwater.events WHERE position > %s GROUP BY 2, 3, 4, 5
"""
HELD: LiteralString = "SELECT reason, count(*) FROM headwater.held GROUP BY reason"
PLACED: LiteralString = "SELECT data::json ->> 'order_id' FROM headwater_events WHERE type = 'orders.OrderPlaced'"
OLDEST: LiteralString = """
SELECT coalesce(min(xact_start), clock_timestamp()) FROM pg_stat_activity
WHERE datname = current_database() AND pid <> pg_backend_pid()
"""
NOW: LiteralString = "SELECT clock_timestamp()"
COPIED: dict[str, LiteralString] = {
    "journal": "SELECT sequence, consumer, stream, version FROM headwater.journal",
    "events": "SELECT position, stream, version, kind, type, data FROM headwater_events",
    "held": "SELECT consumer, reason, stream, version, cause, raw FROM headwater.held",
    "timers": "SELECT owner, key FROM headwater.timers",
    "sagas": "SELECT key, ended FROM headwater.sagas",
    "customers": "SELECT customer_id, orders::text AS orders, count, cds, cents FROM customers",
}
"""What the ledger reads; only one service has customers."""
PAGE = 10_000
PATIENCE = 10.0
AWAY = "08"

Result = TypeVar("Result")

Connection = psycopg.Connection[tuple[Any, ...]]


class Tally:
    """Counts the rows of a table that grows. Numbers are drawn before rows are seen, so that a lower one may come later.

    A number that was the highest at a look is settled when every transaction that was open then has ended; what is above
    the last settled one is counted anew at each look.
    """

    def __init__(self, statement: LiteralString) -> None:
        self._statement = statement
        self._settled: Counter[tuple[Any, ...]] = Counter()
        self._place = 0
        self._next = 0
        self._since: Any = None

    def count(self, connection: Connection) -> Counter[tuple[Any, ...]]:
        """The rows so far, by what they are."""
        ((oldest,),) = connection.execute(OLDEST).fetchall()
        rows = connection.execute(self._statement, (self._next, self._place)).fetchall()
        below: Counter[tuple[Any, ...]] = Counter()
        above: Counter[tuple[Any, ...]] = Counter()
        for _, settled, *kind, count in rows:
            (below if settled else above)[tuple(kind)] += count
        found = self._settled + below + above
        if self._since is not None and oldest > self._since:
            self._settled, self._place, self._since = self._settled + below, self._next, None
        if self._since is None:
            self._next = max((last for last, *_ in rows), default=self._place)
            ((self._since,),) = connection.execute(NOW).fetchall()
        return found


class Server:
    """The databases of one run."""

    def __init__(self, folder: Folder) -> None:
        assert folder.run is not None
        self.folder = folder
        self._place = folder.run.store
        self._stores = {service: folder.store(service) for service in SERVICES}
        self._others = [url for url in (folder.channel(),) if url.startswith("postgres") and folder.made(url)]
        self._connections: dict[str, Connection] = {}
        self._tallies = {(service, one): Tally(one) for service in SERVICES for one in (JOURNAL, EVENTS)}
        self._last = Counts()

    def count(self) -> Counts:
        """All there is so far; while the server is away, what was there before."""
        try:
            self._last = self._count()
        except psycopg.OperationalError:
            self.close()
        except psycopg.errors.UndefinedTable:  # a service has not made its tables yet
            pass
        return self._last

    def placed(self) -> set[int]:
        with contextlib.suppress(psycopg.errors.UndefinedTable):
            return {int(order_id) for (order_id,) in self._rows("orders", PLACED)}
        return set()

    def books(self) -> Path:
        """Copies of the logs, made anew. Raises DatabaseError."""
        return self._patiently(self._copies)

    def make(self) -> None:
        """Make the databases that are missing. Raises DatabaseError."""
        self._patiently(self._make)

    def remove(self) -> None:
        """Drop the databases. Raises DatabaseError."""
        self.close()
        self._patiently(self._remove)

    def _copies(self) -> Path:
        to = self.folder.path / "books"
        shutil.rmtree(to, ignore_errors=True)
        to.mkdir()
        for service in SERVICES:
            file = apsw.Connection(str(to / f"{service}.db"))
            with file, contextlib.suppress(psycopg.errors.UndefinedTable):
                for table, statement in COPIED.items():
                    if table != "customers" or service == "orders":
                        _copy(self._connection(service), table, statement, file)
            file.close()
        return to

    def close(self) -> None:
        for connection in self._connections.values():
            connection.close()
        self._connections = {}

    def _count(self) -> Counts:
        found = Counts()
        for service in SERVICES:
            for (consumer,), count in self._tally(service, JOURNAL).items():
                found.taken[consumer] += count
        for service in SERVICES:
            for kind, count in self._tally(service, EVENTS).items():
                found.logged[service, *kind] += count
        for service in SERVICES:
            found.held.update(dict(self._rows(service, HELD)))
        return found

    def _tally(self, service: str, statement: LiteralString) -> Counter[tuple[Any, ...]]:
        return self._tallies[service, statement].count(self._connection(service))

    def _rows(self, service: str, statement: LiteralString) -> list[tuple[Any, ...]]:
        return self._connection(service).execute(statement).fetchall()

    def _connection(self, service: str) -> Connection:
        if service not in self._connections:
            self._connections[service] = psycopg.connect(self._stores[service], autocommit=True)
        return self._connections[service]

    def _names(self) -> list[str]:
        return [urlsplit(url).path.removeprefix("/") for url in (*self._stores.values(), *self._others)]

    def _make(self) -> None:
        with self._administering() as connection:
            there = {name for (name,) in connection.execute("SELECT datname FROM pg_database").fetchall()}
            for name in self._names():
                if name not in there:
                    connection.execute(sql.SQL("CREATE DATABASE {}").format(sql.Identifier(name)))

    def _remove(self) -> None:
        with self._administering() as connection:
            for name in self._names():
                connection.execute(sql.SQL("DROP DATABASE IF EXISTS {} WITH (FORCE)").format(sql.Identifier(name)))

    def _administering(self) -> Connection:
        place = urlsplit(self._place)
        url = place._replace(path=place.path if place.path.strip("/") else "/postgres").geturl()
        return psycopg.connect(url, autocommit=True)

    def _patiently(self, work: Callable[[], Result]) -> Result:
        """Do what may be done again, and wait for a server that is away. Raises DatabaseError."""
        end = time.monotonic() + PATIENCE
        while True:
            try:
                return work()
            except psycopg.Error as error:
                self.close()
                code = error.sqlstate or AWAY
                if time.monotonic() > end or not code.startswith((AWAY, "57P")):
                    said = error.diag.message_primary or "it cannot be reached"
                    raise DatabaseError(f"the databases of the demo on {redact(self._place)}: {said}") from None
                time.sleep(0.5)


def _copy(connection: Connection, table: str, statement: LiteralString, file: apsw.Connection) -> None:
    with connection.transaction(), connection.cursor(name=table) as cursor:
        cursor.execute(statement)
        assert cursor.description is not None
        names = [column.name for column in cursor.description]
        file.execute(f"CREATE TABLE {table} ({', '.join(names)})")
        while rows := cursor.fetchmany(PAGE):
            file.executemany(f"INSERT INTO {table} VALUES ({', '.join('?' * len(names))})", rows)
