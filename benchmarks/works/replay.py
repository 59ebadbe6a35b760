"""W4: one aggregate of 10, 1,000 and 100,000 events; cold, and warm as a command meets it."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, Iterator
from functools import partial
from pathlib import Path

import msgspec

from benchmarks import ours, peer
from benchmarks.case import Case, Setting
from benchmarks.load import Figures
from benchmarks.names import OURS, PEER, RAW
from benchmarks.raw import tables
from benchmarks.raw.driver import Driver
from benchmarks.sample import line, order_id
from headwater import App

SIZES = (10, 1_000, 100_000)
AT_LEAST = 0.05


def replays(setting: Setting) -> Iterator[Case]:
    with setting.fresh() as folder:
        files = {name: folder / f"{name}.db" for name in ("ours", "peer", "raw")}
        asyncio.run(_fill_ours(files["ours"]))
        _fill_peer(files["peer"])
        connection = tables.connect(files["raw"])
        for number, events in enumerate(SIZES):
            tables.fill(connection, range(number, number + 1), events)
        connection.close()
        for number, events in enumerate(SIZES):
            cold = {
                OURS: partial(_ours, files["ours"], number, events, warm=False),
                PEER: partial(_peer, files["peer"], number, events, cache=False),
                RAW: partial(_raw, files["raw"], number, events),
            }
            yield Case("W4", f"{events:,} events, cold", cold, PEER, RAW)
            warm = {
                OURS: partial(_ours, files["ours"], number, events, warm=True),
                PEER: partial(_peer, files["peer"], number, events, cache=True),
            }
            yield Case("W4", f"{events:,} events, warm", warm, PEER)


async def _fill_ours(path: Path) -> None:
    database = await ours.opened(path)
    for number, events in enumerate(SIZES):
        await ours.commit(database, [ours.new_order(number, events)])
    await database.close()


def _fill_peer(path: Path) -> None:
    app = peer.orders_app(path)
    for number, events in enumerate(SIZES):
        peer.fill(app, range(number, number + 1), events)
    app.close()


def _timed(work: Callable[[], object]) -> Figures:
    """Milliseconds of one, over as many as make a time that can be measured."""
    done, begun = 0, time.perf_counter()
    while (elapsed := time.perf_counter() - begun) < AT_LEAST:
        work()
        done += 1
    return {"ms": elapsed / done * 1e3}


async def _timed_async(work: Callable[[], Awaitable[object]]) -> Figures:
    done, begun = 0, time.perf_counter()
    while (elapsed := time.perf_counter() - begun) < AT_LEAST:
        await work()
        done += 1
    return {"ms": elapsed / done * 1e3}


def _ours(path: Path, number: int, events: int, *, warm: bool) -> Figures:
    return load_ours(ours.order_app(path), number, events, warm=warm)


def load_ours(app: App, number: int, events: int, *, warm: bool) -> Figures:
    """How long our service takes to load an order."""

    async def measure() -> Figures:
        order = str(order_id(number))
        async with app.client():
            loaded = await app.load(ours.Order, order)
            assert loaded.lines == events
            if not warm:
                return await _timed_async(lambda: app.load(ours.Order, order))
            handling = app.wiring.handling
            targets = [(ours.stream(number), ours.AddLine(**line(order, 1)))]
            await handling.load(targets)
            return await _timed_async(lambda: handling.load(targets))

    return asyncio.run(measure())


def _peer(path: Path, number: int, events: int, *, cache: bool) -> Figures:
    return load_peer(peer.orders_app(path, cache=cache), number, events)


def load_peer(app: peer.Orders, number: int, events: int) -> Figures:
    """How long the peer's takes."""
    loaded: peer.Order = app.repository.get(order_id(number))
    assert loaded.lines == events
    found = _timed(lambda: app.repository.get(order_id(number)))
    app.close()
    return found


PLACED = msgspec.json.Decoder(ours.Placed).decode
ADDED = msgspec.json.Decoder(ours.LineAdded).decode


def _raw(path: Path, number: int, events: int) -> Figures:
    driver = Driver(path)

    def replay() -> None:
        lines = cents = 0
        for name, data in driver.history(tables.stream(number)):
            cents += (PLACED if name == "bench.Placed" else ADDED)(data).cents
            lines += 1
        assert lines == events
        assert cents

    found = _timed(replay)
    driver.close()
    return found
