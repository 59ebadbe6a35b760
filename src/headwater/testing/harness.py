"""Several services in one process, in memory, under a virtual clock: do something, let the ripples end, then assert."""

from __future__ import annotations

from types import TracebackType

from headwater.app import App, Flow, open_channel, open_database
from headwater.channel import Channel
from headwater.database import Database
from headwater.inbox import Held, Reason
from headwater.testing.clock import VirtualClock

ROUNDS = 100_000


class Harness:
    """Runs apps in memory, one step after another, so that a test is the same each time.

        async with Harness(orders, payments) as world:
            await orders.send(PlaceOrder("o1"))
            await world.settle()
            await world.advance(minutes=15)
    """

    def __init__(self, *apps: App, seed: int = 0) -> None:
        self.apps = apps
        self.clock = VirtualClock(seed=seed)
        self.channel: Channel = open_channel("memory://", self.clock)
        self.databases: dict[str, Database] = {}
        self._flows: list[Flow] = []

    async def __aenter__(self) -> Harness:
        await self.channel.open()
        for app in self.apps:
            app.clock = self.clock
            database = self.databases[app.name] = open_database("memory://", self.clock)
            await database.open()
            wiring = await app.connect(database, self.channel)
            self._flows += [wired.flow for wired in await wiring.flows("harness", lambda _: lambda: None)]
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for app in self.apps:
            await app.wiring.leave()
            await app.stop()
        await self.channel.close()

    async def settle(self) -> None:
        """Run every flow until none has anything to do. Time stands still: what waits for later stays."""
        for _ in range(ROUNDS):
            if not any([await flow.step() for flow in self._flows]):
                return
        raise AssertionError(f"the services did not come to rest in {ROUNDS:,} rounds: do two answer each other for ever?")

    async def advance(self, *, seconds: float = 0, minutes: float = 0, hours: float = 0, days: float = 0) -> None:
        """Let time pass, then the ripples end."""
        await self.settle()
        self.clock.advance(seconds + 60 * (minutes + 60 * (hours + 24 * days)))
        await self.settle()

    async def held(self, app: App, *reasons: Reason) -> list[Held]:
        """What the consumers of an app hold, for the reasons given or any."""
        return await self.databases[app.name].held_list(None, reasons or list(Reason), 1000)
