"""W3: a command on an existing order: load its 10 events, decide, append one with the version expected, and a command key.

`once` takes each order once, so that all are loaded; `warm` takes 500 orders again and again; `one stream` takes one.
"""

from __future__ import annotations

import asyncio
import shutil
from collections.abc import Callable, Coroutine, Iterator
from functools import partial
from itertools import count
from pathlib import Path
from uuid import UUID

import apsw
import msgspec
from eventsourcing.persistence import RecordConflictError

from benchmarks import ours, peer
from benchmarks.case import Case, Setting
from benchmarks.load import Figures, tasks, threads
from benchmarks.logs import filled, settle
from benchmarks.names import GROUP, OURS, PEER, RAW
from benchmarks.raw import tables
from benchmarks.raw.driver import Driver
from benchmarks.raw.group import Group
from benchmarks.sample import line, order_id
from headwater import App, Conflict

WARM = 500
CASES = {
    "1 writer, once": 1,
    "16 writers, once": 16,
    "64 writers, once": 64,
    "16 writers, warm": 16,
    "16 on one stream": 16,
}

Next = Callable[[], int]


def commands(setting: Setting) -> Iterator[Case]:
    for name, writers in CASES.items():
        measured = {
            OURS: partial(_measured, setting, OURS, name, partial(_run, _ours, writers)),
            PEER: partial(_measured, setting, PEER, name, partial(_peer, writers)),
            RAW: partial(_measured, setting, RAW, name, partial(_raw, writers)),
            GROUP: partial(_measured, setting, GROUP, name, partial(_run, _group, writers)),
        }
        if "one" in name.split():
            del measured[RAW], measured[GROUP]  # without a check they would lose updates
        yield Case("W3", name, measured, PEER, GROUP)


def _measured(setting: Setting, subject: str, name: str, run: Callable[[Path, float, Next], Figures]) -> Figures:
    """On a copy of its own, so that in every round the orders have 10 events when they are first taken."""
    events = 100_000 if setting.quick else 200_000
    with setting.fresh() as folder:
        path = folder / "orders.db"
        shutil.copy(filled(setting, RAW if subject == GROUP else subject, events), path)
        settle(path)
        return run(path, setting.seconds, following(name, events // 10))


def taken(name: str, orders: int) -> range:
    """The orders that a case takes, again and again in this sequence."""
    if "once" in name:
        return range(orders)
    if "warm" in name:
        return range(WARM)
    return range(orders - 1, orders)


def following(name: str, orders: int) -> Next:
    """Gives them one after the other."""
    places, numbers = count(), taken(name, orders)
    return lambda: numbers[next(places) % len(numbers)]


def _run(
    measured: Callable[[int, Path, float, Next], Coroutine[None, None, Figures]],
    writers: int,
    path: Path,
    seconds: float,
    next_one: Next,
) -> Figures:
    return asyncio.run(measured(writers, path, seconds, next_one))


async def _ours(writers: int, path: Path, seconds: float, next_one: Next) -> Figures:
    return await send_to_ours(ours.order_app(path), writers, seconds, next_one)


async def send_to_ours(app: App, writers: int, seconds: float, next_one: Next) -> Figures:
    """Commands to our service, again after a conflict."""
    conflicts = 0
    async with app.client():

        async def send() -> None:
            nonlocal conflicts
            number = next_one()
            command = ours.AddLine(**line(str(order_id(number)), number))
            while True:
                try:
                    await app.send(command, key=ours.CLOCK.new_id())
                    return
                except Conflict:
                    conflicts += 1

        done = await tasks(writers, seconds, send)
    return done.figures("commands") | {"conflicts a success": conflicts / max(len(done.took), 1)}


def _peer(writers: int, path: Path, seconds: float, next_one: Next) -> Figures:
    return send_to_peer(peer.orders_app(path), writers, seconds, next_one)


def send_to_peer(app: peer.Orders, writers: int, seconds: float, next_one: Next) -> Figures:
    """The same to the peer's."""
    conflicts = 0

    def send() -> None:
        nonlocal conflicts
        number = next_one()
        found = order_id(number)
        fields = line(str(found), number)
        while True:
            try:
                app.add_line(found, fields)
                return
            except RecordConflictError:
                conflicts += 1

    done = threads(writers, seconds, send)
    app.close()
    return done.figures("commands") | {"conflicts a success": conflicts / max(len(done.took), 1)}


decode = msgspec.json.Decoder(ours.LineAdded).decode


def decided(number: int, history: list[tuple[str, bytes]]) -> tuple[list[tables.EventRow], list[tables.KeyRow]]:
    """The rows after a decision on a history."""
    cents = sum(decode(data).cents for _, data in history)
    version = len(history) + 1
    assert cents >= 0
    return [tables.event_row(number, version)], [tables.key_row(str(UUID(bytes=_mark())), version)]


def _mark() -> bytes:
    return UUID(ours.CLOCK.new_id()).bytes


def _raw(writers: int, path: Path, seconds: float, next_one: Next) -> Figures:
    driver = Driver(path)

    def send() -> None:
        number = next_one()
        while True:
            try:
                driver.commit(*decided(number, driver.history(tables.stream(number))))
                return
            except apsw.ConstraintError:  # a thread that was kept waiting for a whole round of orders
                continue

    done = threads(writers, seconds, send)
    driver.close()
    return done.figures("commands")


async def _group(writers: int, path: Path, seconds: float, next_one: Next) -> Figures:
    group = Group(path)

    async def send() -> None:
        number = next_one()
        await group.commit(*decided(number, group.history(tables.stream(number))))

    done = await tasks(writers, seconds, send)
    await group.close()
    return done.figures("commands")
