"""W3: a command on an existing order: load its 10 events, decide, append one with the version expected, and a command key.

`once` takes each order once, so that all are loaded; `warm` takes 500 orders again and again; `one stream` takes one.
"""

from __future__ import annotations

import asyncio
import shutil
from collections.abc import Callable, Iterator
from functools import partial
from itertools import count
from pathlib import Path
from uuid import UUID

import msgspec
from eventsourcing.persistence import RecordConflictError

from benchmarks import ours, peer
from benchmarks.case import Case, Setting
from benchmarks.load import Figures, tasks, threads
from benchmarks.logs import filled
from benchmarks.names import GROUP, OURS, PEER, RAW
from benchmarks.raw import tables
from benchmarks.raw.driver import Driver
from benchmarks.raw.group import Group
from benchmarks.sample import line, order_id
from headwater import Conflict

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
    events = 100_000 if setting.quick else 200_000
    orders = events // 10
    files = {}
    for subject in (OURS, PEER, RAW, GROUP):
        files[subject] = setting.folder / f"commands-{subject.replace(' ', '-')}.db"
        shutil.copy(filled(setting, RAW if subject == GROUP else subject, events), files[subject])
    places = {subject: count() for subject in files}
    for name, writers in CASES.items():
        following = {subject: _following(name, orders, places[subject]) for subject in files}
        measured = {
            OURS: partial(_run, _ours, files[OURS], setting, writers, following[OURS]),
            PEER: partial(_peer, files[PEER], setting, writers, following[PEER]),
            RAW: partial(_raw, files[RAW], setting, writers, following[RAW]),
            GROUP: partial(_run, _group, files[GROUP], setting, writers, following[GROUP]),
        }
        if "one" in name.split():
            del measured[RAW], measured[GROUP]  # without a check they would lose updates
        yield Case("W3", name, measured, PEER, GROUP)
    for path in files.values():
        path.unlink()


def _following(name: str, orders: int, places: count[int]) -> Next:
    if "once" in name:
        return lambda: next(places) % orders
    if "warm" in name:
        return lambda: next(places) % WARM
    return lambda: orders - 1


def _run(measured: Callable[..., object], *arguments: object) -> Figures:
    found: Figures = asyncio.run(measured(*arguments))  # type: ignore[arg-type]
    return found


async def _ours(path: Path, setting: Setting, writers: int, following: Next) -> Figures:
    conflicts = 0
    app = ours.order_app(path)
    async with app.client():

        async def send() -> None:
            nonlocal conflicts
            number = following()
            command = ours.AddLine(**line(str(order_id(number)), number))
            while True:
                try:
                    await app.send(command, key=ours.CLOCK.new_id())
                    return
                except Conflict:
                    conflicts += 1

        done = await tasks(writers, setting.seconds, send)
    return done.figures("commands") | {"conflicts a success": conflicts / max(len(done.took), 1)}


def _peer(path: Path, setting: Setting, writers: int, following: Next) -> Figures:
    conflicts = 0
    app = peer.orders_app(path)

    def send() -> None:
        nonlocal conflicts
        number = following()
        found = order_id(number)
        fields = line(str(found), number)
        while True:
            try:
                app.add_line(found, fields)
                return
            except RecordConflictError:
                conflicts += 1

    done = threads(writers, setting.seconds, send)
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


def _raw(path: Path, setting: Setting, writers: int, following: Next) -> Figures:
    driver = Driver(path)

    def send() -> None:
        number = following()
        driver.commit(*decided(number, driver.history(tables.stream(number))))

    done = threads(writers, setting.seconds, send)
    driver.close()
    return done.figures("commands")


async def _group(path: Path, setting: Setting, writers: int, following: Next) -> Figures:
    group = Group(path)

    async def send() -> None:
        number = following()
        await group.commit(*decided(number, group.history(tables.stream(number))))

    done = await tasks(writers, setting.seconds, send)
    await group.close()
    return done.figures("commands")
