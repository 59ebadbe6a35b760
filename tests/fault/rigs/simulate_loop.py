"""A loop that draws from a seed which task runs next, whose time leaps when nobody is ready; and the clocks of processes on it."""

from __future__ import annotations

import asyncio
import heapq
import random
from collections.abc import Callable
from contextvars import Context
from typing import Any

from headwater.clock import uuid7
from headwater.testing.clock import START

TURN = 20e-6
"""What a turn of the loop takes, in virtual seconds."""


class SeededLoop(asyncio.BaseEventLoop):
    """Runs one ready callback a turn, drawn from `chance`: the same seed gives the same order of everything."""

    def __init__(self, chance: random.Random) -> None:
        super().__init__()
        self._draw = chance.random
        self._now = 0.0
        self._ready: list[asyncio.Handle] = []
        self._later: list[tuple[float, int, asyncio.TimerHandle]] = []
        self._timers = 0
        self.set_exception_handler(lambda *_: None)  # what a killed process left behind is nobody's concern

    def time(self) -> float:
        """Virtual seconds since the start."""
        return self._now

    def call_soon(self, callback: Callable[..., object], *args: Any, context: Context | None = None) -> asyncio.Handle:
        """Run it in one of the next turns."""
        handle = asyncio.Handle(callback, args, self, context)
        self._ready.append(handle)
        return handle

    call_soon_threadsafe = call_soon

    def call_at(
        self, when: float, callback: Callable[..., object], *args: Any, context: Context | None = None
    ) -> asyncio.TimerHandle:
        """Run it at a virtual time."""
        timer = asyncio.TimerHandle(when, callback, args, self, context)
        self._timers += 1
        heapq.heappush(self._later, (when, self._timers, timer))
        return timer

    def run_in_executor(self, executor: Any, func: Callable[..., Any], *args: Any) -> asyncio.Future[Any]:
        """What would run in a thread takes a turn."""
        future = self.create_future()
        self.call_soon(_settle, future, func, args)
        return future

    def _run_once(self) -> None:
        """One turn, in place of the round of all ready callbacks that asyncio makes."""
        self._now += TURN
        ready, later = self._ready, self._later
        if not ready and later:
            self._now = max(self._now, later[0][0])
        while later and later[0][0] <= self._now:
            ready.append(heapq.heappop(later)[2])
        if not ready:
            raise RuntimeError("nobody is ready and nobody sleeps: all wait for one another")
        index = int(self._draw() * len(ready))
        handle = ready[index]
        ready[index] = ready[-1]
        ready.pop()
        if not handle.cancelled():
            handle._run()


def _settle(future: asyncio.Future[Any], function: Callable[..., Any], arguments: tuple[Any, ...]) -> None:
    try:
        future.set_result(function(*arguments))
    except Exception as error:  # noqa: BLE001 - it is raised where the result is awaited
        future.set_exception(error)


class Machine:
    """What the processes of one machine share: a wall clock that somebody may set."""

    def __init__(self) -> None:
        self.ahead = 0.0


class MachineClock:
    """The clock of one process. Its wall clock goes by the machine; one that was stopped sleeps until it goes on."""

    def __init__(self, loop: SeededLoop, machine: Machine, chance: random.Random) -> None:
        self.machine = machine
        self.stopped_until = 0.0
        self._loop = loop
        self._chance = chance
        self._last_id = 0

    def now(self) -> int:
        """The wall clock, in microseconds since 1970."""
        return START + int((self._loop.time() + self.machine.ahead) * 1_000_000)

    def monotonic(self) -> float:
        """Virtual seconds since the start."""
        return self._loop.time()

    def random(self) -> float:
        """The next number from 0 to below 1."""
        return self._chance.random()

    def new_id(self) -> str:
        """The next UUIDv7."""
        self._last_id = max(self._last_id + 1, self.now())
        return uuid7(self._last_id, self._chance.getrandbits(62))

    async def sleep(self, seconds: float) -> None:
        """Wait so many virtual seconds, and as long as the process is stopped."""
        await asyncio.sleep(seconds)
        await self.gate()

    async def gate(self) -> None:
        """Wait while the process is stopped."""
        while (left := self.stopped_until - self._loop.time()) > 0:
            await asyncio.sleep(left)
