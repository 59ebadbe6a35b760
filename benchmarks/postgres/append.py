"""W1: new streams with one event, each durable before it is answered; DCB: the same on the condition that nothing has come.

The events were made and encoded before, by each in its own way, and storing alone is measured.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator
from functools import partial
from itertools import count

from eventsourcing.persistence import StoredEvent
from msgspec.structs import replace

from benchmarks import ours as common
from benchmarks.case import Case, Setting
from benchmarks.load import Figures, tasks, threads
from benchmarks.names import EMMETT, GROUP, OURS, PEER
from benchmarks.peer import stored_order
from benchmarks.raw import tables
from benchmarks.sample import any_json, order_id
from headwater.database import WriteSet, stands
from headwater.store import ANY, Append, Condition, Item, Seen

from . import emmett, peer
from .emmett import Emmett, figures_of
from .raw import Group
from .server import Server
from .subjects import PEER_DEFAULT, opened


def new_streams(setting: Setting, server: Server) -> Iterator[Case]:
    for writers in (1, 16, 64):
        measured: dict[str, Callable[[], Figures]] = {
            OURS: partial(_run, _ours, setting, server, writers),
            PEER: partial(_peer, setting, server, writers, functions=True),
            PEER_DEFAULT: partial(_peer, setting, server, writers, functions=False),
            **emmett.subject(partial(_emmett, setting, server, writers)),
            GROUP: partial(_run, _group, setting, server, writers),
        }
        yield Case("W1 PostgreSQL", f"{writers} writers", measured, PEER, GROUP, EMMETT)


def _run(measure: Callable[..., object], setting: Setting, server: Server, writers: int) -> Figures:
    with server.fresh() as url:
        found: Figures = asyncio.run(measure(url, writers, setting.seconds))  # type: ignore[arg-type]
        return found


async def _ours(url: str, writers: int, seconds: float) -> Figures:
    return await _appending(url, writers, seconds, lambda number: common.new_stream(number, 1))


async def _appending(url: str, writers: int, seconds: float, make: Callable[[int], WriteSet]) -> Figures:
    database = await opened(url)
    numbers = count()

    async def append() -> None:
        for answer in await database.commit([make(next(numbers))]):
            stands(answer)

    done = await tasks(writers, seconds, append)
    await database.close()
    return done.figures("commits")


def _peer(setting: Setting, server: Server, writers: int, *, functions: bool) -> Figures:
    with server.fresh() as url:
        app = peer.orders_app(url, functions=functions)
        recorder = peer.recorder_of(app)
        [template] = stored_order(app, 0, 1)
        numbers = count()

        def append() -> None:
            event = StoredEvent(order_id(next(numbers)), 1, template.topic, template.state)
            recorder.insert_events([event])

        done = threads(writers, setting.seconds, append)
        app.close()
        return done.figures("commits")


def _emmett(setting: Setting, server: Server, writers: int, program: Emmett) -> Figures:
    """It takes no event that is encoded: making its JSON is measured with the rest."""
    with server.fresh() as url:
        return figures_of(program.load("append", url, writers, setting.seconds), "commits")


async def _group(url: str, writers: int, seconds: float) -> Figures:
    group = await Group.open(url)
    numbers = count()
    done = await tasks(writers, seconds, lambda: group.commit([tables.event_row(next(numbers), 1, any_json(1))]))
    await group.close()
    return done.figures("commits")


UNCONDITIONAL = "headwater, unconditional"


def conditional(setting: Setting, server: Server) -> Iterator[Case]:
    for writers in (1, 16, 64):
        measured = {
            OURS: partial(_run, partial(_tagged, conditional=True), setting, server, writers),
            UNCONDITIONAL: partial(_run, partial(_tagged, conditional=False), setting, server, writers),
        }
        yield Case("DCB PostgreSQL", f"{writers} writers, one tag each", measured, limit=UNCONDITIONAL)


async def _tagged(url: str, writers: int, seconds: float, *, conditional: bool) -> Figures:
    def order(number: int) -> WriteSet:
        plain = common.new_stream(number, 1)
        tag = f"order:{order_id(number)}"
        appends = [Append(one.stream, ANY, [replace(one.drafts[0], tags=(tag,))]) for one in plain.appends]
        conditions = [Condition((Item(tags=(tag,)),), Seen())] if conditional else []
        return WriteSet(appends=appends, conditions=conditions)

    return await _appending(url, writers, seconds, order)
