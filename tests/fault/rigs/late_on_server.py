"""`late` on a server: the same life of two services that really run, over databases, with a clock that days are added to."""

from __future__ import annotations

import asyncio
import random
import tempfile
from collections.abc import Sequence
from pathlib import Path

from headwater import App
from headwater.channel import Publication
from headwater.clock import SystemClock
from tests.fault.rigs.ground import on_server
from tests.fault.rigs.pair import Book, Pair, desk, mirror
from tests.fault.rigs.trial import TrialResult

DAY = 24 * 3600 * 1_000_000
SETTLED = 30.0
TAKEN = """
SELECT sum(n) FROM (
    SELECT count(*) AS n FROM marks WHERE stream NOT LIKE '%.relay/%' UNION ALL SELECT count(*) FROM held
) AS rows
"""
"""Without the marks of tallies: the first one may come at any time, and is no duplicate."""


class Calendar(SystemClock):
    """The machine's clock, some days on."""

    def __init__(self) -> None:
        super().__init__()
        self.passed = 0

    def now(self) -> int:
        """Microseconds, with the days."""
        return super().now() + self.passed


def lived(seed: int, store: str, days: Sequence[float]) -> TrialResult:
    """Live until each of these days, on databases of a server."""
    with tempfile.TemporaryDirectory(prefix="headwater-late-") as place:
        folder = Path(place)
        with on_server(folder, store, ("desk", "mirror", "channel")):
            return asyncio.run(Years(folder, random.Random(seed)).live(days))


class Years:
    """Two services, what they published, and the days that pass."""

    def __init__(self, folder: Path, chance: random.Random) -> None:
        self.pair = Pair(folder)
        self.chance = chance
        self.clock = Calendar()
        place = self.pair.ground.url
        self.desk = desk(place("desk"), place("channel"), self.clock)
        self.mirror = mirror(place("mirror"), place("channel"), self.clock)
        self.sent: list[Publication] = []
        self.keys = [f"k{index}" for index in range(chance.randint(2, 8))]
        self.booked: list[int] = []
        self.duplicates = 0

    async def live(self, days: Sequence[float]) -> TrialResult:
        """Book, let days pass, deliver old messages again; then look."""
        async with self.desk, self.mirror:
            self._listen(self.desk)
            for day in days:
                await self._book()
                before = self._inbox()
                self.clock.passed = int(day * DAY)
                await self._again()
                grown = self._inbox() - before
                if grown:
                    return TrialResult(True, [f"on day {day:.0f}: the inbox grew by {grown} rows by duplicates"])
        found = self.pair.ledger(self.booked)
        return TrialResult(self.duplicates > 0, found, 1, {"duplicates": self.duplicates})

    def _listen(self, app: App) -> None:
        """Keep what is published, as a broker may that gives it out again."""
        channel = app.wiring.channel
        self.publish = publish = channel.publish

        async def heard(publications: Sequence[Publication], **options: object) -> dict[int, str]:
            self.sent += [one for one in publications if one.topic == "desk.Entry"]
            return await publish(publications, **options)  # type: ignore[arg-type]

        channel.publish = heard  # type: ignore[method-assign]

    async def _book(self) -> None:
        for _ in range(self.chance.randint(1, 6)):
            number = len(self.booked) + 1
            await self.desk.send(Book(self.chance.choice(self.keys), number))
            self.booked.append(number)
        await self._until_done()

    async def _again(self) -> None:
        """Old messages, in any order, one by one or many at once, some of them many times."""
        again = self.chance.choices(self.sent, k=self.chance.randint(1, 30))
        together = self.chance.choice((1, 5, len(again)))
        for first in range(0, len(again), together):
            await self.publish(again[first : first + together])
        self.duplicates += len(again)
        await self._until_done()

    async def _until_done(self) -> None:
        """Until every effect is there, and the mirror has taken all that was published."""
        end = self.clock.monotonic() + SETTLED
        while self.pair.behind() > 0 or await self._lag():
            if self.clock.monotonic() > end:
                raise AssertionError(f"{self.pair.behind()} effects and {await self._lag()} messages are left")
            await asyncio.sleep(0.02)

    async def _lag(self) -> int:
        return sum(one.messages for one in await self.mirror.wiring.channel.lag("mirror"))

    def _inbox(self) -> int:
        """Rows that the mirror keeps to know what it has taken."""
        return int(self.pair.rows("mirror", TAKEN)[0][0])
