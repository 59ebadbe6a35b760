"""Closed loops of writers: each sends its next operation when the last one is answered."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Awaitable, Callable, Sequence

Figures = dict[str, float]
"""The figures of one measurement, by unit."""

WARM_UP = 0.2
"""The share of the time before anything counts."""


class Clockwork:
    """When writers begin to count and when they stop, and what they counted."""

    def __init__(self, seconds: float) -> None:
        self.begun = time.perf_counter() + seconds * WARM_UP
        self.end = self.begun + seconds
        self.last = self.begun
        self.took: list[float] = []
        self.cpu = 0.0

    def count(self, started: float, ended: float) -> None:
        if started >= self.begun:
            self.took.append(ended - started)
            self.last = max(self.last, ended)

    def figures(self, unit: str, each: int = 1) -> Figures:
        """Operations a second, latencies and our CPU, of what was counted; `each` is how much one operation does."""
        if not self.took:
            return {f"{unit}/s": 0.0}
        took = sorted(self.took)
        one = unit.removesuffix("s")
        return {
            f"{unit}/s": len(took) * each / (self.last - self.begun),
            "ms p50": quantile(took, 0.5) * 1e3,
            "ms p99": quantile(took, 0.99) * 1e3,
            f"µs CPU a {one}": self.cpu / (len(took) * each) * 1e6,
        }


def quantile(ordered: Sequence[float], share: float) -> float:
    """The value below which this share lies."""
    return ordered[min(int(len(ordered) * share), len(ordered) - 1)]


async def tasks(writers: int, seconds: float, operation: Callable[[], Awaitable[object]]) -> Clockwork:
    """Writers that are tasks of this loop."""
    clockwork = Clockwork(seconds)

    async def write() -> None:
        while (started := time.perf_counter()) < clockwork.end:
            await operation()
            clockwork.count(started, time.perf_counter())

    async with asyncio.TaskGroup() as group:
        running = [group.create_task(write()) for _ in range(writers)]
        await asyncio.sleep(clockwork.begun - time.perf_counter())
        before = time.process_time()
        await asyncio.wait(running)
        clockwork.cpu = time.process_time() - before
    return clockwork


def threads(writers: int, seconds: float, operation: Callable[[], object]) -> Clockwork:
    """Writers that are threads."""
    clockwork = Clockwork(seconds)
    failures: list[BaseException] = []

    def write() -> None:
        try:
            while (started := time.perf_counter()) < clockwork.end:
                operation()
                clockwork.count(started, time.perf_counter())
        except BaseException as error:
            failures.append(error)
            raise

    running = [threading.Thread(target=write) for _ in range(writers)]
    for thread in running:
        thread.start()
    time.sleep(max(clockwork.begun - time.perf_counter(), 0))
    before = time.process_time()
    for thread in running:
        thread.join()
    clockwork.cpu = time.process_time() - before
    if failures:
        raise failures[0]
    return clockwork
