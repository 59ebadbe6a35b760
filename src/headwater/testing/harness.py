"""Several services in one process, in memory, under a virtual clock: do something, let the ripples end, then assert."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from types import TracebackType

from headwater.adapters.memory import MemoryChannel, MemoryDatabase
from headwater.app import App, Flow
from headwater.inbox import Held, Reason
from headwater.testing.clock import TURNS, VirtualClock

ROUNDS = 100_000
ALL = 100_000


class HarnessClock(VirtualClock):
    """Virtual time that goes on when somebody sleeps and there is nothing else to do, so that nobody sleeps for ever."""

    def __init__(self, work: Callable[[], Awaitable[bool]], seed: int) -> None:
        super().__init__(seed=seed)
        self._work = work

    async def sleep(self, seconds: float) -> None:
        """Let the services work; when they are at rest, move time to the earliest sleeper."""
        parked = asyncio.ensure_future(super().sleep(seconds))
        try:
            while not parked.done():
                before = self.now()
                await self._rest(parked)
                if not parked.done() and not await self._work() and self.now() == before:
                    self.advance(max(0, (self.next_due() or 0) - before) / 1_000_000)
        finally:
            parked.cancel()

    async def _rest(self, parked: asyncio.Future[None]) -> None:
        """Let others run, until they had time enough or the sleeper is awake."""
        for _ in range(TURNS):
            if not parked.done():
                await super().sleep(0)


class Harness:
    """Runs apps in memory, one step after another, so that a test is the same each time.

        async with Harness(orders, payments) as world:
            await orders.send(PlaceOrder("o1"))
            await world.settle()
            await world.advance(minutes=15)

    `databases` are theirs by name; what a test does with them, no service sees coming.
    """

    def __init__(self, *apps: App, seed: int = 0) -> None:
        self.apps = apps
        self.clock = HarnessClock(self._round, seed)
        self.channel = MemoryChannel(self.clock)
        self.databases: dict[str, MemoryDatabase] = {}
        self._flows: dict[str, list[Flow]] = {}
        self._working = False

    async def __aenter__(self) -> Harness:
        await self.channel.open()
        try:
            for app in self.apps:
                app.clock = self.clock
                await self._start(app, MemoryDatabase(self.clock))
        except BaseException:
            await self.__aexit__(None, None, None)
            raise
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for app in self.apps:
            await self._end(app)
        await self.channel.close()

    async def _start(self, app: App, database: MemoryDatabase) -> None:
        await database.open()
        self.databases[app.name] = database
        wiring = await app.connect(database, self.channel)
        self._flows[app.name] = []
        self._flows[app.name] = [wired.flow for wired in await wiring.flows("harness", lambda _: lambda: None)]

    async def _end(self, app: App) -> None:
        if self._flows.pop(app.name, None) is not None:
            await app.wiring.leave()
            await app.stop()

    async def restart(self, app: App) -> None:
        """As if its process had been killed and started again: what was in hand is gone, what is committed stays."""
        await self._end(app)
        await self._start(app, MemoryDatabase(self.clock, self.databases[app.name].file))

    async def replace_channel(self) -> None:
        """As if the broker had been wiped, and every service started again on the new one."""
        for app in self.apps:
            await self._end(app)
        await self.channel.close()
        self.channel = MemoryChannel(self.clock)
        await self.channel.open()
        for app in self.apps:
            await self._start(app, MemoryDatabase(self.clock, self.databases[app.name].file))

    async def settle(self) -> None:
        """Run every flow until none has anything to do. Time stands still: what waits for later stays."""
        for _ in range(ROUNDS):
            if not await self._round():
                return
        raise AssertionError(
            f"the services did not come to rest in {ROUNDS:,} rounds: do two answer each other for ever?"
        )

    async def _round(self) -> bool:
        """One step of every flow; whether one had anything to do. Within a step there is no other round."""
        if self._working:
            return False
        self._working = True
        try:
            return any([await flow.step() for flows in list(self._flows.values()) for flow in flows])
        finally:
            self._working = False

    async def advance(self, *, seconds: float = 0, minutes: float = 0, hours: float = 0, days: float = 0) -> None:
        """Let time pass, then the ripples end."""
        await self.settle()
        self.clock.advance(seconds + 60 * (minutes + 60 * (hours + 24 * days)))
        await self.settle()

    async def held(self, app: App, *reasons: Reason) -> list[Held]:
        """What the consumers of an app hold, for the reasons given or any."""
        return await self.databases[app.name].held_list(None, reasons or list(Reason), ALL)
