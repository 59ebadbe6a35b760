"""`late`: duplicates of old messages come up to 365 virtual days later: nothing is done twice, and the inbox stays small.

One seed is a small life of two services, in memory or on a server; a duplicate that was delivered is the fault.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import Sequence

from headwater.adapters.memory.writing import JOURNAL, MARKS
from headwater.channel import Publication
from headwater.message import Recorded
from headwater.tally import stream_of_tallies
from headwater.testing.harness import Harness
from tests.fault.rigs.late_on_server import lived
from tests.fault.rigs.pair import Book, Copy, desk, mirror
from tests.fault.rigs.trial import TrialResult

COUNT = 300
STORES = True
ROUNDS = 8
DAYS = 365.0
CONSUMERS = ("mirror.mirrored", "mirror.copy")
CHAIN = stream_of_tallies("desk", "desk.Entry")


def one_trial(seed: int, store: str = "") -> TrialResult:
    """Live through a year of duplicates."""
    chance = random.Random(seed)
    if store:
        return lived(seed, store, days(chance))
    return asyncio.run(Year(chance, seed).live())


def days(chance: random.Random) -> list[float]:
    """The days on which old messages come again, up to the last of the year."""
    return [*sorted(chance.uniform(0, DAYS) for _ in range(ROUNDS - 1)), DAYS]


class Year:
    """Two services, what they published, and the days that pass."""

    def __init__(self, chance: random.Random, seed: int) -> None:
        self.chance = chance
        self.desk, self.mirror = desk(), mirror()
        self.world = Harness(self.desk, self.mirror, seed=seed)
        self.sent: list[Publication] = []
        self.keys = [f"k{index}" for index in range(chance.randint(2, 8))]
        self.number = 0
        self.duplicates = 0

    async def live(self) -> TrialResult:
        """Book, let days pass, deliver old messages again; then look."""
        async with self.world:
            self._listen()
            passed = 0.0
            for day in days(self.chance):
                await self._book(self.chance.randint(0, 6) or 1)
                before = await self._inbox()
                await self.world.advance(days=day - passed)
                passed = day
                await self._again()
                if self.chance.random() < 0.3:
                    await self.world.restart(self.mirror)
                found = await self._look(before)
                if found:
                    return TrialResult(True, [f"on day {day:.0f}: {one}" for one in found])
            return TrialResult(self.duplicates > 0, [], 1, {"duplicates": self.duplicates})

    def _listen(self) -> None:
        """Keep what is published, as a broker may that gives it out again."""
        publish = self.world.channel.publish

        async def heard(publications: Sequence[Publication], **options: object) -> dict[int, str]:
            self.sent += [one for one in publications if one.topic == "desk.Entry"]
            return await publish(publications, **options)  # type: ignore[arg-type]

        self.world.channel.publish = heard  # type: ignore[method-assign]
        self.publish = publish

    async def _book(self, count: int) -> None:
        for _ in range(count):
            self.number += 1
            await self.desk.send(Book(self.chance.choice(self.keys), self.number))
        await self.world.settle()

    async def _again(self) -> None:
        """Old messages, in any order, one by one or many at once, some of them many times."""
        again = self.chance.choices(self.sent, k=self.chance.randint(1, 30))
        together = self.chance.choice((1, 5, len(again)))
        for first in range(0, len(again), together):
            await self.publish(again[first : first + together])
            if self.chance.random() < 0.5:
                await self.world.settle()
        self.duplicates += len(again)
        await self.world.settle()

    async def _inbox(self) -> int:
        """Rows that the mirror keeps to know what it has taken, besides one a consumer for the tallies."""
        marks = [stream for _, stream in self.world.databases["mirror"].file.table(MARKS) if stream != CHAIN]
        return len(marks) + len(await self.world.held(self.mirror))

    async def _look(self, before: int) -> list[str]:
        log = await self.world.databases["desk"].read(0, 100_000)
        booked = [one for one in log if one.kind == "event"]
        journal = self.world.databases["mirror"].file.table(JOURNAL)
        found = [f"the mirror took {entry} {times} times" for entry, times in journal.items() if times > 1]
        wanted = {(consumer, one.stream, one.version) for one in booked for consumer in CONSUMERS}
        if set(journal) != wanted:
            found.append(f"the mirror took other messages than there are: {sorted(set(journal) ^ wanted)[:5]}")
        rows = await self._inbox()
        if rows != before or rows != len({one.stream for one in booked}) * len(CONSUMERS):
            found.append(f"the inbox grew from {before} to {rows} rows by duplicates")
        return found + await self._copies(booked)

    async def _copies(self, booked: Sequence[Recorded]) -> list[str]:
        found = []
        for key in self.keys:
            count = sum(one.stream.endswith(f"/{key}") for one in booked)
            copy = await self.mirror.get(Copy, key)
            if (copy.count if copy else 0) != count:
                found.append(f"{key} was booked {count} times, and the mirror has {copy}")
        return found
