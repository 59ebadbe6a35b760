"""Room in the write-ahead log, made at once: a commit that makes a file longer costs the disk twice one that does not."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Final

import apsw

from headwater.adapters.sqlite.file import PRAGMAS

PAGE: Final = 4096 + 24
"""Bytes of a page in the log, with its header."""
SPARE: Final = 16
"""The disk has so many times more to give, else it is left alone."""
FEW: Final = 16
"""Pages of cache with which a large transaction spills into the log."""


def wanted() -> int:
    """Bytes after which SQLite writes the log back and starts again at its beginning."""
    return int(PRAGMAS["wal_autocheckpoint"]) * PAGE


def make_room(connection: apsw.Connection, path: Path) -> None:
    """Make the log as long as it is going to be, by a transaction that is undone; where that fails, it grows as it did."""
    missing = wanted() - _length(path.with_name(f"{path.name}-wal"))
    if missing < wanted() // 8 or _free(path.parent) < SPARE * wanted():
        return
    try:
        connection.pragma("cache_size", FEW)
        connection.execute("BEGIN IMMEDIATE; CREATE TABLE headwater_room (filler)")
        connection.execute("INSERT INTO headwater_room VALUES (zeroblob(?))", (missing,))
    except apsw.Error:
        return
    finally:
        if connection.in_transaction:
            connection.execute("ROLLBACK")
        connection.pragma("cache_size", PRAGMAS["cache_size"])


def _length(path: Path) -> int:
    try:
        return path.stat().st_size
    except FileNotFoundError:
        return 0


def _free(folder: Path) -> int:
    found = os.statvfs(folder)
    return found.f_bavail * found.f_frsize
