"""M5: the whole consume path without a broker: marks, decoding, handler, settling; microseconds a message, batches of 500."""

from __future__ import annotations

import asyncio
import gc
import time
from collections.abc import Iterator, Sequence
from functools import partial
from typing import Any

import msgspec

from benchmarks.case import Case, Setting
from benchmarks.load import Figures
from benchmarks.names import OURS, RAW
from benchmarks.ours import CLOCK
from benchmarks.sample import EVENTS_AN_ORDER, line_json, order_id
from headwater import App, Event
from headwater.adapters.memory import MemoryChannel
from headwater.app import Wiring
from headwater.channel import Delivery, Publication, Start
from headwater.message import Recorded
from headwater.wire import to_headers

TOPIC = "shop.Order"


class LineAdded(Event, service="shop", category="Order"):
    order_id: str
    customer_id: str
    sku: str
    quantity: int
    cents: int
    note: str


def consume(setting: Setting) -> Iterator[Case]:
    messages = published(10_000 if setting.quick else 50_000)
    raw = partial(_raw, messages)
    for store in ("memory", "sqlite"):
        for kind in ("def", "async def"):
            ours = partial(_run, setting, messages, store, kind)
            yield Case("M5", f"{kind}, {store}", {OURS: ours, RAW: raw}, limit=RAW)


def published(count: int) -> list[Publication]:
    """Messages of another service, those of one order far apart, as its relay publishes them."""
    orders = count // EVENTS_AN_ORDER
    return [publication(number, number % orders, number // orders + 1) for number in range(orders * EVENTS_AN_ORDER)]


def publication(number: int, order: int, version: int, body: bytes = b"") -> Publication:
    """The message with this number in its log: an event of an order, as it is published."""
    name = str(order_id(order))
    meta = f'{{"correlation":"{name}"}}'.encode()
    recorded = Recorded(
        number + 1, f"{TOPIC}/{name}", version, "event", str(order_id(number)), "shop.LineAdded", 1, 0,
        1_767_225_600_000_000 + number, version - 1, body or line_json(name, version), meta,
    )  # fmt: skip
    return Publication(TOPIC, recorded.key, to_headers(recorded, "shop"), recorded.data)


class Prefilled(MemoryChannel):
    """A channel that costs nothing: its deliveries are made, and it keeps no cursor."""

    def __init__(self, messages: list[Publication]) -> None:
        super().__init__(CLOCK)
        self.deliveries = [
            Delivery(one.topic, one.key, one.headers, one.body, place, 0) for place, one in enumerate(messages, 1)
        ]

    async def subscribe(self, group: str, topics: Sequence[str], member: str, start: Start = "beginning") -> Any:
        return Made(self.deliveries if TOPIC in topics else [])


class Made:
    """A subscription to what is made."""

    def __init__(self, deliveries: list[Delivery]) -> None:
        self._deliveries = deliveries
        self._fetched = 0

    async def fetch(self, limit: int) -> list[Delivery]:
        first = self._fetched
        self._fetched = min(first + limit, len(self._deliveries))
        return self._deliveries[first : self._fetched]

    async def acknowledge(self, deliveries: Sequence[Delivery]) -> None: ...
    async def release(self) -> None: ...
    async def wait(self, timeout: float) -> None: ...
    async def close(self) -> None: ...


def consumer(store: str, kind: str) -> tuple[App, list[int]]:
    """An app with one handler that only counts."""
    app = App("mail", store=store, channel="memory://")
    seen = [0]

    def count(event: LineAdded) -> None:
        seen[0] += 1

    async def count_async(event: LineAdded) -> None:
        seen[0] += 1

    app.on(LineAdded, name="count")(count if kind == "def" else count_async)
    return app, seen


def _run(setting: Setting, messages: list[Publication], store: str, kind: str) -> Figures:
    with setting.fresh() as folder:
        url = f"sqlite:///{folder}/mail.db" if store == "sqlite" else "memory://"
        app, seen = consumer(url, kind)
        return asyncio.run(_consume(app, seen, messages))


async def _consume(app: App, seen: list[int], messages: list[Publication]) -> Figures:
    wiring = await app.connect(channel=Prefilled(messages))
    try:
        elapsed, cpu = await drain(wiring)
        assert seen[0] == len(messages)
        return {"µs a message": elapsed / len(messages) * 1e6, "µs CPU a message": cpu / len(messages) * 1e6}
    finally:
        await wiring.leave()
        await app.stop()


async def drain(wiring: Wiring) -> tuple[float, float]:
    """Run the channel's feed until nothing is left; seconds, and seconds of CPU."""
    flows = await wiring.flows("bench", lambda name: lambda: None)
    [feed] = [wired.flow for wired in flows if wired.name == f"{wiring.service}.channel"]
    gc.collect()
    gc.freeze()  # a channel would not keep its deliveries in our memory
    begun, cpu = time.perf_counter(), time.process_time()
    while await feed.step():
        pass
    return time.perf_counter() - begun, time.process_time() - cpu


decode = msgspec.json.Decoder(LineAdded).decode


def _raw(messages: list[Publication]) -> Figures:
    """Decode, compare with a mark in a dict, call."""
    marks: dict[str, int] = {}
    seen = 0

    def count(event: LineAdded) -> None:
        nonlocal seen
        seen += 1

    begun, cpu = time.perf_counter(), time.process_time()
    for one in messages:
        version = int(one.headers["streamversion"])
        if version > marks.get(one.key, 0):
            count(decode(one.body))
            marks[one.key] = version
    elapsed, used = time.perf_counter() - begun, time.process_time() - cpu
    assert seen == len(messages)
    return {"µs a message": elapsed / len(messages) * 1e6, "µs CPU a message": used / len(messages) * 1e6}
