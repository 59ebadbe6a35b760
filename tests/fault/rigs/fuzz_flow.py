"""Mutated messages on a channel in front of real consumers over a real database: none may stop what comes behind it."""

from __future__ import annotations

import asyncio
import tempfile
from collections.abc import Sequence
from pathlib import Path

from headwater.adapters.memory import MemoryChannel
from headwater.adapters.sqlite import SqliteDatabase
from headwater.app import App, Flow
from headwater.channel import Publication
from headwater.clock import iso
from headwater.testing.clock import START, VirtualClock
from tests.fault.rigs.fuzz_targets import parts
from tests.fault.rigs.pair import Booked, Copy, mirror

STEPS = 200
TOPICS = ("desk.Entry", "mirror.control")


def deliver(inputs: Sequence[bytes]) -> list[str]:
    """What goes wrong when these are published, and then an event as it should be."""
    with tempfile.TemporaryDirectory(prefix="headwater-fuzz-") as place:
        return asyncio.run(_deliver(Path(place) / "mirror.db", inputs))


async def _deliver(path: Path, inputs: Sequence[bytes]) -> list[str]:
    clock = VirtualClock()
    app, database, channel = mirror(clock=clock), SqliteDatabase(path, clock), MemoryChannel(clock)
    await database.open()
    await channel.open()
    wiring = await app.connect(database, channel)
    found: list[str] = []
    try:
        flows = [wired.flow for wired in await wiring.flows("m", lambda _: lambda: None)]
        for number, data in enumerate(inputs):
            headers, body = parts(data)
            await channel.publish([Publication(TOPICS[number % 2], headers.get("subject", ""), headers, body)])
            found += await _settle(flows, data)
        await channel.publish([_sound()])
        found += await _settle(flows, b"a sound message")
        found += await _arrived(app)
    finally:
        await wiring.leave()
        await app.stop()
        await channel.close()
    return found


async def _settle(flows: Sequence[Flow], data: bytes) -> list[str]:
    """Step until nobody has anything to do; a step must not raise."""
    for _ in range(STEPS):
        try:
            if not any([await flow.step() for flow in flows]):
                return []
        except Exception as error:  # noqa: BLE001 - this is what is looked for
            return [f"delivery: {type(error).__name__}: {str(error)[:200]} for {data[:300]!r}"]
    return [f"delivery: not at rest after {STEPS} steps, for {data[:300]!r}"]


async def _arrived(app: App) -> list[str]:
    row = await app.get(Copy, "sound")
    return (
        [] if row is not None and row.count == 1 else [f"delivery: a sound message did not arrive behind others: {row}"]
    )


def _sound() -> Publication:
    headers = {
        "specversion": "1.0",
        "id": "sound",
        "source": "desk",
        "type": app_type(),
        "subject": "desk.Entry/sound",
        "time": iso(START),
        "streamversion": "1",
    }
    return Publication("desk.Entry", "desk.Entry/sound", headers, b'{"key":"sound","number":1}')


def app_type() -> str:
    """The stored name of the event."""
    return f"desk.{Booked.__name__}"
