"""W4: one aggregate of 10, 1,000 and 100,000 events; cold, and warm as a command meets it."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from functools import partial

from benchmarks import ours as common
from benchmarks.case import Case, Setting
from benchmarks.load import Figures
from benchmarks.names import OURS, PEER
from benchmarks.peer import fill
from benchmarks.works.replay import SIZES, load_ours, load_peer

from . import peer
from .server import Server, settle
from .subjects import opened, order_app


def replays(setting: Setting, server: Server) -> Iterator[Case]:
    with server.fresh() as url, server.fresh() as peer_url:
        asyncio.run(_fill_ours(url))
        _fill_peer(peer_url)
        for number, events in enumerate(SIZES):
            for name, warm in (("cold", False), ("warm", True)):
                measured = {
                    OURS: partial(_ours, url, number, events, warm=warm),
                    PEER: partial(_peer, peer_url, number, events, cache=warm),
                }
                yield Case("W4 PostgreSQL", f"{events:,} events, {name}", measured, PEER)


async def _fill_ours(url: str) -> None:
    database = await opened(url)
    for number, events in enumerate(SIZES):
        await common.commit(database, [common.new_order(number, events)])
    await database.close()
    settle(url)


def _fill_peer(url: str) -> None:
    app = peer.orders_app(url)
    for number, events in enumerate(SIZES):
        fill(app, range(number, number + 1), events)
    app.close()
    settle(url)


def _ours(url: str, number: int, events: int, *, warm: bool) -> Figures:
    return load_ours(order_app(url), number, events, warm=warm)


def _peer(url: str, number: int, events: int, *, cache: bool) -> Figures:
    return load_peer(peer.orders_app(url, cache=cache), number, events)
