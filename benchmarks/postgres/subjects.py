"""The subjects' names, and their filled logs: streams of 10 events."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable
from typing import Final

from benchmarks import ours as common
from benchmarks.names import EMMETT, OURS, PEER
from benchmarks.peer import fill
from benchmarks.sample import EVENTS_AN_ORDER
from headwater import App
from headwater.adapters.postgres import PostgresDatabase

from . import emmett, peer, raw
from .server import Server, settle

PEER_DEFAULT: Final = "eventsourcing, default"
"""The peer as it comes. As `eventsourcing` it runs in its best mode: POSTGRES_ENABLE_DB_FUNCTIONS, no table lock."""


async def opened(url: str) -> PostgresDatabase:
    """Our database at a URL, open."""
    database = PostgresDatabase(url, common.CLOCK)
    await database.open()
    return database


def order_app(url: str, *, table: str = "") -> App:
    """Our service over a database."""
    return common.service(url, table=table)


def filled(server: Server, subject: str, events: int) -> str:
    """The database of a subject with so many events; nothing is written to it by the works that share it."""
    found = server.logs.get((subject, events))
    if found is None:
        found = server.logs[subject, events] = server.make()
        orders = range(events // EVENTS_AN_ORDER)
        if subject == OURS:
            asyncio.run(fill_ours(found, orders))
        elif subject == PEER:
            app = peer.orders_app(found)
            fill(app, orders)
            app.close()
        elif subject == EMMETT:
            program = emmett.found()
            assert program is not None
            program.fill(found, len(orders))
        else:
            raw.fill(found, orders)
        settle(found)
    return found


async def fill_ours(url: str, orders: Iterable[int], meta: bytes | None = None) -> None:
    """Store orders of ours, with this metadata if any is given."""
    database = await opened(url)
    await common.fill(database, orders, meta)
    await database.close()
