"""W5p: a read model over the log: a row an order with its total; rows and checkpoint in one transaction."""

from __future__ import annotations

import asyncio
import shutil
import time
from collections.abc import Iterator
from itertools import chain, count
from pathlib import Path
from typing import Any

from eventsourcing.persistence import Tracking
from eventsourcing.sqlite import SQLiteDatastore

from benchmarks import ours, peer
from benchmarks.case import Case, Setting
from benchmarks.load import Figures
from benchmarks.logs import filled
from benchmarks.names import OURS, PEER, RAW
from benchmarks.raw import tables
from benchmarks.works.log import PEER_EVENTS, page_of
from benchmarks.works.replay import ADDED
from headwater import App

BATCH = 1_000
PEER_FOLDS = 5_000
UPSERT = "INSERT INTO totals VALUES {} ON CONFLICT DO UPDATE SET cents = cents + excluded.cents"
MOVE = "INSERT INTO checkpoints VALUES ('totals', ?) ON CONFLICT DO UPDATE SET position = excluded.position"


def catch_up(setting: Setting) -> Iterator[Case]:
    events = min(setting.events, 200_000)
    with setting.fresh() as folder:
        files = {subject: folder / f"{subject.replace(' ', '-')}.db" for subject in (OURS, PEER, RAW)}
        for subject, path in files.items():
            shutil.copy(filled(setting, subject, PEER_EVENTS if subject == PEER else events), path)
        rounds = count(1)
        measured = {
            OURS: lambda: asyncio.run(_ours(files[OURS], f"totals_{next(rounds)}", events)),
            PEER: lambda: _peer(files[PEER], folder / f"view-{next(rounds)}.db"),
            RAW: lambda: _raw(files[RAW], events),
        }
        yield Case("W5p", f"{events:,} events (peer: {PEER_FOLDS:,})", measured, PEER, RAW)


async def _ours(path: Path, table: str, events: int) -> Figures:
    return await project_ours(ours.order_app(path, table=table), table, events)


async def project_ours(app: App, table: str, events: int) -> Figures:
    """Our read model, from the begin of the log to its end."""
    wiring = await app.connect()
    await wiring.channel.open()
    try:
        flows = await wiring.flows("bench", lambda name: lambda: None)
        [feed] = [wired.flow for wired in flows if wired.name == f"bench.{table}/log"]
        begun = time.perf_counter()
        while await feed.step():
            pass
        elapsed = time.perf_counter() - begun
        assert await wiring.database.checkpoint(f"bench.{table}") == events
        return {"events/s": events / elapsed}
    finally:
        await wiring.leave()
        await wiring.channel.close()
        await app.stop()


def _peer(log_path: Path, view_path: Path) -> Figures:
    app = peer.orders_app(log_path)
    view = peer.Totals(SQLiteDatastore(str(view_path)))
    view.create_table()
    found = project_peer(app, view)
    view.datastore.close()
    return found


def project_peer(app: peer.Orders, view: Any) -> Figures:
    """The peer's view over the first events of its log; the application is closed then."""
    decode, done, begun = app.mapper.to_domain_event, 0, time.perf_counter()
    while done < PEER_FOLDS:
        for one in app.notification_log.select(start=done + 1, limit=BATCH):
            event = decode(one)
            view.count(event.order_id, event.cents, Tracking("orders", one.id))  # type: ignore[attr-defined]
            done = one.id
    found = {"events/s": done / (time.perf_counter() - begun)}
    app.close()
    return found


def _raw(path: Path, events: int) -> Figures:
    connection = tables.connect(path)
    connection.execute("DELETE FROM totals; DELETE FROM checkpoints")
    done, begun = 0, time.perf_counter()
    while page := page_of(connection, done, BATCH):
        totals: dict[str, int] = {}
        for row in page:
            event = ADDED(row[4])
            totals[event.order_id] = totals.get(event.order_id, 0) + event.cents
        done = page[-1][0]
        connection.execute("BEGIN IMMEDIATE")
        connection.execute(UPSERT.format(", ".join(["(?, ?)"] * len(totals))), tuple(chain(*totals.items())))
        connection.execute(MOVE, (done,))
        connection.execute("COMMIT")
    assert done == events
    found = {"events/s": done / (time.perf_counter() - begun)}
    connection.close()
    return found
