"""The shop with its logs on PostgreSQL: where its services keep them, and copies of them for the ledger to read."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import apsw
import psycopg

from examples.shop.folder import Folder
from examples.shop.progress import Progress
from examples.shop.routes import SERVICES

COPIED = {
    "events": "SELECT position, stream, version, kind, type, convert_from(data, 'utf8') AS data FROM headwater.events",
    "journal": "SELECT sequence, consumer, stream, version FROM headwater.journal",
    "held": "SELECT consumer, reason, stream, version, cause, raw FROM headwater.held",
    "timers": "SELECT owner, key FROM headwater.timers",
    "sagas": "SELECT key, ended FROM headwater.sagas",
    "customers": "SELECT customer_id, orders::text AS orders, count, cds, cents FROM customers",
}
CLOSED = """
SELECT count(*) FROM headwater.events WHERE type IN ('orders.OrderShipped', 'orders.OrderCancelled')
"""


class PostgresFolder(Folder):
    """A folder of a run whose services keep their logs in databases of a server."""

    def __init__(self, path: Path, stores: dict[str, str], channel: str = "") -> None:
        super().__init__(path)
        self.stores = stores
        self.channel = channel

    def environment(self, service: str) -> dict[str, str]:
        found = super().environment(service) | {"HEADWATER_STORE": self.stores[service]}
        return found | ({"HEADWATER_CHANNEL": self.channel} if self.channel else {})

    def copy(self, to: Path) -> Path:
        """Copies of the logs as SQLite files in a new folder: journals first, so that no message hides between."""
        to.mkdir()
        files = {service: apsw.Connection(str(to / f"{service}.db")) for service in SERVICES}
        for table in ("journal", *(name for name in COPIED if name != "journal")):
            for service, file in files.items():
                if table != "customers" or service == "orders":
                    _copy(self.stores[service], table, file)
        for file in files.values():
            file.close()
        return to

    def wait(self, orders: int, seconds: float) -> Path:
        """Wait until the shop has nothing left to do; a copy of its logs."""
        end = time.monotonic() + seconds
        looks = 0
        while time.monotonic() < end:
            with psycopg.connect(self.stores["orders"]) as connection:
                closed = connection.execute(CLOSED).fetchall()[0][0]
            if closed >= orders:
                looks += 1
                copy = self.copy(self.path / f"copy-{looks}")
                progress = Progress(Folder(copy))
                found = progress.look()
                progress.close()
                if found.finished(orders):
                    return copy
            time.sleep(0.25)
        raise AssertionError(f"the shop does not finish: {closed} of {orders} orders are closed")


def _copy(url: str, table: str, file: apsw.Connection) -> None:
    with psycopg.connect(url) as connection:
        cursor = connection.execute(COPIED[table])
        assert cursor.description is not None
        names = [column.name for column in cursor.description]
        file.execute(f"CREATE TABLE {table} ({', '.join(names)})")
        rows: list[tuple[Any, ...]] = cursor.fetchall()
    with file:
        file.executemany(f"INSERT INTO {table} VALUES ({', '.join('?' * len(names))})", rows)
