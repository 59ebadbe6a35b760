"""M2: consume what is there: fetch, decode to a class, call a handler that only counts, acknowledge.

From the first call of the handler to the last, or as far as a subject gets within some seconds.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterator, Sequence
from functools import partial

from benchmarks.case import Case, Setting
from benchmarks.load import Figures
from benchmarks.names import AWAITED, CLIENT, FASTSTREAM
from benchmarks.works.consume import published
from headwater.channel import Publication

from .client import Client
from .clients import CLIENTS
from .counting import Counting
from .server import Broker, left

SETTLE = 0.2
"""Seconds for what is handled and not yet acknowledged."""
MESSAGES = {"Kafka": 100_000, "RabbitMQ": 50_000}


def consuming(setting: Setting, broker: Broker) -> Iterator[Case]:
    messages = published(MESSAGES[broker.name] // (5 if setting.quick else 1))
    for name, clients in CLIENTS[broker.name].consume.items():
        subjects = {one: partial(_measured, setting, broker, client, messages) for one, client in clients.items()}
        beside = AWAITED if AWAITED in subjects else ""
        yield Case(f"M2 {broker.name}", name, subjects, FASTSTREAM, CLIENT, beside)


def _measured(setting: Setting, broker: Broker, client: Client, messages: Sequence[Publication]) -> Figures:
    async def measure() -> Figures:
        counting = Counting(len(messages), 1.0 if setting.quick else 3.0)
        async with client.consuming(place, counting.handle):
            await counting.done()
            await asyncio.sleep(SETTLE)
        if counting.complete and (behind := await left(place)):
            raise SystemExit(f"bench: {behind} messages were handled and not acknowledged")
        return counting.figures()

    with broker.filled(messages) as place:
        return asyncio.run(measure())
