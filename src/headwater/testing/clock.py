"""A clock that stands still until it is advanced: the same seed gives the same times, ids and chances."""

from __future__ import annotations

import asyncio
import heapq
import random

from headwater.clock import uuid7

START = 1_767_225_600_000_000
"""2026-01-01T00:00:00Z in microseconds."""

TURNS = 25
"""Turns of the loop in which what a sleeper woke may settle before time goes on."""


class VirtualClock:
    """Time as a test wants it, from `start` (microseconds since 1970); sleepers park until time is advanced."""

    def __init__(self, start: int = START, seed: int = 0) -> None:
        self._start = self._now = start
        self._random = random.Random(seed)
        self._last_id = 0
        self._parked: list[tuple[int, int, asyncio.Future[None]]] = []
        self._order = 0

    def now(self) -> int:
        """The virtual time, in microseconds since 1970."""
        return self._now

    def monotonic(self) -> float:
        """Virtual seconds since the start."""
        return (self._now - self._start) / 1_000_000

    def random(self) -> float:
        """The next number from 0 to below 1."""
        return self._random.random()

    def new_id(self) -> str:
        """The next UUIDv7; ids sort in the order they were given."""
        self._last_id = max(self._last_id + 1, self._now)
        return uuid7(self._last_id, self._random.getrandbits(62))

    async def sleep(self, seconds: float) -> None:
        """Park until time has been advanced by so many seconds; 0 or less only lets others run."""
        if seconds <= 0:
            await asyncio.sleep(0)  # noqa: TID251 - a turn of the loop, not time
            return
        waiter: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._order += 1
        heapq.heappush(self._parked, (self._now + round(seconds * 1_000_000), self._order, waiter))
        await waiter

    def advance(self, seconds: float) -> None:
        """Move time forward in one step; whoever is due wakes at the new time, the earliest due first."""
        self._now += round(seconds * 1_000_000)
        self._wake()

    async def run_for(self, seconds: float) -> None:
        """Move time forward from sleeper to sleeper, each waking at its own time and running before time goes on."""
        end = self._now + round(seconds * 1_000_000)
        await self._settle()
        while (due := self.next_due()) is not None and due <= end:
            self._now = max(self._now, due)
            self._wake()
            await self._settle()
        self._now = end

    def next_due(self) -> int | None:
        """When the next sleeper wakes, in microseconds; None if nobody sleeps."""
        while self._parked and self._parked[0][2].done():  # cancelled while it slept
            heapq.heappop(self._parked)
        return self._parked[0][0] if self._parked else None

    def _wake(self) -> None:
        while (due := self.next_due()) is not None and due <= self._now:
            heapq.heappop(self._parked)[2].set_result(None)

    async def _settle(self) -> None:
        for _ in range(TURNS):
            await asyncio.sleep(0)  # noqa: TID251 - a turn of the loop, not time
