"""W7: what an append and a load of 10 events cost in a small log and in a large one: statements, pages, time."""

from __future__ import annotations

import asyncio
import shutil
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from functools import partial
from itertools import count
from pathlib import Path
from typing import Any

import apsw

from benchmarks import ours
from benchmarks.case import Case, Setting
from benchmarks.load import Figures
from benchmarks.logs import filled
from benchmarks.names import OURS, RAW
from benchmarks.raw import tables
from benchmarks.raw.driver import Driver

SMALL = 10_000
TIMES = 300
FIRST_NEW = 10_000_000
PAGES = (apsw.SQLITE_DBSTATUS_CACHE_HIT, apsw.SQLITE_DBSTATUS_CACHE_MISS, apsw.SQLITE_DBSTATUS_CACHE_WRITE)


class Counter:
    """Counts the statements and pages of every apsw connection that is opened while it is there."""

    def __init__(self) -> None:
        self.statements = 0
        self._connections: list[apsw.Connection] = []

    def __enter__(self) -> Counter:
        apsw.connection_hooks.append(self._opened)
        return self

    def __exit__(self, *_: object) -> None:
        apsw.connection_hooks.remove(self._opened)

    def _opened(self, connection: apsw.Connection) -> None:
        self._connections.append(connection)
        connection.trace_v2(apsw.SQLITE_TRACE_STMT, self._ran)

    def _ran(self, _: dict[str, Any]) -> None:
        self.statements += 1

    def read(self) -> tuple[int, int, int]:
        """Statements, pages looked at and pages written so far, of what is still open."""
        looked = written = 0
        for connection in self._connections:
            with suppress(apsw.ConnectionClosedError):
                hits, misses, writes = (connection.status(one)[0] for one in PAGES)
                looked += hits + misses
                written += writes
        return self.statements, looked, written


def growth(setting: Setting) -> Iterator[Case]:
    sizes = (SMALL, setting.events)
    with setting.fresh() as folder:
        files: dict[tuple[str, int], Path] = {}
        for subject in (OURS, RAW):
            for size in sizes:
                files[subject, size] = folder / f"{subject.replace(' ', '-')}-{size}.db"
                shutil.copy(filled(setting, subject, size), files[subject, size])
        numbers = count(FIRST_NEW, 10_000)
        measured: dict[str, Callable[[], Figures]] = {
            OURS: partial(_growth, _ours, files[OURS, SMALL], files[OURS, setting.events], numbers),
            RAW: partial(_growth, _raw, files[RAW, SMALL], files[RAW, setting.events], numbers),
        }
        yield Case("W7", f"from {SMALL:,} to {setting.events:,} events", measured, limit=RAW)


def _growth(measure: Callable[[Path, int], Figures], small: Path, large: Path, numbers: count[int]) -> Figures:
    before, after = measure(small, next(numbers)), measure(large, next(numbers))
    return {f"growth of {what}": after[what] / before[what] for what in before}


def _ours(path: Path, first: int) -> Figures:
    return asyncio.run(_ours_async(path, first))


async def _ours_async(path: Path, first: int) -> Figures:
    with Counter() as counter:
        database = await ours.opened(path)
        await ours.commit(database, [ours.new_order(first + TIMES, 1)])
        start, begun = counter.read(), time.perf_counter()
        for number in range(first, first + TIMES):
            await ours.commit(database, [ours.new_order(number, 1)])
        middle, appended = counter.read(), time.perf_counter()
        for number in _old(path):
            assert len(await database.read_stream(ours.stream(number), 0, 100)) == 10
        end, loaded = counter.read(), time.perf_counter()
        await database.close()
    return _figures(start, middle, end, appended - begun, loaded - appended)


def _raw(path: Path, first: int) -> Figures:
    with Counter() as counter:
        driver = Driver(path)
        driver.commit([tables.event_row(first + TIMES, 1)])
        start, begun = counter.read(), time.perf_counter()
        for number in range(first, first + TIMES):
            driver.commit([tables.event_row(number, 1)])
        middle, appended = counter.read(), time.perf_counter()
        for number in _old(path):
            assert len(driver.history(tables.stream(number))) == 10
        end, loaded = counter.read(), time.perf_counter()
        driver.close()
    return _figures(start, middle, end, appended - begun, loaded - appended)


def _old(path: Path) -> list[int]:
    """Orders spread over the log."""
    orders = int(path.stem.rpartition("-")[2]) // 10
    return [number * orders // TIMES for number in range(TIMES)]


def _figures(start: Any, middle: Any, end: Any, append_seconds: float, load_seconds: float) -> Figures:
    found: Figures = {}
    for what, one, other, seconds in (("append", start, middle, append_seconds), ("load", middle, end, load_seconds)):
        statements, looked, written = (after - before for before, after in zip(one, other, strict=True))
        found |= {f"statements, {what}": statements / TIMES, f"pages read, {what}": looked / TIMES}
        if what == "append":
            found["pages written, append"] = written / TIMES
        found[f"time, {what}"] = seconds
    return found
