"""`dcb`: several processes decide over types and tags on one database at once, and no decision misses what stood before it.

A trial is a conditional append that stands. Racers pause between what they read and what they write, and keep transactions
open; an oracle looks whether the order of commits explains what each of them saw. `--store` has it on a server.
"""

from __future__ import annotations

import asyncio
import tempfile
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from headwater.adapters.postgres import PostgresDatabase
from headwater.adapters.sqlite import SqliteDatabase
from headwater.clock import SystemClock
from headwater.testing.contracts.race import RACERS, Race, run_race, wrong
from tests.fault.rigs.on_server import fresh_database, started
from tests.fault.rigs.racers import Racers
from tests.fault.rigs.trial import TrialResult
from tests.servers.postgres import commit_order, run

COUNT = 10_000
STORES = True
PROCESSES = 12
STEPS = 40
DEADLOCKS = "SELECT deadlocks FROM pg_stat_database WHERE datname = current_database()"

Order = Callable[[Any], Awaitable[dict[str, int] | None]]


def one_trial(seed: int, store: str = "") -> TrialResult:
    """Let processes race on a fresh database, and look."""
    with fresh_database(store) if store else _in_file() as url:
        asyncio.run(_make(url))
        race = _race(url, seed)
        violations = wrong(race.entries, asyncio.run(_order(url)))
        if store and (deadlocks := run(url, DEADLOCKS)[0][0]):
            violations.append(f"{deadlocks} deadlocks")
    return TrialResult(race.refused > 0, violations, race.decided, {"most refused in a race": race.refused})


def on_server(seed: int) -> TrialResult:
    """The same on a server that is started for it."""
    with started() as databases:
        return one_trial(seed, databases.server_url)


@contextmanager
def _in_file() -> Iterator[str]:
    with tempfile.TemporaryDirectory(prefix="headwater-dcb-") as place:
        yield f"sqlite:///{Path(place) / 'race.db'}"


def _database(url: str) -> Any:
    kind = SqliteDatabase if url.startswith("sqlite") else PostgresDatabase
    return kind.from_url(url, SystemClock())


async def _make(url: str) -> None:
    database = _database(url)
    await database.open()
    await database.close()


async def _order(url: str) -> dict[str, int] | None:
    """The order of commits: on SQLite that of the log."""
    database = _database(url)
    await database.open()
    try:
        if isinstance(database, PostgresDatabase):
            return await commit_order(database)
        return {one.id: one.position for one in await database.read(0, 1_000_000)}
    finally:
        await database.close()


def _race(url: str, seed: int) -> Race:
    """What came of the races of all processes. Raises RuntimeError where one fell."""

    async def member(number: int, ready: Callable[[], object]) -> Race:
        return await _run(url, f"{seed}.{number}", ready)

    race = Race()
    with Racers(PROCESSES, member) as racers:
        for found in racers.answers():
            race.decided += found.decided
            race.refused += found.refused
            race.entries += found.entries
    return race


async def _run(url: str, name: str, ready: Callable[[], object]) -> Race:
    database = _database(url)
    await database.open()
    ready()
    try:
        return await run_race([database], name, STEPS, RACERS // PROCESSES)
    finally:
        await database.close()
