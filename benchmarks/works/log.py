"""W5: the whole log in order, each event decoded to its class, counted by type."""

from __future__ import annotations

import asyncio
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import apsw

from benchmarks import ours, peer
from benchmarks.case import Case, Setting
from benchmarks.load import Figures
from benchmarks.logs import filled
from benchmarks.names import OURS, PEER, RAW
from benchmarks.raw import tables
from benchmarks.works.replay import ADDED, PLACED
from headwater import App

PAGE = 2_000
PEER_EVENTS = 100_000
LOG = "SELECT position, stream, version, type, CAST(data AS BLOB) FROM events WHERE position > ? ORDER BY position LIMIT ?"


def reads(setting: Setting) -> Iterator[Case]:
    files = {subject: filled(setting, subject, setting.events) for subject in (OURS, RAW)}
    files[PEER] = filled(setting, PEER, PEER_EVENTS)
    measured = {
        OURS: lambda: asyncio.run(read_ours(ours.order_app(files[OURS]), setting.events)),
        PEER: lambda: read_peer(peer.orders_app(files[PEER]), PEER_EVENTS),
        RAW: lambda: _raw(files[RAW], setting.events),
    }
    yield Case("W5", f"{setting.events:,} events (peer: {PEER_EVENTS:,})", measured, PEER, RAW)


def figures_of(counts: Counter[object], events: int, elapsed: float) -> Figures:
    """Events a second, once all were seen."""
    assert counts.total() == events
    assert len(counts) == 2
    return {"events/s": events / elapsed}


async def read_ours(app: App, events: int) -> Figures:
    """The whole log of our service."""
    counts: Counter[object] = Counter()
    async with app.client():
        database, decode, after = app.wiring.database, app.schema.decode, 0
        begun = time.perf_counter()
        while page := await database.read(after, PAGE):
            counts.update([type(decode(one.type, one.type_version, one.data)) for one in page])
            after = page[-1].position
        return figures_of(counts, events, time.perf_counter() - begun)


def read_peer(app: peer.Orders, events: int) -> Figures:
    """The whole log of the peer's, which is closed then."""
    log, decode = app.notification_log, app.mapper.to_domain_event
    counts: Counter[object] = Counter()
    start, begun = 1, time.perf_counter()
    while page := log.select(start=start, limit=PAGE):
        counts.update([type(decode(one)) for one in page])
        start = page[-1].id + 1
    found = figures_of(counts, events, time.perf_counter() - begun)
    app.close()
    return found


def page_of(connection: apsw.Connection, after: int, limit: int) -> list[Any]:
    """The rows after a position."""
    return connection.execute(LOG, (after, limit)).fetchall()


def _raw(path: Path, events: int) -> Figures:
    connection = tables.connect(path)
    counts: Counter[object] = Counter()
    after, begun = 0, time.perf_counter()
    while page := page_of(connection, after, PAGE):
        counts.update([type((PLACED if name == "bench.Placed" else ADDED)(data)) for _, _, _, name, data in page])
        after = page[-1][0]
    found = figures_of(counts, events, time.perf_counter() - begun)
    connection.close()
    return found
