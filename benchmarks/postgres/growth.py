"""W7: what an append and a load of 10 events cost in a small log and in larger ones: statements, buffers, time.

Counted by `pg_stat_statements`, in which what a trigger does belongs to its statement, and BEGIN and COMMIT are not counted
where they are prepared. What runs beside in the same process (looks at the log and its like) is counted too.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterator
from functools import partial
from itertools import count
from typing import Any

from psycopg import sql

from benchmarks import ours as common
from benchmarks.case import Case, Setting
from benchmarks.load import Figures
from benchmarks.names import GROUP, OURS
from benchmarks.raw import tables

from .raw import Group
from .server import Server, ask, name_of
from .subjects import filled, opened

SMALL = 10_000
SIZES = (100_000, 1_000_000)
TIMES = 300
FIRST_NEW = 10_000_000
COUNTED = """
SELECT sum(calls), sum(shared_blks_hit + shared_blks_read), sum(shared_blks_dirtied)
FROM pg_stat_statements WHERE dbid = %s
"""
WHAT = ("statements", "buffers", "buffers dirtied")


def growth(setting: Setting, server: Server) -> Iterator[Case]:
    server.databases.run("CREATE EXTENSION IF NOT EXISTS pg_stat_statements")
    for size in SIZES[:1] if setting.quick else SIZES:
        numbers = count(FIRST_NEW, 10_000)
        measured = {
            OURS: partial(_growth, server, OURS, size, numbers),
            GROUP: partial(_growth, server, GROUP, size, numbers),
        }
        yield Case("W7 PostgreSQL", f"from {SMALL:,} to {size:,} events", measured, limit=GROUP, rounds=1)


def _growth(server: Server, subject: str, size: int, numbers: count[int]) -> Figures:
    before = _measured(server, subject, SMALL, next(numbers))
    after = _measured(server, subject, size, next(numbers))
    counts = {f"{what}, at {size:,}": value for what, value in after.items() if not what.startswith("ms")}
    return {f"growth of {what}": after[what] / before[what] for what in before if before[what]} | counts


def _measured(server: Server, subject: str, size: int, first: int) -> Figures:
    with server.fresh(filled(server, subject, size)) as url:
        server.databases.run(
            sql.SQL("ALTER DATABASE {} SET pg_stat_statements.track = 'top'").format(sql.Identifier(name_of(url)))
        )
        old = [number * (size // 10) // TIMES for number in range(TIMES)]
        measure = _ours if subject == OURS else _group
        return asyncio.run(measure(server, url, first, old))


async def _ours(server: Server, url: str, first: int, old: list[int]) -> Figures:
    database = await opened(url)
    await common.commit(database, [common.new_order(first + TIMES, 1)])
    await database.read_streams({common.stream(old[0]): 0})
    counter = Counter(server, url)
    for number in range(first, first + TIMES):
        await common.commit(database, [common.new_order(number, 1)])
    found = counter.read("append")
    for number in old:
        (past,) = (await database.read_streams({common.stream(number): 0})).values()
        assert len(past) == 10
    found |= counter.read("load")
    await database.close()
    return found


async def _group(server: Server, url: str, first: int, old: list[int]) -> Figures:
    group = await Group.open(url)
    await group.commit([tables.event_row(first + TIMES, 1)])
    await group.history(tables.stream(old[0]))
    counter = Counter(server, url)
    for number in range(first, first + TIMES):
        await group.commit([tables.event_row(number, 1)])
    found = counter.read("append")
    for number in old:
        assert len(await group.history(tables.stream(number))) == 10
    found |= counter.read("load")
    await group.close()
    return found


class Counter:
    """Reads, an operation, what was counted in a database since it was read before."""

    def __init__(self, server: Server, url: str) -> None:
        self._server = server
        self._url = url
        self._start()

    def read(self, what: str) -> Figures:
        """The figures of an operation."""
        elapsed = time.perf_counter() - self._begun
        counted = [after - before for after, before in zip(self._now(), self._before, strict=True)]
        found = {f"{one}, {what}": value / TIMES for one, value in zip(WHAT, counted, strict=True)}
        self._start()
        return found | {f"ms, {what}": elapsed / TIMES * 1e3}

    def _start(self) -> None:
        self._before, self._begun = self._now(), time.perf_counter()

    def _now(self) -> list[float]:
        oid = ask(self._url, "SELECT oid::int8 FROM pg_database WHERE datname = current_database()")[0][0]
        rows: list[tuple[Any, ...]] = self._server.databases.run(COUNTED, oid)
        return [float(value or 0) for value in rows[0]]
