"""Large logs, filled once a run for each subject: streams of 10 events."""

from __future__ import annotations

import asyncio
import os
from pathlib import Path

import apsw

from . import ours, peer
from .case import Setting
from .names import OURS, PEER
from .raw import tables
from .sample import EVENTS_AN_ORDER


def filled(setting: Setting, subject: str, events: int) -> Path:
    """The file of a subject with so many events; nothing is written to it by the works that share it."""
    found = setting.logs.get((subject, events))
    if found is None:
        name = subject.replace(" ", "-")
        found = setting.logs[subject, events] = setting.folder / f"{name}-{events}.db"
        _fill(subject, found, range(events // EVENTS_AN_ORDER))
    return found


def _fill(subject: str, path: Path, orders: range) -> None:
    if subject == OURS:
        asyncio.run(_fill_ours(path, orders))
    elif subject == PEER:
        app = peer.orders_app(path)
        peer.fill(app, orders)
        app.close()
    else:
        connection = tables.connect(path)
        tables.fill(connection, orders, EVENTS_AN_ORDER)
        connection.close()


async def _fill_ours(path: Path, orders: range, meta: bytes | None = None) -> None:
    database = await ours.opened(path)
    await ours.fill(database, orders, meta)
    await database.close()


def fill_ours_with(path: Path, orders: range, meta: bytes) -> None:
    """Fill a file of ours whose messages have this metadata."""
    asyncio.run(_fill_ours(path, orders, meta))


def settle(path: Path) -> None:
    """Wait until a file is on disk, so that no measurement has to share the disk with it."""
    with path.open("rb") as file:
        os.fsync(file.fileno())


def bytes_of(path: Path) -> int:
    """The bytes of a file's pages that are in use, once its WAL is written back."""
    connection = apsw.Connection(str(path))
    connection.wal_checkpoint(mode=apsw.SQLITE_CHECKPOINT_TRUNCATE)
    pages = connection.pragma("page_count") - connection.pragma("freelist_count")
    size: int = pages * connection.pragma("page_size")
    connection.close()
    return size
