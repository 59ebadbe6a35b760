"""The tables of ours that the works write to, and the rows in them."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import apsw

from benchmarks.sample import line_json, order_id
from headwater.adapters.sqlite.room import make_room

TABLES = """
CREATE TABLE IF NOT EXISTS events (
    position INTEGER PRIMARY KEY, stream TEXT NOT NULL, version INTEGER NOT NULL, kind TEXT NOT NULL,
    id ANY NOT NULL, type TEXT NOT NULL, type_version INTEGER NOT NULL, codec INTEGER NOT NULL, time INTEGER NOT NULL,
    previous INTEGER NOT NULL, data ANY NOT NULL, meta ANY NOT NULL) STRICT;
CREATE UNIQUE INDEX IF NOT EXISTS events_by_stream ON events (stream, version);
CREATE TABLE IF NOT EXISTS command_keys (
    tenant TEXT NOT NULL, key TEXT NOT NULL, hash BLOB NOT NULL, position INTEGER NOT NULL, version INTEGER NOT NULL,
    time INTEGER NOT NULL, PRIMARY KEY (tenant, key)) STRICT, WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS totals (order_id TEXT PRIMARY KEY, cents INTEGER NOT NULL) STRICT, WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS checkpoints (name TEXT PRIMARY KEY, position INTEGER NOT NULL) STRICT, WITHOUT ROWID;
"""
PRAGMAS = {
    "busy_timeout": 5_000,
    "journal_mode": "wal",
    "synchronous": 2,
    "wal_autocheckpoint": 4_000,
    "cache_size": -32_768,
    "mmap_size": 0,
}
EVENT = "INSERT INTO events (stream, version, kind, id, type, type_version, codec, time, previous, data, meta) VALUES "
KEY = "INSERT INTO command_keys VALUES "
HISTORY = "SELECT type, CAST(data AS BLOB) FROM events WHERE stream = ? ORDER BY version"
HASH = bytes(16)

EventRow = tuple[str, int, str, bytes, str, int, int, int, int, str, bytes]
KeyRow = tuple[str, str, bytes, int, int, int]


def connect(path: Path) -> apsw.Connection:
    """A connection with our settings, and the tables; the log is as long as ours."""
    connection = apsw.Connection(str(path))
    for name, value in PRAGMAS.items():
        connection.pragma(name, value)
    connection.execute(TABLES)
    make_room(connection, path)
    return connection


def stream(number: int) -> str:
    """The stream of an order, as ours is called."""
    return f"bench.Order/{order_id(number)}"


def event_row(number: int, version: int, encoded: bytes = b"") -> EventRow:
    """One event of an order."""
    order = order_id(number)
    mark = order.int.to_bytes(16, "big")
    name = "bench.Placed" if version == 1 else "bench.LineAdded"
    data = (encoded or line_json(str(order), version)).decode()
    return (
        f"bench.Order/{order}", version, "event", mark, name, 1, 0, time.time_ns() // 1000, version - 1, data, b"A" + mark
    )  # fmt: skip


def key_row(key: str, version: int) -> KeyRow:
    """The command key of a command; its position is not known to a writer that does not number rows itself."""
    return "", key, HASH, 0, version, time.time_ns() // 1000


def pragmas(connection: apsw.Connection) -> dict[str, Any]:
    """The settings read back."""
    return {name: connection.pragma(name) for name in ("journal_mode", "synchronous")}


def fill(connection: apsw.Connection, orders: range, events: int) -> None:
    """Store orders."""
    one = f"({', '.join('?' * 11)})"
    for start in range(orders.start, orders.stop, 100):
        some = range(start, min(start + 100, orders.stop))
        rows = (event_row(number, version) for number in some for version in range(1, events + 1))
        with connection:
            connection.executemany(EVENT + one, rows)
