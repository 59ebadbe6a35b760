"""W5p: a read model over the log: a row an order with its total; rows and checkpoint in one transaction."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterator
from functools import partial
from itertools import count

from benchmarks.case import Case, Setting
from benchmarks.load import Figures
from benchmarks.names import EMMETT, OURS, PEER, RAW
from benchmarks.sample import CENTS
from benchmarks.works.log import PEER_EVENTS
from benchmarks.works.projection import BATCH, PEER_FOLDS, project_ours, project_peer
from benchmarks.works.replay import ADDED

from . import emmett, peer
from .emmett import Emmett
from .log import connected, page_of
from .server import Server, ask
from .subjects import filled, order_app

UPSERT = """
INSERT INTO totals AS t SELECT * FROM unnest(%s::text[], %s::bigint[])
ON CONFLICT (order_id) DO UPDATE SET cents = t.cents + excluded.cents
"""
MOVE = "INSERT INTO checkpoints VALUES ('totals', %s) ON CONFLICT (name) DO UPDATE SET position = excluded.position"


def catch_up(setting: Setting, server: Server) -> Iterator[Case]:
    events = min(setting.events, 200_000)
    ours, raw = filled(server, OURS, events), filled(server, RAW, events)
    theirs = filled(server, PEER, PEER_EVENTS)
    rounds = count(1)
    with server.fresh(ours) as ours_url, server.fresh(raw) as raw_url:
        measured = {
            OURS: lambda: _ours(ours_url, f"totals_{next(rounds)}", events),
            PEER: lambda: _peer(server, theirs),
            **emmett.subject(partial(_emmett, server)),
            RAW: lambda: _raw(raw_url, events),
        }
        yield Case("W5p PostgreSQL", f"{events:,} events (peers: {PEER_FOLDS:,})", measured, PEER, RAW, EMMETT)


def _ours(url: str, table: str, events: int) -> Figures:
    return asyncio.run(project_ours(order_app(url, table=table), table, events))


def _peer(server: Server, log: str) -> Figures:
    with server.fresh() as url:
        view = peer.totals(url)
        found = project_peer(peer.orders_app(log), view)
        view.datastore.close()
        return found


def _emmett(server: Server, program: Emmett) -> Figures:
    """Its projection writes into its own database, so that it has a copy of its log."""
    with server.fresh(filled(server, EMMETT, PEER_EVENTS)) as url:
        answer = program.run("catchUp", url, events=PEER_FOLDS, batch=BATCH, writers=peer.POOL)
        [(cents,)] = ask(url, "SELECT sum(cents)::int8 FROM totals")
        assert cents == PEER_FOLDS * CENTS
        return {"events/s": PEER_FOLDS / answer["seconds"]}


def _raw(url: str, events: int) -> Figures:
    with connected(url) as connection:
        connection.execute("TRUNCATE totals, checkpoints")
        done, begun = 0, time.perf_counter()
        while page := page_of(connection, done, BATCH):
            totals: dict[str, int] = {}
            for row in page:
                event = ADDED(row[4])
                totals[event.order_id] = totals.get(event.order_id, 0) + event.cents
            done = page[-1][0]
            with connection.pipeline(), connection.transaction():
                connection.execute(UPSERT, (list(totals), list(totals.values())))
                connection.execute(MOVE, (done,))
        assert done == events
        return {"events/s": done / (time.perf_counter() - begun)}
