"""What the `power` rig does with a database, and what it asks of one that is opened after the cut."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from msgspec import Struct

from headwater.adapters.sqlite import SqliteDatabase
from headwater.clock import SystemClock
from headwater.database import WriteSet
from headwater.inbox import Mark
from headwater.message import Draft
from headwater.store import ANY, Append, CommandKey, Committed
from tests.fault.rigs.disk_model import Trace

WRITERS = 4
EACH = 8
STREAMS = 6
SIZES = (20, 300, 3_000, 20_000)
OWN = "CREATE TABLE IF NOT EXISTS own (number INTEGER PRIMARY KEY, body BLOB) STRICT"


class Acknowledged(Struct, frozen=True):
    """What was answered to a writer: its set's number, how many messages it has, and where the last of them is."""

    number: int
    messages: int
    position: int


class Leased(Struct, frozen=True):
    """A lease was given, of this epoch."""

    epoch: int


async def use_database(path: Path, chance: random.Random, trace: Trace) -> None:
    """Several writers side by side, sets of many sizes, transactions of their own, leases, and a restart between."""
    numbers = iter(range(1, 10_000))
    for _ in range(2):
        database = SqliteDatabase(path, SystemClock())
        await database.open()
        async with database.transaction() as transaction:
            transaction.execute(OWN)
        trace.mark("open")
        writers = [_write(database, chance, trace, next(numbers)) for _ in range(WRITERS * EACH)]
        for one in range(0, len(writers), WRITERS):
            await asyncio.gather(*writers[one : one + WRITERS], _lease(database, chance, trace))
        await database.close()


async def _write(database: SqliteDatabase, chance: random.Random, trace: Trace, number: int) -> None:
    messages = chance.randint(1, 3)
    write = _set(number, messages, chance)
    if chance.random() < 0.3:
        async with database.transaction() as transaction:
            transaction.execute("INSERT INTO own VALUES (?, ?)", (number, chance.randbytes(chance.choice(SIZES))))
            [answer] = transaction.write([write])
    else:
        [answer] = await database.commit([write])
    if not isinstance(answer, Committed):
        raise AssertionError(answer)
    trace.mark(Acknowledged(number, messages, answer.position))


async def _lease(database: SqliteDatabase, chance: random.Random, trace: Trace) -> None:
    if chance.random() < 0.2 and (lease := await database.acquire("relay", f"owner-{chance.random()}")):
        trace.mark(Leased(lease.epoch))
        await lease.release()


def _set(number: int, messages: int, chance: random.Random) -> WriteSet:
    drafts = [
        Draft("event", f"{number}.{index}", "t.T", 1, 0, number, chance.randbytes(chance.choice(SIZES)), b"{}")
        for index in range(messages)
    ]
    return WriteSet(
        appends=[Append(f"t.Thing/{number % STREAMS}", ANY, drafts)],
        key=CommandKey("", f"key-{number}", number.to_bytes(8), number),
        marks=[Mark("t.consumer", f"other.Thing/{number}", number, 0)],
        journal=[("t.consumer", f"other.Thing/{number}", number)],
    )


async def check_database(path: Path, marks: Sequence[Any]) -> list[str]:
    """What an image lacks of what was acknowledged, or has by halves."""
    database = SqliteDatabase(path, SystemClock())
    await database.open()
    try:
        found = await database.verify()
        found += await _lost(database, [one for one in marks if isinstance(one, Acknowledged)])
        found += await _halves(database)
        epoch = max((one.epoch for one in marks if isinstance(one, Leased)), default=0)
        return found + await _goes_on(database, epoch)
    finally:
        await database.close()


async def _lost(database: SqliteDatabase, acknowledged: Sequence[Acknowledged]) -> list[str]:
    there = dict(await database.query("SELECT id, position FROM events"))
    missing = []
    for one in acknowledged:
        places = [there.get(f"{one.number}.{index}") for index in range(one.messages)]
        if None in places or places[-1] != one.position:
            missing.append(f"acknowledged set {one.number} at {one.position} is lost: {places}")
    return missing


async def _halves(database: SqliteDatabase) -> list[str]:
    """Each set is there whole: messages, command key, mark and journal line."""
    parts: list[set[int]] = []
    for sql in (
        "SELECT DISTINCT CAST(id AS INTEGER) FROM events",
        "SELECT CAST(substr(key, 5) AS INTEGER) FROM command_keys",
        "SELECT version FROM marks",
        "SELECT version FROM journal",
    ):
        parts.append({number for (number,) in await database.query(sql)})
    own = {number for (number,) in await database.query("SELECT number FROM own")}
    found = [f"sets are there by halves: {sorted(part ^ parts[0])}" for part in parts[1:] if part != parts[0]]
    return found + [f"own rows without their sets: {sorted(own - parts[0])}" for _ in range(not own <= parts[0])]


async def _goes_on(database: SqliteDatabase, epoch: int) -> list[str]:
    """The next commit stands behind all others, and the next lease has a new epoch."""
    head = await database.head()
    [answer] = await database.commit([_set(9_999, 1, random.Random(0))])
    lease = await database.acquire("relay", "after")
    found = []
    if not isinstance(answer, Committed) or answer.position != head + 1:
        found.append(f"the commit after position {head} was answered {answer}")
    if lease is None or lease.epoch <= epoch:
        found.append(f"the lease was given with epoch {lease.epoch if lease else None} after {epoch}")
    return found
