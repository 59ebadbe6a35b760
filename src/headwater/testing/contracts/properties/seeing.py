"""Everything that a database can be asked about the few names of the machines, in a form that can be compared."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Final

import msgspec
from msgspec.structs import replace

from headwater.database import Answer, Database, Facts, Needs
from headwater.errors import DatabaseError
from headwater.inbox import Held, Reason
from headwater.message import Recorded
from headwater.store import Committed, Item, Seen
from headwater.table import Table
from headwater.testing.contracts.database.values import EVERYTHING, LINES, TIME, TOTALS
from headwater.testing.contracts.properties.writes import (
    CONSUMERS,
    FEEDS,
    KEYS,
    MESSAGES,
    OWNERS,
    READERS,
    STREAMS,
    TENANTS,
)

MANY: Final = 10_000
END: Final = 2**62

QUERIES: Final = (
    (Item(tags=("t",)),),
    (Item(("bank.Withdrawn",), ("u", "t")), Item(tags=("ü\0'",))),
    (Item(("ü", "none")), Item(("bank.Withdrawn",), ("t",))),
)

Ranks = Mapping[int, int]
"""Which message of the log, from 1, has a position: only the order of positions is promised."""
Shown = dict[str, Any]


def plain(value: Any) -> str:
    """A value as text: lists and tuples, and enums and their values, are alike."""
    return msgspec.json.encode(value).decode()


def told(answer: Answer, ranks: Ranks | None) -> tuple[Any, ...]:
    """An answer, without its words; without `ranks`, also without its position."""
    if isinstance(answer, Committed):
        rank = ranks.get(answer.position, "nowhere") if ranks is not None else None
        return "Committed", rank, answer.version, answer.repeated
    return (type(answer).__name__,)


async def ranks_of(database: Database) -> Ranks:
    """The ranks of all positions; 0 is before the first."""
    return {0: 0} | {one.position: rank for rank, one in enumerate(await database.read(0, MANY), start=1)}


async def facts_of(database: Database, wanted: Needs, leases: Mapping[str, int]) -> Facts:
    """What is stored of what is needed, by the reads that everybody has; leases cannot be read."""
    facts = Facts(position=await database.head(), leases=dict(leases))
    for stream in wanted.streams:
        facts.streams[stream] = len(await database.read_stream(stream, 0, MANY))
    for tenant, key in wanted.keys:
        if (settled := await database.settled(tenant, key)) is not None:
            facts.keys[tenant, key] = settled
    for consumer, stream in wanted.marks:
        facts.marks[consumer, stream] = (await database.marks(consumer, [stream])).get(stream, 0)
    facts.checkpoints = {name: await database.checkpoint(name) for name in wanted.checkpoints}
    holding = await database.held_list(None, list(Reason), MANY)
    facts.held = {(one.consumer, one.message.stream, one.message.version) for one in holding}
    facts.timers = {(one.owner, one.key, one.name): one.due for one in await database.timers_list(MANY)}
    for saga, key in wanted.sagas:
        if (state := (await database.sagas(saga, [key])).get(key)) is not None:
            facts.sagas[saga, key] = state.expect
    return facts


async def see(database: Database) -> Shown:
    """All that can be read of a database."""
    return {**await _log(database), **await _inbox(database), **await _flows(database), **await _rows(database)}


async def _log(database: Database) -> Shown:
    log = await database.read(0, MANY)
    ranks = {0: 0} | {one.position: rank for rank, one in enumerate(log, start=1)}

    def ranked(found: Sequence[Recorded]) -> str:
        return plain([replace(one, position=ranks[one.position]) for one in found])

    middle = log[len(log) // 2].position if log else 0
    seen: Shown = {
        "head": ranks[await database.head()],
        "log": ranked(log),
        "backwards": ranked(await database.read(END, MANY, backwards=True)),
        "page": ranked(await database.read(middle, 2)),
        "page backwards": ranked(await database.read(middle, 2, backwards=True)),
        "streams": plain(sorted((await database.read_streams({s: index for index, s in enumerate(STREAMS)})).items())),
        "relevant": [await _relevant(database, ranks, items) for items in QUERIES],
        "stream": [ranked(await database.read_stream(stream, 1, 2)) for stream in STREAMS],
    }
    for tenant in TENANTS:
        for key in KEYS:
            settled = await database.settled(tenant, key)
            seen[f"settled {tenant} {key!r}"] = settled and (settled.hash, ranks[settled.position], settled.version)
    return seen


async def _relevant(database: Database, ranks: Ranks, items: Sequence[Item]) -> list[tuple[int, list[int]]]:
    """The events that some items take, read in two parts; of what was seen nothing comes again."""
    middle = Seen(max(ranks, key=lambda position: (ranks[position] <= len(ranks) // 2, position)))
    found = await database.read_relevant(items, Seen())
    rest = await database.read_relevant(items, middle)
    assert list(rest.events) == [one for one in found.events if one[0].position > middle.safe]
    assert not (await database.read_relevant(items, found.seen)).events
    return [(ranks[one.position], list(places)) for one, places in found.events]


def _places(found: Iterable[Held]) -> list[tuple[str, str, int]]:
    return [(one.consumer, one.message.stream, one.message.version) for one in found]


async def _inbox(database: Database) -> Shown:
    seen: Shown = {}
    for consumer in CONSUMERS:
        count, size = await database.held_count(consumer)
        due = await database.next_due(consumer)
        seen[f"inbox of {consumer!r}"] = {
            "marks": await database.marks(consumer, STREAMS),
            "held keys": await database.held_keys(consumer, STREAMS),
            "held": [plain(await database.held_of(consumer, key, MANY)) for key in STREAMS],
            "first held": [_places(await database.held_of(consumer, key, 1)) for key in STREAMS],
            "held count": (count, bool(size) if not count else None),
            "due": [_places(await database.held_due(consumer, TIME + after, MANY)) for after in (-1, 0, 2, 5)],
            "first due": _places(await database.held_due(consumer, TIME + 5, 1)),
            "next due": None if due is None else max(due, TIME),
            "open steps": sorted(map(plain, await database.steps(consumer, None))),
        }
    for reasons in (list(Reason), [Reason.DEAD, Reason.GAP], []):
        seen[f"held for {reasons}"] = sorted(_places(await database.held_list(None, reasons, MANY)))
    seen["notes"] = [await database.noted(feed) for feed in FEEDS]
    seen["steps"] = [sorted(map(plain, await database.steps(None, message))) for message in (*MESSAGES, None)]
    return seen


async def _flows(database: Database) -> Shown:
    return {
        "checkpoints": [await database.checkpoint(reader) for reader in READERS],
        "consumers": sorted(map(plain, await database.registered())),
        "timers": plain(await database.timers_list(MANY)),
        "timers due": [
            plain(await database.timers_due(TIME + after, limit)) for after in (-1, 2, 5) for limit in (1, 9)
        ],
        "next timer": await database.next_timer(),
        "sagas": [plain(sorted((await database.sagas(owner, KEYS)).items())) for owner in OWNERS],
    }


async def _rows(database: Database) -> Shown:
    keys: dict[Table, list[tuple[Any, ...]]] = {
        TOTALS: [(stream,) for stream in STREAMS],
        LINES: [(number, key) for number in (0, 1) for key in KEYS[:2]],
        EVERYTHING: [(key,) for key in KEYS[:2]],
    }
    where: dict[Table, dict[str, Any]] = {
        TOTALS: {"cents": 1},
        LINES: {"number": 1, "count": None},
        EVERYTHING: {"a_boolean": True},
    }
    seen: Shown = {}
    for table, some in keys.items():
        try:
            seen[table.name] = [
                sorted((await database.rows(table, some)).items()),
                await database.find(table, {}, MANY),
                await database.find(table, where[table], 2),
            ]
        except DatabaseError:
            seen[table.name] = "not made"
    return seen
