"""How far the shop is, seen from outside: counts what the logs and journals have got since the last look."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import apsw

from headwater import DatabaseError

from .folder import Folder
from .routes import CONSUMERS, ROUTES, SERVICES, Route

JOURNAL = "SELECT max(sequence), consumer, count(*) FROM journal WHERE sequence > ? GROUP BY consumer"
EVENTS = """
SELECT max(position), kind, substr(stream, 1, instr(stream, '/') - 1), type, count(*)
FROM events WHERE position > ? GROUP BY 2, 3, 4
"""
HELD = "SELECT reason, count(*) FROM held GROUP BY reason"

Kind = tuple[str, str, str, str]
"""Of messages: whose log, kind, category and type."""


@dataclass(frozen=True)
class Snapshot:
    """One look: orders by state, messages logged, how far each consumer is behind, and what is held for which reason."""

    placed: int
    shipped: int
    cancelled: int
    messages: int
    taken: int
    lag: dict[str, int]
    held: dict[str, int]

    @property
    def open(self) -> int:
        return self.placed - self.shipped - self.cancelled

    def finished(self, orders: int) -> bool:
        """Whether nothing is left to do: journals were read before logs, so that no message hides between the two."""
        return self.placed == orders and self.open == 0 and not any(self.lag.values()) and not self.held

    def stuck(self) -> bool:
        """Whether some orders wait for a person, and nothing for a retry."""
        return bool(self.held.get("dead") or self.held.get("uncertain")) and not self.held.get("retry")


class Progress:
    """Looks at the databases of a run; each look reads only what is new."""

    def __init__(self, folder: Folder) -> None:
        self.folder = folder
        self._connections: dict[str, apsw.Connection] = {}
        self._seen: Counter[tuple[str, str]] = Counter()
        self._logged: Counter[Kind] = Counter()
        self._taken: Counter[str] = Counter()

    def look(self) -> Snapshot:
        for service in SERVICES:
            for sequence, consumer, count in self._new(service, JOURNAL):
                self._taken[consumer] += count
                self._saw(service, JOURNAL, sequence)
        for service in SERVICES:
            for position, kind, category, of_type, count in self._new(service, EVENTS):
                self._logged[service, kind, category, of_type] += count
                self._saw(service, EVENTS, position)
        return Snapshot(
            placed=self._orders("OrderPlaced"),
            shipped=self._orders("OrderShipped"),
            cancelled=self._orders("OrderCancelled"),
            messages=self._logged.total(),
            taken=self._taken.total(),
            lag=self._lag(),
            held=self._held(),
        )

    def placed(self) -> set[int]:
        """The ids of the orders that are in the log."""
        sql = "SELECT data ->> 'order_id' FROM events WHERE type = 'orders.OrderPlaced'"
        return {order_id for (order_id,) in self._rows("orders", sql)}

    def close(self) -> None:
        for connection in self._connections.values():
            connection.close()
        self._connections = {}

    def _orders(self, name: str) -> int:
        return self._logged["orders", "event", "orders.Order", f"orders.{name}"]

    def _lag(self) -> dict[str, int]:
        lag = dict.fromkeys(CONSUMERS, 0)
        for route in ROUTES:
            lag[route.consumer] += sum(count for kind, count in self._logged.items() if takes(route, kind))
        return {consumer: expected - self._taken[consumer] for consumer, expected in lag.items()}

    def _held(self) -> dict[str, int]:
        held: Counter[str] = Counter()
        for service in SERVICES:
            held.update(dict(self._rows(service, HELD)))
        return dict(held)

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


def takes(route: Route, kind: Kind) -> bool:
    """Whether a consumer takes messages of a kind by a route."""
    source, of_kind, category, of_type = kind
    return (route.source, route.kind, route.category) == (source, of_kind, category) and (
        not route.types or of_type in route.types
    )
