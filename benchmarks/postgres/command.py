"""W3: a command on an existing order: load its 10 events, decide, append one with the version expected, and a command key.

`once` takes each order once, so that all are loaded; `warm` takes 500 orders again and again; `one stream` takes one.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator
from functools import partial

from benchmarks.case import Case, Setting
from benchmarks.load import Figures, tasks
from benchmarks.names import EMMETT, GROUP, OURS, PEER
from benchmarks.raw import tables
from benchmarks.sample import EVENTS_AN_ORDER
from benchmarks.works.command import Next, decided, following, send_to_ours, send_to_peer, taken

from . import emmett, peer
from .emmett import Emmett, figures_of
from .raw import Group
from .server import Server
from .subjects import PEER_DEFAULT, filled, order_app

CASES = {
    "1 writer, once": 1,
    "16 writers, once": 16,
    "64 writers, once": 64,
    "16 writers, warm": 16,
    "16 on one stream": 16,
}
EVENTS = 100_000

Measure = Callable[[str, int, float, Next], Figures]


def commands(setting: Setting, server: Server) -> Iterator[Case]:
    for name, writers in CASES.items():
        subjects: dict[str, tuple[str, Measure]] = {
            OURS: (OURS, _ours),
            PEER: (PEER, partial(_peer, functions=True)),
            PEER_DEFAULT: (PEER, partial(_peer, functions=False)),
            GROUP: (GROUP, _group),
        }
        if "one" in name.split():
            del subjects[GROUP]  # without a check it would lose updates
        measured = {
            subject: partial(_measured, setting, server, log, measure, name, writers)
            for subject, (log, measure) in subjects.items()
        }
        measured |= emmett.subject(partial(_emmett, setting, server, name, writers))
        yield Case("W3 PostgreSQL", name, measured, PEER, GROUP, EMMETT)


def _measured(setting: Setting, server: Server, log: str, measure: Measure, name: str, writers: int) -> Figures:
    """On a copy of its own, so that in every round the orders have 10 events when they are first taken."""
    with server.fresh(filled(server, log, EVENTS)) as url:
        return measure(url, writers, setting.seconds, following(name, EVENTS // 10))


def _ours(url: str, writers: int, seconds: float, next_one: Next) -> Figures:
    return asyncio.run(send_to_ours(order_app(url), writers, seconds, next_one))


def _peer(url: str, writers: int, seconds: float, next_one: Next, *, functions: bool) -> Figures:
    return send_to_peer(peer.orders_app(url, functions=functions), writers, seconds, next_one)


def _emmett(setting: Setting, server: Server, name: str, writers: int, program: Emmett) -> Figures:
    numbers = taken(name, EVENTS // EVENTS_AN_ORDER)
    with server.fresh(filled(server, EMMETT, EVENTS)) as url:
        answer = program.load("command", url, writers, setting.seconds, first=numbers.start, orders=len(numbers))
    conflicts = answer["conflicts"] / max(answer["all"], 1)
    return figures_of(answer, "commands") | {"conflicts a success": conflicts}


def _group(url: str, writers: int, seconds: float, next_one: Next) -> Figures:
    async def measure() -> Figures:
        group = await Group.open(url)

        async def send() -> None:
            number = next_one()
            await group.commit(*decided(number, await group.history(tables.stream(number))))

        done = await tasks(writers, seconds, send)
        await group.close()
        return done.figures("commands")

    return asyncio.run(measure())
