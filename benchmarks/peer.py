"""The peer: `eventsourcing` on SQLite through its normal Application and Aggregate; durable as we are, which is read back."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any
from uuid import UUID

from eventsourcing.application import Application
from eventsourcing.domain import Aggregate, event
from eventsourcing.persistence import StoredEvent, Tracking
from eventsourcing.sqlite import (
    SQLiteApplicationRecorder,
    SQLiteConnection,
    SQLiteConnectionPool,
    SQLiteTrackingRecorder,
)

from .sample import EVENTS_AN_ORDER, line, order_id

FULL = 2
_create_connection = SQLiteConnectionPool._create_connection


def _durable(pool: SQLiteConnectionPool) -> SQLiteConnection:
    connection = _create_connection(pool)
    connection._sqlite_conn.execute(f"PRAGMA synchronous={FULL}")
    return connection


SQLiteConnectionPool._create_connection = _durable  # type: ignore[method-assign, assignment]


class Order(Aggregate):
    @event("Placed")
    def __init__(self, order_id: str, customer_id: str, sku: str, quantity: int, cents: int, note: str) -> None:
        self.lines = 1
        self.cents = cents

    @staticmethod
    def create_id(order_id: str) -> UUID:
        return UUID(order_id)

    @event("LineAdded")
    def add_line(self, order_id: str, customer_id: str, sku: str, quantity: int, cents: int, note: str) -> None:
        self.lines += 1
        self.cents += cents


class Orders(Application[UUID]):
    log_section_size = 2_000

    def add_line(self, order: UUID, fields: dict[str, Any]) -> None:
        """Load, decide, append."""
        found: Order = self.repository.get(order)
        found.add_line(**fields)
        self.save(found)


class Totals(SQLiteTrackingRecorder):
    """A materialised view, as the library's documentation makes one: a row an order, with its tracking record."""

    def _create_table(self, c: Any) -> None:
        super()._create_table(c)
        c.execute("CREATE TABLE IF NOT EXISTS totals (order_id TEXT PRIMARY KEY, cents INTEGER) WITHOUT ROWID")

    def count(self, order: str, cents: int, tracking: Tracking) -> None:
        with self.datastore.transaction(commit=True) as cursor:
            cursor.execute(
                "INSERT INTO totals VALUES (?, ?) ON CONFLICT DO UPDATE SET cents = cents + excluded.cents",
                (order, cents),
            )
            self._insert_tracking(cursor, tracking)


def orders_app(path: Path, *, cache: bool = False) -> Orders:
    """The application over a file, with the library's cache of aggregates if asked for."""
    environment = {"PERSISTENCE_MODULE": "eventsourcing.sqlite", "SQLITE_DBNAME": str(path)}
    if cache:
        environment["AGGREGATE_CACHE_MAXSIZE"] = "1000"
    return Orders(env=environment)


def recorder_of(app: Orders) -> SQLiteApplicationRecorder:
    """What stores its events."""
    recorder = app.recorder
    assert isinstance(recorder, SQLiteApplicationRecorder)
    return recorder


def pragmas(app: Orders) -> dict[str, Any]:
    """The settings of a connection that writes, read back."""
    with recorder_of(app).datastore.get_connection(commit=True) as connection:
        raw = connection._sqlite_conn
        return {name: raw.execute(f"PRAGMA {name}").fetchone()[0] for name in ("journal_mode", "synchronous")}


def stored_order(app: Orders, number: int, events: int) -> list[StoredEvent]:
    """The stored events of one order, made by the library."""
    order = str(order_id(number))
    made = Order(**line(order, 1))
    for version in range(2, events + 1):
        made.add_line(**line(order, version))
    return [app.mapper.to_stored_event(one) for one in made.collect_events()]


def orders_like(app: Orders, orders: Iterable[int], events: int) -> Iterator[list[StoredEvent]]:
    """The stored events of orders: one made by the library, the others like it."""
    template = stored_order(app, 0, events)
    old = str(order_id(0)).encode()
    for number in orders:
        found = order_id(number)
        new = str(found).encode()
        yield [StoredEvent(found, one.originator_version, one.topic, one.state.replace(old, new)) for one in template]


def fill(app: Orders, orders: Iterable[int], events: int = EVENTS_AN_ORDER) -> None:
    """Store orders."""
    recorder: Any = app.recorder
    chunk: list[StoredEvent] = []
    for order in orders_like(app, orders, events):
        chunk += order
        if len(chunk) >= 2_000:
            recorder.insert_events(chunk)
            chunk = []
    recorder.insert_events(chunk)
