"""A handler that only counts: how many messages a second, from the first one to the last."""

from __future__ import annotations

import asyncio
import time

from benchmarks.load import Figures

JOIN = 30.0
"""Seconds that the first message may take to come."""
LOOK = 0.02


class Counting:
    """Counts to a number, or as far as it gets within so many seconds."""

    def __init__(self, wanted: int, seconds: float) -> None:
        self.wanted = wanted
        self.seconds = seconds
        self.seen = 0
        self._begun = 0.0
        self._ended = 0.0
        self._cpu = 0.0

    def handle(self, _: object) -> None:
        """Count a message."""
        self.seen += 1
        if self.seen == 1:
            self._begun, self._cpu = time.perf_counter(), time.process_time()
        elif self.seen == self.wanted:
            self._end()

    def handle_many(self, messages: list[object]) -> None:
        """Count messages, one by one."""
        for one in messages:
            self.handle(one)

    @property
    def complete(self) -> bool:
        return self.seen >= self.wanted

    async def done(self) -> None:
        """Wait until it has counted."""
        limit = time.perf_counter() + JOIN
        while not self._ended:
            await asyncio.sleep(LOOK)
            now = time.perf_counter()
            if not self.seen and now > limit:
                raise SystemExit(f"bench: no message has come for {JOIN:g} s")
            if self.seen and now - self._begun > self.seconds and not self._ended:
                self._end()

    def _end(self) -> None:
        self._ended, self._cpu = time.perf_counter(), time.process_time() - self._cpu
        self._counted = self.seen

    def figures(self) -> Figures:
        elapsed = self._ended - self._begun
        return {"messages/s": self._counted / elapsed, "µs CPU a message": self._cpu / self._counted * 1e6}
