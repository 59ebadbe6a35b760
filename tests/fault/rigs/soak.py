"""`soak`: the shop under steady load with kills, for as long as asked; what should stay flat does, and the ledger is exact.

In the first half of the time two services are killed again and again, in the second the other two: so each lives long
enough to show a slope. `./dev prove soak --minutes 60`. A trial is a kill.
"""

from __future__ import annotations

import asyncio
import random
import secrets
import statistics
import tempfile
import time
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from examples.shop.feeder import client, feed
from examples.shop.folder import Folder, Run
from examples.shop.ledger import ledger
from examples.shop.messages import PlaceOrder
from examples.shop.progress import Progress, Snapshot
from examples.shop.routes import SERVICES
from examples.shop.services import Services
from tests.fault.rigs.on_server import fresh_databases
from tests.fault.rigs.trial import TrialResult

LASTING = True
STORES = True
COUNT = 1
SECONDS = 60.0
RATE = 60.0
KILL_EVERY = 4.0
LOOK = 0.5
FIRST = 0.25
"""The share of a life that is left out of its slope: caches fill, code is imported."""
FEWEST = 12
"""Samples below which a life shows no slope."""
DRAINED = 90.0
MIB = 1 << 20


@dataclass(frozen=True)
class Limit:
    """How much a figure may grow over a life: so much, or this share of what it is."""

    slack: float
    share: float = 0.2


LIMITS = {
    "memory MiB": Limit(40),  # 20,000 warm aggregates and 10,000 messages of the log are kept, by design
    "descriptors": Limit(10),
    "threads": Limit(4),
    "WAL MiB": Limit(16),
    "lag": Limit(10 * RATE),
}


@dataclass
class Series:
    """Samples of a figure over one life."""

    times: list[float] = field(default_factory=list)
    values: list[float] = field(default_factory=list)

    def add(self, at: float, value: float) -> None:
        """Take a sample."""
        self.times.append(at)
        self.values.append(value)

    def growth(self) -> float:
        """How much it grew after its beginning: the median of all slopes between samples, over its length."""
        first = int(len(self.times) * FIRST)
        times, values = self.times[first:], self.values[first:]
        if len(times) < FEWEST:
            return 0.0
        return slope(times, values) * (times[-1] - times[0])


def slope(times: Sequence[float], values: Sequence[float]) -> float:
    """The median slope between two samples (Theil and Sen): single steps and outliers do not move it."""
    step = max(1, len(times) // 200)
    points = list(zip(times[::step], values[::step], strict=True))
    slopes = [(b[1] - a[1]) / (b[0] - a[0]) for i, a in enumerate(points) for b in points[i + 1 :] if b[0] > a[0]]
    return statistics.median(slopes) if slopes else 0.0


def grown(name: str, series: Series) -> str:
    """What is wrong with a series; empty if it is flat."""
    limit = LIMITS[name.partition(": ")[2]]
    growth, middle = series.growth(), statistics.median(series.values)
    if growth <= max(limit.slack, limit.share * middle):
        return ""
    return f"{name} grew by {growth:.1f} over {series.times[-1] - series.times[0]:.0f} s, from about {middle:.1f}"


def one_trial(seed: int, store: str = "", seconds: float = SECONDS) -> TrialResult:
    """Soak for so many seconds, in files or on a server."""
    with tempfile.TemporaryDirectory(prefix="headwater-soak-") as place:
        soak = Soak(Path(place), seed, seconds)
        if not store:
            return asyncio.run(soak.run())
        with fresh_databases(store) as databases:
            soak.folder.keep(Run("", "", None, seed, databases.url(""), name=f"soak_{secrets.token_hex(4)}"))
            return asyncio.run(soak.run())


class Soak:
    """The shop, who feeds and kills it, and the samples."""

    def __init__(self, place: Path, seed: int, seconds: float) -> None:
        self.folder = Folder(place)
        self.seed = seed
        self.seconds = seconds
        self.chance = random.Random(seed)
        self.services = Services(self.folder, {"SHOP_SEED": str(seed)})
        self.series: dict[str, dict[int, Series]] = defaultdict(lambda: defaultdict(Series))
        self.orders = [self._order(number) for number in range(1, int(RATE * seconds) + 1)]

    async def run(self) -> TrialResult:
        """Start, soak, drain, and look."""
        self.folder.claim()
        progress = Progress(self.folder)
        progress.logs.make()
        self.services.start_all()
        try:
            missing = await self._soak(progress)
        finally:
            self.services.stop_all()
        found = ledger(progress.logs.books(), self.orders, self.seed)
        progress.logs.remove()
        progress.close()
        flat = [grown(name, one) for name, lives in self.series.items() for one in lives.values() if one.values]
        violations = [one for one in (*flat, missing) if one] + found.problems
        return TrialResult(self.services.kills > 0, violations, self.services.kills, self._facts())

    async def _soak(self, progress: Progress) -> str:
        """Feed and kill for as long as asked; what was not done in the end."""
        began = time.monotonic()
        killing = asyncio.create_task(self._kill(began))
        where = self.folder.environment("orders")
        try:
            async with client(where["HEADWATER_STORE"], where["HEADWATER_CHANNEL"]).client() as app:
                feeding = asyncio.create_task(feed(app, self.orders, RATE))
                while not feeding.done():
                    self._sample(time.monotonic() - began, progress.look())
                    self.services.restart_fallen()
                    await asyncio.sleep(LOOK)
                await feeding
        finally:
            killing.cancel()
            await asyncio.gather(killing, return_exceptions=True)
        return await self._drain(progress)

    async def _kill(self, began: float) -> None:
        """Kill one of two services, each half of the time the other two."""
        halves = (SERVICES[0::2], SERVICES[1::2])
        while True:
            await asyncio.sleep(min(KILL_EVERY, self.seconds / 4))
            half = halves[time.monotonic() - began > self.seconds / 2]
            service = self.chance.choice(half)
            self.services.kill(service)
            self.services.start(service)

    async def _drain(self, progress: Progress) -> str:
        end = time.monotonic() + DRAINED
        while not (now := progress.look()).finished(len(self.orders)):
            if time.monotonic() > end:
                return (
                    f"{len(self.orders) - now.placed} orders were not placed and {now.open} open after {DRAINED:.0f} s"
                )
            self.services.restart_fallen()
            await asyncio.sleep(LOOK)
        return ""

    def _sample(self, at: float, now: Snapshot) -> None:
        for service, process in self.services._running.items():
            found = process_figures(process.pid)
            for name, value in found.items():
                self.series[f"{service}: {name}"][process.pid].add(at, value)
        for name in (*SERVICES, "channel"):
            wal = self.folder.path / f"{name}.db-wal"
            if wal.exists():
                self.series[f"{name}: WAL MiB"][0].add(at, wal.stat().st_size / MIB)
        self.series["shop: lag"][0].add(at, sum(now.lag.values()))

    def _facts(self) -> dict[str, float]:
        """The most of each figure."""
        most: dict[str, float] = defaultdict(float)
        for name, lives in self.series.items():
            of = name.partition(": ")[2]
            most[of] = max([most[of], *(round(max(one.values), 1) for one in lives.values())])
        return {**{f"most {name}": value for name, value in most.items()}, "orders": len(self.orders)}

    def _order(self, number: int) -> PlaceOrder:
        chance = self.chance
        return PlaceOrder(
            number, f"{chance.randint(1, 500):05}", "19970101", chance.randint(1, 5), chance.randint(1, 9_999)
        )


def process_figures(pid: int) -> dict[str, float]:
    """Memory, descriptors and threads of a process; nothing where it is gone."""
    try:
        status = dict(
            line.split(":", 1) for line in Path(f"/proc/{pid}/status").read_text().splitlines() if ":" in line
        )
        return {
            "memory MiB": int(status["VmRSS"].split()[0]) / 1024,
            "descriptors": float(sum(1 for _ in Path(f"/proc/{pid}/fd").iterdir())),
            "threads": float(status["Threads"]),
        }
    except (OSError, KeyError):
        return {}
