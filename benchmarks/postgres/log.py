"""W5: the whole log in order, each event decoded to its class, counted by type."""

from __future__ import annotations

import asyncio
import time
from collections import Counter
from collections.abc import Iterator
from typing import Any

import psycopg

from benchmarks.case import Case, Setting
from benchmarks.load import Figures
from benchmarks.names import OURS, PEER, RAW
from benchmarks.works.log import PAGE, PEER_EVENTS, figures_of, read_ours, read_peer
from benchmarks.works.replay import ADDED, PLACED

from . import peer
from .server import Server
from .subjects import filled, order_app

LOG = "SELECT position, stream, version, type, data FROM events WHERE position > %s ORDER BY position LIMIT %s"


def reads(setting: Setting, server: Server) -> Iterator[Case]:
    urls = {subject: filled(server, subject, setting.events) for subject in (OURS, RAW)}
    urls[PEER] = filled(server, PEER, PEER_EVENTS)
    measured = {
        OURS: lambda: asyncio.run(read_ours(order_app(urls[OURS]), setting.events)),
        PEER: lambda: read_peer(peer.orders_app(urls[PEER]), PEER_EVENTS),
        RAW: lambda: _raw(urls[RAW], setting.events),
    }
    yield Case("W5 PostgreSQL", f"{setting.events:,} events (peer: {PEER_EVENTS:,})", measured, PEER, RAW)


def connected(url: str) -> psycopg.Connection[Any]:
    """A blocking connection to the raw tables, everything prepared at once."""
    connection = psycopg.connect(url, autocommit=True)
    connection.prepare_threshold = 0
    return connection


def page_of(connection: psycopg.Connection[Any], after: int, limit: int) -> list[Any]:
    """The rows after a position."""
    return connection.cursor(binary=True).execute(LOG, (after, limit)).fetchall()


def _raw(url: str, events: int) -> Figures:
    counts: Counter[object] = Counter()
    with connected(url) as connection:
        after, begun = 0, time.perf_counter()
        while page := page_of(connection, after, PAGE):
            counts.update([type((PLACED if name == "bench.Placed" else ADDED)(data)) for _, _, _, name, data in page])
            after = page[-1][0]
        return figures_of(counts, events, time.perf_counter() - begun)
