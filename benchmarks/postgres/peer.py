"""The peer: `eventsourcing` on PostgreSQL through its own recorders, a pool of 16 connections and everything else as it comes."""

from __future__ import annotations

from typing import Any
from urllib.parse import urlsplit

from eventsourcing.persistence import Tracking
from eventsourcing.postgres import PostgresApplicationRecorder, PostgresDatastore, PostgresTrackingRecorder
from psycopg.sql import SQL

from benchmarks.peer import Orders

POOL = 16
TOTALS = SQL("CREATE TABLE IF NOT EXISTS totals (order_id text PRIMARY KEY, cents bigint NOT NULL)").format()
COUNT = SQL(
    "INSERT INTO totals AS t VALUES (%s, %s) ON CONFLICT (order_id) DO UPDATE SET cents = t.cents + excluded.cents"
)


def orders_app(url: str, *, cache: bool = False, functions: bool = True) -> Orders:
    """The application over a database; with its functions in the database, which is its best mode, or without."""
    environment = {
        "PERSISTENCE_MODULE": "eventsourcing.postgres",
        "POSTGRES_POOL_SIZE": str(POOL),
        "POSTGRES_CONNECT_TIMEOUT": "30",
        "POSTGRES_ENABLE_DB_FUNCTIONS": "yes" if functions else "no",
    }
    environment |= {f"POSTGRES_{name.upper()}": value for name, value in _place(url).items()}
    if cache:
        environment["AGGREGATE_CACHE_MAXSIZE"] = "1000"
    return Orders(env=environment)


def recorder_of(app: Orders) -> PostgresApplicationRecorder:
    """What stores its events."""
    recorder = app.recorder
    assert isinstance(recorder, PostgresApplicationRecorder)
    return recorder


class Totals(PostgresTrackingRecorder):
    """A materialised view, as the library's documentation makes one: a row an order, with its tracking record."""

    def __init__(self, datastore: PostgresDatastore) -> None:
        super().__init__(datastore)
        self.sql_create_statements.append(TOTALS)

    def count(self, order: str, cents: int, tracking: Tracking) -> None:
        with self.datastore.transaction(commit=True) as cursor:
            cursor.execute(COUNT, (order, cents), prepare=True)
            self._insert_tracking(cursor, tracking)


def totals(url: str) -> Totals:
    """The view in a database, its tables made."""
    place: dict[str, Any] = {"password": "", **_place(url)}
    view = Totals(PostgresDatastore(**place))
    view.create_table()
    return view


def _place(url: str) -> dict[str, str]:
    parts = urlsplit(url)
    return {
        "dbname": parts.path.removeprefix("/"),
        "host": parts.hostname or "",
        "port": str(parts.port or 5432),
        "user": parts.username or "",
        "password": parts.password or "none",
    }
