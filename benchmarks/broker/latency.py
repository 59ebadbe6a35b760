"""M3: 500 messages a second, each alone: from publishing it to its handler; and from the commit of an event through the relay.

What is committed goes to another service in this process, by the whole of both apps.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, Iterator
from functools import partial

import msgspec

from benchmarks.case import Case, Setting
from benchmarks.load import Figures, quantile
from benchmarks.names import CLIENT, FASTSTREAM, OURS
from benchmarks.postgres.server import Server
from benchmarks.works.consume import LineAdded, published

from .apps import adding, mail, running, shop
from .client import Client, Handle
from .clients import CLIENTS
from .server import Broker

RATE = 500
SECONDS = 5.0
QUICK = 1.0
WARM_UP = 0.2
PATIENCE = 5.0
"""Seconds that the last messages may take."""
JOIN = 30.0
LOOK = 0.01
ROUNDS = 3


def latency(setting: Setting, broker: Broker, databases: Server) -> Iterator[Case]:
    subjects = {
        name: partial(_measured, setting, broker, client) for name, client in CLIENTS[broker.name].prompt.items()
    }
    yield Case(f"M3 {broker.name}", f"{RATE}/s", subjects, FASTSTREAM, CLIENT, ROUNDS)
    relayed = {OURS: partial(_relayed, setting, broker, databases)}
    yield Case(f"M3 {broker.name}", f"{RATE}/s, from commit through the relay", relayed, rounds=ROUNDS)


class Stopwatch:
    """When each message was sent, and how long it took to its handler; messages are known by their `cents`."""

    def __init__(self, setting: Setting) -> None:
        self.messages = int(RATE * (QUICK if setting.quick else SECONDS))
        self.sent = [0.0] * (self.messages + 1)
        self.handled = [0.0] * (self.messages + 1)

    def handle(self, event: LineAdded) -> None:
        """A message has come to its handler."""
        self.handled[event.cents] = time.perf_counter()

    async def run(self, send: Callable[[int], Awaitable[object]]) -> None:
        """Send message 0 and wait for it, then the others at the rate, and wait for those."""
        await send(0)
        await self._wait(JOIN, 0)
        if not self.handled[0]:
            raise SystemExit(f"bench: no message has come for {JOIN:g} s")
        begun = time.perf_counter()
        async with asyncio.TaskGroup() as group:
            for number in range(1, self.messages + 1):
                ahead = begun + number / RATE - time.perf_counter()
                if ahead > 0:
                    await asyncio.sleep(ahead)
                group.create_task(self._send(send, number))
        await self._wait(PATIENCE, self.messages)

    async def _send(self, send: Callable[[int], Awaitable[object]], number: int) -> None:
        self.sent[number] = time.perf_counter()
        await send(number)

    async def _wait(self, seconds: float, number: int) -> None:
        for _ in range(int(seconds / LOOK)):
            if self.handled[number]:
                return
            await asyncio.sleep(LOOK)

    def figures(self, since: list[float] | None = None, name: str = "ms") -> Figures:
        """Milliseconds of what was sent after the warm-up; what never came counts as long as was waited for it."""
        begun, late = since or self.sent, time.perf_counter()
        counted = range(int(self.messages * WARM_UP) + 1, self.messages + 1)
        took = sorted(((self.handled[one] or late) - begun[one]) * 1e3 for one in counted)
        return {f"{name} p50": quantile(took, 0.5), f"{name} p99": quantile(took, 0.99), f"{name} max": took[-1]}


def _measured(setting: Setting, broker: Broker, client: Client) -> Figures:
    async def measure() -> Figures:
        watch = Stopwatch(setting)
        body = msgspec.json.decode(published(10)[0].body)
        numbered = [
            msgspec.structs.replace(one, body=msgspec.json.encode(body | {"cents": number}))
            for number, one in enumerate(published(watch.messages + 10))
        ]
        prepared = [client.prepared(place, one) for one in numbered]
        async with client.publishing(place) as send, client.consuming(place, watch.handle):
            await watch.run(lambda number: send([prepared[number]] if client.batches else prepared[number]))
        return watch.figures()

    with broker.empty() as place:
        return asyncio.run(measure())


def _relayed(setting: Setting, broker: Broker, databases: Server) -> Figures:
    async def measure(handle: Handle) -> Figures:
        committed = [0.0] * (watch.messages + 1)
        async with running(shop(stores[0], place)) as app, running(mail(stores[1], place, handle)):

            async def send(number: int) -> None:
                await app.send(adding(number))
                committed[number] = time.perf_counter()

            await watch.run(send)
        return watch.figures(committed) | watch.figures(watch.sent, "ms from command")

    watch = Stopwatch(setting)
    with broker.empty() as place, databases.fresh() as one, databases.fresh() as other:
        stores = (one, other)
        return asyncio.run(measure(watch.handle))
