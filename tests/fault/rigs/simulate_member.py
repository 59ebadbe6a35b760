"""A process of a simulated service: it starts, runs all its flows, may be stopped, and dies at any moment."""

from __future__ import annotations

import random
from collections.abc import Callable
from contextvars import ContextVar
from dataclasses import dataclass, field
from typing import Any

from headwater.adapters.memory import MemoryBroker, MemoryFile
from headwater.app.runner import Runner
from headwater.app.wiring import Wiring, WiringOptions, wire
from headwater.channel import Publication
from headwater.errors import HeadwaterError, Rejected, Unknown
from headwater.message import Metadata
from headwater.retry import Retry
from headwater.store import Committed
from tests.fault.rigs.simulate_faults import Faults, FaultyChannel, FaultyDatabase, Killed
from tests.fault.rigs.simulate_loop import Machine, MachineClock, SeededLoop
from tests.fault.rigs.simulate_safety import Safety
from tests.fault.rigs.simulate_trace import Trace
from tests.fault.rigs.simulate_world import Send, declared, mail

here: ContextVar[Process | None] = ContextVar("here", default=None)
"""The process that runs what runs now."""


@dataclass
class Scene:
    """What all processes of a universe share."""

    loop: SeededLoop
    trace: Trace
    faults: Faults
    broker: MemoryBroker
    mail: Send
    retry: Retry
    fallen: Callable[[Process], None]
    lost: dict[str, Publication] = field(default_factory=dict)


@dataclass
class Seat:
    """Where a member of a service runs: what is left there when one process has died, and what the next finds."""

    service: str
    name: str
    scene: Scene
    file: MemoryFile
    safety: Safety
    chance: random.Random
    machine: Machine = field(default_factory=Machine)


class Process:
    """One life of a member of a service."""

    def __init__(self, seat: Seat) -> None:
        scene = seat.scene
        self.seat = seat
        self.name = seat.name
        self.clock = MachineClock(scene.loop, seat.machine, seat.chance)
        self.alive = True
        self.database = FaultyDatabase(self, seat.file, scene.faults, seat.safety)
        self._channel = FaultyChannel(self, scene.broker, scene.faults, seat.safety, scene.lost)
        self._wiring: Wiring | None = None
        self._runner: Runner | None = None

    async def live(self) -> None:
        """Open the database and the channel, and run everything."""
        here.set(self)
        mail.set(self.seat.scene.mail)
        try:
            await self._start()
        except (Killed, HeadwaterError):
            self.die("falls as it starts")

    async def _start(self) -> None:
        seat = self.seat
        for opening in (self.database.open, self._channel.open):
            if not self.alive:
                raise Killed
            await opening()
        seat.scene.trace.note(self.name, "starts")
        options = WiringOptions("beginning", seat.scene.retry, seat.chance.choice((1, 2, 5, 100)), journal=True)
        self._wiring = await wire(declared(seat.service), self.database, self._channel, self.clock, options)
        seat.safety.plans = {plan.consumer.name: plan for plan in self._wiring.plans}
        self._runner = Runner(self._wiring, self.name)
        await self._runner.start()

    async def stop(self) -> None:
        """End in good order, as for a new version."""
        here.set(self)
        self.seat.scene.trace.note(self.name, "stops")
        try:
            if self._runner is not None:
                await self._runner.stop()
        except (Killed, HeadwaterError):
            pass
        finally:
            self.die("has stopped")

    def die(self, why: str) -> None:
        """Nothing is finished or given back."""
        if self.alive:
            self.alive = False
            self.seat.scene.trace.note(self.name, f"dies: {why}")
            self.database.crash()
            self._channel.crash()
            if self._runner is not None:
                self._runner._stopping.set()
                for task in self._runner._tasks:
                    task.cancel()
            self.seat.scene.fallen(self)

    @property
    def stopped(self) -> bool:
        """Whether it stands still."""
        return self.alive and self.clock.stopped_until > self.clock.monotonic()

    def lose_partitions(self) -> None:
        """The broker has not heard of it for a while."""
        self._channel.expel()

    async def attempt(self, command: Any, key: str) -> Committed | Rejected | Unknown:
        """Decide a command here, for a caller."""
        if self._wiring is None or not self.alive:
            return Unknown(key, "nobody is there")
        here.set(self)
        try:
            return await self._wiring.handling.attempt(command, key, Metadata(key))
        finally:
            here.set(None)
