"""Racers that decide on overlapping events, and an oracle that looks whether one order explains all that they saw.

A decision writes down what it saw. Of it and another commit that concerns it, the order is then known: what was seen stood
before, what was not seen came after. What was answered before another was submitted stood before that, too. If these orders
make a circle, somebody decided on what was no longer true. Where the store can tell the order of its commits, each decision
must have seen exactly what stood before it.
"""

from __future__ import annotations

import asyncio
import random
from bisect import bisect_right
from collections.abc import Iterator, Mapping, Sequence
from graphlib import CycleError, TopologicalSorter
from itertools import pairwise
from typing import Final

from msgspec import Struct, field

from headwater.database import Answer, Collision, Database, WriteSet, stands
from headwater.message import JSON, Draft
from headwater.store import ANY, Append, Condition, Item, Seen

RACERS: Final = 12
STEPS: Final = 30
TYPES: Final = ("race.A", "race.B", "race.C")
TAGS: Final = tuple(f"t:{number}" for number in range(6))
PAUSE: Final = 0.003
LONG: Final = 0.01
"""Seconds for which a racer waits before it goes on, and for which it keeps a transaction open, at most."""


class Entry(Struct, frozen=True):
    """A commit that stands: its events (id, type, tags), when it was submitted and answered (seconds), what it asked and saw.

    A commit that rests on no decision has asked nothing.
    """

    name: str
    events: tuple[tuple[str, str, tuple[str, ...]], ...]
    submitted: float
    answered: float
    items: tuple[Item, ...] = ()
    saw: frozenset[str] = frozenset()

    def asked_for(self, other: Entry) -> set[str]:
        """The ids of another's events that it asked for. Not by `Item.takes`, which is on trial."""
        return {
            mark
            for mark, name, tags in other.events
            for item in self.items
            if set(item.tags) <= set(tags) and (not item.types or name in item.types)
        }


class Race(Struct):
    """What came of a race: how many decisions stood and fell, and every commit that stands."""

    decided: int = 0
    refused: int = 0
    entries: list[Entry] = field(default_factory=list)


class Undone(Exception):
    """Raised within a transaction that is to be undone."""


class Racer:
    """Appends and decides by chance, on one handle: at once, or in a transaction that takes its time."""

    def __init__(self, database: Database, name: str, race: Race, slow: float) -> None:
        self.database = database
        self.slow = slow
        self.name = name
        self.race = race
        self.chance = random.Random(name)
        self._known: dict[tuple[Item, ...], tuple[frozenset[str], Seen]] = {}
        self._number = 0

    async def run(self, steps: int) -> None:
        """Append or decide so many times."""
        for _ in range(steps):
            if self.chance.random() < 0.3:
                await self._commit((), frozenset(), Seen())
            else:
                await self._decide()
            await self._pause(0.3)

    async def _decide(self) -> None:
        """Read what is new of what was asked for, wait a little, and append on the condition that nothing has come since."""
        items = self._query()
        saw, seen = self._known.get(items, (frozenset(), Seen()))
        relevant = await self.database.read_relevant(items, seen)
        saw |= {one.id for one, _ in relevant.events}
        self._known[items] = saw, relevant.seen
        await self._pause(0.5)
        await self._commit(items, saw, relevant.seen)

    async def _commit(self, items: tuple[Item, ...], saw: frozenset[str], seen: Seen) -> None:
        drafts = [self._draft() for _ in range(self.chance.choice((1, 1, 2)))]
        stream = f"race.Racer/{self.name}/{self.chance.randrange(3)}"
        conditions = [Condition(items, seen)] if items else []
        now = asyncio.get_running_loop().time
        submitted = now()
        write = WriteSet([Append(stream, ANY, drafts)], conditions=conditions)
        try:
            answer = await (self._slowly(write) if self.chance.random() < self.slow else self._at_once(write))
        except Undone:
            return
        if isinstance(answer, Collision):
            self.race.refused += 1
            return
        stands(answer)
        self.race.decided += bool(items)
        events = tuple((one.id, one.type, one.tags) for one in drafts)
        self.race.entries.append(Entry(drafts[0].id, events, submitted, now(), items, saw))

    async def _at_once(self, write: WriteSet) -> Answer:
        (answer,) = await self.database.commit([write])
        return answer

    async def _slowly(self, write: WriteSet) -> Answer:
        """In a transaction that stays open for a while, and may be undone. Raises Undone."""
        async with self.database.transaction() as transaction:
            (answer,) = transaction.write([write])
            await self._pause(1.0, LONG)
            if self.chance.random() < 0.3:
                raise Undone
        return answer

    def _draft(self) -> Draft:
        self._number += 1
        tags = tuple(self.chance.sample(TAGS, self.chance.choice((0, 1, 2, 2))))
        mark, name = f"{self.name}-{self._number}", self.chance.choice(TYPES)
        return Draft("event", mark, name, 1, JSON, 0, b"{}", b"{}", tags)

    def _query(self) -> tuple[Item, ...]:
        return tuple(self._item() for _ in range(self.chance.choice((1, 1, 2))))

    def _item(self) -> Item:
        """Of types and tags, mostly; of types alone or tags alone, sometimes."""
        types = self.chance.sample(TYPES, self.chance.choice((0, 1, 1, 1, 2)))
        tags = self.chance.sample(TAGS, self.chance.choice((0, 1, 1, 1, 2) if types else (1, 1, 2)))
        return Item(tuple(sorted(types)), tuple(sorted(tags)))

    async def _pause(self, often: float, longest: float = PAUSE) -> None:
        if self.chance.random() < often:
            await asyncio.sleep(self.chance.random() * longest)  # noqa: TID251 - a race is in real time


async def run_race(handles: Sequence[Database], name: str, steps: int = STEPS, racers: int = RACERS) -> Race:
    """Let racers decide on some handles of one database; `name` fixes what they try.

    On several handles no transaction is kept open: one that blocks its loop would wait for another of the same loop.
    """
    race, slow = Race(), 0.3 if len(handles) == 1 else 0.0
    field = [Racer(handles[number % len(handles)], f"{name}.{number}", race, slow) for number in range(racers)]
    await asyncio.gather(*(one.run(steps) for one in field))
    return race


# --- the oracle ---


def wrong(entries: Sequence[Entry], order: Mapping[str, int] | None = None) -> list[str]:
    """What is wrong with the decisions of all entries of a log, in words.

    `order` has the place of each event, by its id, in the order of commits.
    """
    before: dict[str, set[str]] = {one.name: set() for one in entries}
    found = list(_strangers(entries))
    for decision in entries:
        for other in entries if decision.items else ():
            if other is decision or not (asked := decision.asked_for(other)):
                continue
            saw = asked <= decision.saw
            if not saw and not asked.isdisjoint(decision.saw):
                found.append(f"{decision.name} saw a part of {other.name}")
            before[decision.name if saw else other.name].add(other.name if saw else decision.name)
            if not saw and other.answered < decision.submitted:
                found.append(f"{decision.name} did not see {other.name}, which was answered before it was submitted")
            if order is not None and saw != (order[other.name] < order[decision.name]):
                found.append(
                    f"{decision.name} {'saw' if saw else 'did not see'} {other.name}, against the order of commits"
                )
    return found or _circle(entries, before)


def _strangers(entries: Sequence[Entry]) -> Iterator[str]:
    """What was seen and does not stand, or was not asked for."""
    owners = {mark: one for one in entries for mark, _, _ in one.events}
    for decision in entries:
        for mark in sorted(decision.saw):
            if mark not in owners or mark not in decision.asked_for(owners[mark]):
                yield f"{decision.name} saw {mark}, which {'it had not asked for' if mark in owners else 'does not stand'}"


def _circle(entries: Sequence[Entry], before: Mapping[str, set[str]]) -> list[str]:
    """A circle of commits of which each must stand before the next, told as one; none where an order explains all.

    Time goes from one submission to the next, and joins what was answered by then.
    """
    graph: TopologicalSorter[str | float] = TopologicalSorter()
    moments = sorted({one.submitted for one in entries})
    for earlier, later in pairwise(moments):
        graph.add(later, earlier)
    for one in entries:
        graph.add(one.name, one.submitted, *before[one.name])
        if (next_moment := bisect_right(moments, one.answered)) < len(moments):
            graph.add(moments[next_moment], one.name)
    try:
        graph.prepare()
    except CycleError as circle:
        names = [one for one in circle.args[1] if isinstance(one, str)]
        return [f"no order explains what was seen: {' before '.join(names)}"]
    return []
