"""W1, W2: new streams with one, 10 or 500 events, each in a durable transaction; no command key.

Stored: the events were made and encoded before, by each in its own way, and storing alone is measured. Typed: each makes
its events of their classes, applies them to their aggregate (the peer does so by itself) and encodes them.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator
from functools import partial
from itertools import count

from eventsourcing.persistence import StoredEvent

from benchmarks import ours, peer
from benchmarks.case import Case, Setting
from benchmarks.load import Figures, tasks, threads
from benchmarks.names import GROUP, OURS, PEER, RAW
from benchmarks.raw import tables
from benchmarks.raw.driver import Driver
from benchmarks.raw.group import Group
from benchmarks.sample import any_json, order_id
from headwater.database import stands


def new_streams(setting: Setting) -> Iterator[Case]:
    for writers in (1, 16, 64, 256):
        yield _case("W1", f"{writers} writers", setting, writers, 1)
    yield _case("W1", "1 writers, typed", setting, 1, 1, typed=True)


def many_events(setting: Setting) -> Iterator[Case]:
    for events in (10, 500):
        for writers in (1, 16):
            yield _case("W2", f"{events} events, {writers} writers", setting, writers, events)
        yield _case("W2", f"{events} events, 1 writers, typed", setting, 1, events, typed=True)


def _case(work: str, name: str, setting: Setting, writers: int, events: int, *, typed: bool = False) -> Case:
    measured: dict[str, Callable[[], Figures]] = {
        OURS: lambda: asyncio.run(_ours(setting, writers, events, typed=typed)),
        PEER: partial(_peer, setting, writers, events, typed=typed),
        RAW: partial(_raw, setting, writers, events, typed=typed),
        GROUP: lambda: asyncio.run(_group(setting, writers, events, typed=typed)),
    }
    return Case(work, name, measured, PEER, GROUP)


def _unit(events: int) -> str:
    return "commits" if events == 1 else "events"


async def _ours(setting: Setting, writers: int, events: int, *, typed: bool = False) -> Figures:
    with setting.fresh() as folder:
        database = await ours.opened(folder / "ours.db")
        numbers = count()
        make = ours.Typed().order if typed else ours.new_stream

        async def append() -> None:
            for answer in await database.commit([make(next(numbers), events)]):
                stands(answer)

        done = await tasks(writers, setting.seconds, append)
        await database.close()
        return done.figures(_unit(events), events)


def _peer(setting: Setting, writers: int, events: int, *, typed: bool = False) -> Figures:
    with setting.fresh() as folder:
        app = peer.orders_app(folder / "peer.db")
        recorder = peer.recorder_of(app)
        template = peer.stored_order(app, 0, events)
        numbers = count()

        def append_typed() -> None:
            recorder.insert_events(peer.stored_order(app, next(numbers), events))

        def append() -> None:
            found = order_id(next(numbers))
            recorder.insert_events(
                [StoredEvent(found, one.originator_version, one.topic, one.state) for one in template]
            )

        done = threads(writers, setting.seconds, append_typed if typed else append)
        app.close()
        return done.figures(_unit(events), events)


def _raw(setting: Setting, writers: int, events: int, *, typed: bool = False) -> Figures:
    with setting.fresh() as folder:
        driver = Driver(folder / "raw.db")
        numbers = count()
        done = threads(writers, setting.seconds, lambda: driver.commit(_rows(next(numbers), events, typed=typed)))
        driver.close()
        return done.figures(_unit(events), events)


async def _group(setting: Setting, writers: int, events: int, *, typed: bool = False) -> Figures:
    with setting.fresh() as folder:
        group = Group(folder / "group.db")
        numbers = count()
        done = await tasks(writers, setting.seconds, lambda: group.commit(_rows(next(numbers), events, typed=typed)))
        await group.close()
        return done.figures(_unit(events), events)


def _rows(number: int, events: int, *, typed: bool) -> list[tables.EventRow]:
    return [tables.event_row(number, version, b"" if typed else any_json(version)) for version in range(1, events + 1)]
