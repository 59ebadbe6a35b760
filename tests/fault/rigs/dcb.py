"""`dcb`: several processes decide over types and tags on one database at once, and no decision misses what stood before it.

A trial is a conditional append that stands. Racers pause between what they read and what they write, and keep transactions
open; an oracle looks whether the order of commits explains what each of them saw. `--store` has it on a server.
"""

from __future__ import annotations

import asyncio
import multiprocessing
import tempfile
import traceback
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from multiprocessing.connection import Connection
from multiprocessing.synchronize import Barrier
from pathlib import Path
from typing import Any

from headwater.adapters.postgres import PostgresDatabase
from headwater.adapters.sqlite import SqliteDatabase
from headwater.clock import SystemClock
from headwater.testing.contracts.race import RACERS, Race, run_race, wrong
from tests.fault.rigs.trial import TrialResult
from tests.servers.postgres import Databases, commit_order, run, shared_server

COUNT = 10_000
STORES = True
PROCESSES = 12
STEPS = 40
PATIENCE = 60.0
DEADLOCKS = "SELECT deadlocks FROM pg_stat_database WHERE datname = current_database()"

Order = Callable[[Any], Awaitable[dict[str, int] | None]]


def one_trial(seed: int, store: str = "") -> TrialResult:
    """Let processes race on a fresh database, and look."""
    with _on_server(store) if store else _in_file() as url:
        asyncio.run(_make(url))
        race = _race(url, seed)
        violations = wrong(race.entries, asyncio.run(_order(url)))
        if store and (deadlocks := run(url, DEADLOCKS)[0][0]):
            violations.append(f"{deadlocks} deadlocks")
    return TrialResult(race.refused > 0, violations, race.decided, {"most refused in a race": race.refused})


def on_server(seed: int) -> TrialResult:
    """The same on a server that is started for it."""
    with tempfile.TemporaryDirectory(prefix="headwater-dcb-") as place, shared_server(Path(place)) as databases:
        return one_trial(seed, databases.server_url)


@contextmanager
def _in_file() -> Iterator[str]:
    with tempfile.TemporaryDirectory(prefix="headwater-dcb-") as place:
        yield f"sqlite:///{Path(place) / 'race.db'}"


@contextmanager
def _on_server(store: str) -> Iterator[str]:
    databases = Databases(f"{store.rstrip('/')}/postgres")
    try:
        yield databases.make()
    finally:
        databases.empty()
        databases.drop()


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
    context = multiprocessing.get_context("fork")
    start = context.Barrier(PROCESSES)
    members = []
    for number in range(PROCESSES):
        ours, theirs = context.Pipe(duplex=False)
        process = context.Process(target=_member, args=(url, f"{seed}.{number}", start, theirs))
        process.start()
        theirs.close()
        members.append((process, ours))
    race = Race()
    try:
        for _, pipe in members:
            found = pipe.recv() if pipe.poll(PATIENCE) else f"a process was not done within {PATIENCE:.0f} s"
            if isinstance(found, str):
                raise RuntimeError(found)
            race.decided += found.decided
            race.refused += found.refused
            race.entries += found.entries
    finally:
        for process, pipe in members:
            process.kill()
            process.join()
            pipe.close()
    return race


def _member(url: str, name: str, start: Barrier, pipe: Connection) -> None:
    try:
        pipe.send(asyncio.run(_run(url, name, start)))
    except BaseException:  # noqa: BLE001 - whatever it was, it is told
        pipe.send(traceback.format_exc())


async def _run(url: str, name: str, start: Barrier) -> Race:
    database = _database(url)
    await database.open()
    start.wait(PATIENCE)
    try:
        return await run_race([database], name, STEPS, RACERS // PROCESSES)
    finally:
        await database.close()
