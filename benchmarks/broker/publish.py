"""M1: publish, confirmed by the broker: awaited one by one, and 100 and 1,000 in flight.

Ours is the relay's path: so many in flight are a batch of so many. Others send each by itself, so many tasks at once.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from functools import partial
from itertools import cycle

from benchmarks.case import Case, Setting
from benchmarks.load import Figures, tasks
from benchmarks.names import CLIENT, FASTSTREAM
from benchmarks.works.consume import published

from .client import Client
from .clients import CLIENTS
from .server import Broker

MESSAGES = 10_000


def publishing(setting: Setting, broker: Broker) -> Iterator[Case]:
    for in_flight in (1, 100, 1_000):
        subjects = {
            name: partial(_measured, setting, broker, client, in_flight)
            for name, client in CLIENTS[broker.name].publish.items()
        }
        yield Case(f"M1 {broker.name}", _name(in_flight), subjects, FASTSTREAM, CLIENT)


def _name(in_flight: int) -> str:
    return "one by one" if in_flight == 1 else f"{in_flight:,} in flight"


def _measured(setting: Setting, broker: Broker, client: Client, in_flight: int) -> Figures:
    async def measure() -> Figures:
        seconds = max(setting.seconds, in_flight / 1_000)
        prepared = [client.prepared(place, one) for one in published(MESSAGES)]
        async with client.publishing(place) as send:
            await send(prepared[:1] if client.batches else prepared[0])  # it knows the way then
            if client.batches:
                batches = cycle([prepared[at : at + in_flight] for at in range(0, MESSAGES, in_flight)])
                done = await tasks(1, seconds, lambda: send(next(batches)))
                return done.figures("messages", in_flight)
            following = cycle(prepared)
            done = await tasks(in_flight, seconds, lambda: send(next(following)))
            return done.figures("messages")

    with broker.empty() as place:
        return asyncio.run(measure())
