"""The logs of a run that keeps them in the files of its folder; each look reads only what is new."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import Any

import apsw

from headwater import DatabaseError

from .folder import Folder
from .logs import Counts
from .routes import SERVICES

JOURNAL = "SELECT max(sequence), consumer, count(*) FROM journal WHERE sequence > ? GROUP BY consumer"
EVENTS = """
SELECT max(position), kind, substr(stream, 1, instr(stream, '/') - 1), type, count(*)
FROM events WHERE position > ? GROUP BY 2, 3, 4
"""
HELD = "SELECT reason, count(*) FROM held GROUP BY reason"


class Files:
    """SQLite files, of which one writer at a time makes the next row the last one: what was seen is behind a look for good."""

    def __init__(self, folder: Folder) -> None:
        self.folder = folder
        self._connections: dict[str, apsw.Connection] = {}
        self._seen: Counter[tuple[str, str]] = Counter()
        self._counts = Counts()

    def count(self) -> Counts:
        found = self._counts
        for service in SERVICES:
            for sequence, consumer, count in self._new(service, JOURNAL):
                found.taken[consumer] += count
                self._saw(service, JOURNAL, sequence)
        for service in SERVICES:
            for position, kind, category, of_type, count in self._new(service, EVENTS):
                found.logged[service, kind, category, of_type] += count
                self._saw(service, EVENTS, position)
        held: Counter[str] = Counter()
        for service in SERVICES:
            held.update(dict(self._rows(service, HELD)))
        return Counts(found.logged, found.taken, held)

    def placed(self) -> set[int]:
        sql = "SELECT data ->> 'order_id' FROM events WHERE type = 'orders.OrderPlaced'"
        return {order_id for (order_id,) in self._rows("orders", sql)}

    def books(self) -> Path:
        return self.folder.path

    def make(self) -> None:
        return

    def remove(self) -> None:
        return

    def close(self) -> None:
        for connection in self._connections.values():
            connection.close()
        self._connections = {}

    def _saw(self, service: str, sql: str, upto: int) -> None:
        self._seen[service, sql] = max(self._seen[service, sql], upto)

    def _new(self, service: str, sql: str) -> list[tuple[Any, ...]]:
        return self._rows(service, sql, (self._seen[service, sql],))

    def _rows(self, service: str, sql: str, parameters: tuple[int, ...] = ()) -> list[tuple[Any, ...]]:
        try:
            connection = self._connection(service)
            return connection.execute(sql, parameters).fetchall() if connection else []
        except apsw.Error as error:
            raise unreadable(self.folder.database(service), error) from error

    def _connection(self, service: str) -> apsw.Connection | None:
        """A connection that only reads; None for as long as the service has not made its tables."""
        found = self._connections.get(service)
        if found is None and self.folder.database(service).exists():
            found = apsw.Connection(str(self.folder.database(service)), flags=apsw.SQLITE_OPEN_READONLY)
            found.set_busy_timeout(5_000)
            if not found.execute("SELECT 1 FROM sqlite_schema WHERE name = 'journal'").fetchall():
                found.close()
                return None
            self._connections[service] = found
        return found


def unreadable(path: Path, error: apsw.Error) -> DatabaseError:
    return DatabaseError(f"{path} cannot be read ({error}): check the disk, or restore it from a backup")
