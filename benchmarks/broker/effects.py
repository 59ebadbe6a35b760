"""M4: consume with an effect in PostgreSQL that happens once: ours is the consumer as it is shipped, with all its promises.

The peer has what one writes by hand: the effect and a mark of the message's id in one transaction, and then it acknowledges.
The raw client does the same for a whole batch at once.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from typing import Any

import msgspec

from benchmarks.case import Case, Setting
from benchmarks.load import Figures
from benchmarks.names import CLIENT, FASTSTREAM, OURS
from benchmarks.postgres.server import Server, ask
from benchmarks.sample import line, order_id
from benchmarks.works.consume import publication, published
from headwater import App
from headwater.channel import Publication
from headwater.source import Batch, Source

from . import apps
from .clients import CLIENTS
from .counting import Counting
from .inbox import EFFECTS, Effect, Inbox
from .server import Broker, Place

MESSAGES = 20_000
NONE_FAIL = "headwater, none fails"
ONE_OF = 500
ROUNDS = 3

Make = Callable[[str, Place], App]


def effects(setting: Setting, broker: Broker, databases: Server) -> Iterator[Case]:
    count = MESSAGES // (5 if setting.quick else 1)
    messages, name = published(count), f"M4 {broker.name}"
    ways: dict[str, tuple[Make, Effect]] = {
        "a read model": (apps.totals, EFFECTS["total"]),
        "a statement of the handler's": (apps.lines, EFFECTS["line"]),
    }
    for case, (make, effect) in ways.items():
        subjects = {OURS: partial(_run, broker, databases, messages, make, effect, count)}
        for one, keep in CLIENTS[broker.name].keep.items():
            subjects[one] = partial(_kept, setting, broker, databases, messages, keep, effect)
        yield Case(name, case, subjects, FASTSTREAM, CLIENT, ROUNDS)
    mixed = with_failing(messages)
    run = partial(_run, broker, databases, mixed)
    pair = {
        OURS: partial(run, partial(apps.lines, failing=True), EFFECTS["line"], count),
        NONE_FAIL: partial(run, apps.lines, EFFECTS["line"], len(mixed)),
    }
    yield Case(name, f"the same, 1 of {ONE_OF} fails", pair, limit=NONE_FAIL, rounds=ROUNDS)


def with_failing(messages: Sequence[Publication]) -> list[Publication]:
    """These messages, and after each so many one of an order of its own that may fail."""
    found: list[Publication] = []
    for number, one in enumerate(messages):
        if number % (ONE_OF - 1) == 0:
            order = len(messages) + number
            body = msgspec.json.encode(line(str(order_id(order)), 1) | {"sku": apps.FAILING})
            found.append(publication(order, order, 1, body))
        found.append(one)
    return found


class Watched:
    """A source, and how many messages of it are settled."""

    def __init__(self, source: Source) -> None:
        self.name = source.name
        self.ours = source.ours
        self.settled = 0
        self.begun = 0.0
        self._source = source

    async def fetch(self, limit: int) -> Batch | None:
        batch = await self._source.fetch(limit)
        if batch is not None and not self.begun:
            self.begun = time.perf_counter()
        return batch

    async def acknowledge(self, batch: Batch) -> None:
        await self._source.acknowledge(batch)
        self.settled += len(batch.messages)

    async def release(self) -> None:
        await self._source.release()

    async def wait(self, timeout: float) -> None:
        await self._source.wait(timeout)


def _run(
    broker: Broker,
    databases: Server,
    messages: Sequence[Publication],
    make: Make,
    effect: Effect,
    wanted: int,
) -> Figures:
    with broker.filled(messages) as place, databases.fresh() as url:
        ask(url, apps.LINES)
        figures = asyncio.run(_drain(make(url, place), len(messages)))
        if (kept := effect.kept(url)) != wanted:
            raise SystemExit(f"bench: the effects of {kept} messages are there, and {wanted} should be")
        return figures


async def _drain(app: App, messages: int) -> Figures:
    """Let the channel's feed run until all is settled."""
    async with apps.connected(app) as wiring:
        flows = await wiring.flows("bench", lambda name: lambda: None)
        [feed] = [wired.flow for wired in flows if wired.name == f"{wiring.service}.channel"]
        source = feed.source = Watched(feed.source)  # type: ignore[attr-defined]
        cpu = 0.0
        while source.settled < messages:
            if not await feed.step():
                await feed.wait(0.1)
            cpu = cpu or time.process_time()
        elapsed, used = time.perf_counter() - source.begun, time.process_time() - cpu
        return {"messages/s": messages / elapsed, "µs CPU a message": used / messages * 1e6}


def _kept(
    setting: Setting, broker: Broker, databases: Server, messages: Sequence[Publication], keep: Any, effect: Effect
) -> Figures:
    async def measure(place: Place, url: str) -> Figures:
        counting = Counting(len(messages), 1.0 if setting.quick else 3.0)
        async with Inbox.opened(url, effect, counting) as inbox, keep(place, inbox):
            await counting.done()
        return counting.figures()

    with broker.filled(messages) as place, databases.fresh() as url:
        ask(url, apps.LINES)
        return asyncio.run(measure(place, url))
