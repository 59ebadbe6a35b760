"""What the `power` rig does with a channel, and what it asks of one that is opened after the cut."""

from __future__ import annotations

import asyncio
import random
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from msgspec import Struct

from headwater.adapters.sqlite import SqliteChannel
from headwater.adapters.sqlite.file import File
from headwater.adapters.sqlite.upkeep import query
from headwater.channel import Delivery, Publication
from headwater.clock import SystemClock
from tests.fault.rigs.disk_model import Trace

PRODUCERS = 3
EACH = 10
SIZES = (20, 300, 3_000, 20_000)


class Published(Struct, frozen=True):
    """A producer was answered that all up to this position of it, of so many messages, is on disk."""

    producer: str
    position: int
    messages: int


class Acknowledging(Struct, frozen=True):
    """A member is about to acknowledge these bodies."""

    bodies: tuple[str, ...]


async def use_channel(path: Path, chance: random.Random, trace: Trace) -> None:
    """Producers publish side by side while a member reads and acknowledges."""
    channel = SqliteChannel(path, SystemClock())
    await channel.open()
    subscription = await channel.subscribe("g", ["t"], "m")
    trace.mark("open")

    async def produce(name: str) -> None:
        for position in range(1, EACH + 1):
            count = chance.randint(1, 4)
            messages = [_publication(name, position, index, chance) for index in range(count)]
            await channel.publish(messages, producer=name, position=position)
            trace.mark(Published(name, position, count))

    async def consume() -> None:
        for _ in range(EACH):
            batch = await subscription.fetch(chance.randint(1, 10))
            if batch:
                trace.mark(Acknowledging(tuple(_name(one) for one in batch)))
                await subscription.acknowledge(batch)
            await asyncio.sleep(chance.random() * 0.01)

    await asyncio.gather(consume(), *(produce(f"p{one}") for one in range(PRODUCERS)))
    await channel.close()


def _publication(producer: str, position: int, index: int, chance: random.Random) -> Publication:
    body = f"{producer} {position} {index}".encode()
    return Publication(
        "t", f"k{chance.randint(0, 20)}", {"id": "1"}, body + b" " + chance.randbytes(chance.choice(SIZES))
    )


def _name(one: Delivery) -> str:
    return b" ".join(one.body.split(b" ", 3)[:3]).decode()


async def check_channel(path: Path, marks: Sequence[Any]) -> list[str]:
    """What an image lacks of what was published, or takes as acknowledged though it was not."""
    found = [f"integrity: {line}" for (line,) in query(File(path), "PRAGMA integrity_check") if line != "ok"]
    channel = SqliteChannel(path, SystemClock())
    await channel.open()
    try:
        everything = Counter(await _drain(channel, "fresh"))
        left = set(await _drain(channel, "g"))
        published = [one for one in marks if isinstance(one, Published)]
        found += _lost(published, everything) + await _halves(channel, everything)
        acknowledged = {body for one in marks if isinstance(one, Acknowledging) for body in one.bodies}
        found += [f"{one} was never acknowledged, and does not come" for one in set(everything) - left - acknowledged]
        await channel.publish([Publication("t", "k", {}, b"p 0 0 ")], producer="after", position=1)
        return found
    finally:
        await channel.close()


async def _drain(channel: SqliteChannel, group: str) -> list[str]:
    subscription = await channel.subscribe(group, ["t"], "m")
    found: list[str] = []
    while batch := await subscription.fetch(500):
        found += [_name(one) for one in batch]
    return found


def _lost(published: Sequence[Published], there: Counter[str]) -> list[str]:
    names = [f"{one.producer} {one.position} {index}" for one in published for index in range(one.messages)]
    return [f"published message {name!r} comes {there[name]} times" for name in names if there[name] != 1]


async def _halves(channel: SqliteChannel, there: Counter[str]) -> list[str]:
    """The position of a producer is that of its last message."""
    found = []
    for number in range(PRODUCERS):
        name = f"p{number}"
        last = max((int(one.split()[1]) for one in there if one.split()[0] == name), default=0)
        kept = await channel.producer_position(name) or 0
        if kept != last:
            found.append(f"{name} is at position {kept}, and its last message is of {last}")
    return found
