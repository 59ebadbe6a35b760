"""`simulate`: three services live through all faults at once, under a loop, a clock and chances that are drawn from a seed.

Safety is checked after each commit and each publish, by a model that knows nothing of the flows. In the end the faults
cease, and all that was begun must come to rest. A universe counts with at least fifty messages, and five faults that took
effect; that something was slow is none.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import Callable, Coroutine
from typing import Any
from unittest import mock

from headwater import fault
from headwater.adapters.memory import MemoryBroker, MemoryFile
from headwater.app import runner
from headwater.retry import Retry
from tests.fault.rigs.simulate_faults import Faults, Killed
from tests.fault.rigs.simulate_ledger import Ledger
from tests.fault.rigs.simulate_loop import SeededLoop
from tests.fault.rigs.simulate_member import Process, Scene, Seat, here
from tests.fault.rigs.simulate_people import People, Post
from tests.fault.rigs.simulate_safety import Safety
from tests.fault.rigs.simulate_trace import Trace
from tests.fault.rigs.simulate_world import SERVICES
from tests.fault.rigs.trial import TrialResult

COUNT = 20_000
CALLERS = 4
ATTEMPTS = (2, 10_000, 10_000)
"""In some universes a message that fails is soon a dead letter, which an operator redrives."""
FEWEST_FAULTS, FEWEST_MESSAGES = 5, 50
DOWN = (0.0, 0.0, 0.0, 0.1, 0.1, 1.0, 2.0, 12.0)
"""How long a seat may stay empty; sometimes for longer than leases live."""
PATIENCE = 300.0
"""Virtual seconds in which everything must come to rest once the faults have ceased."""
IDLE = {"IDLE": 2.0, "FOLLOW": 2.0}
"""A flow that waits is woken by news; how often it looks without is not what is simulated."""


def one_trial(seed: int) -> TrialResult:
    """Live through one universe."""
    return Universe(seed).play()


def replay(seed: int, say: Callable[[str], None]) -> TrialResult:
    """Live through it again and tell every step."""
    universe = Universe(seed, told=True)
    result = universe.play()
    for line in universe.trace.lines:
        say(line)
    return result


class Universe:
    """The services, those who call them, and what befalls them."""

    def __init__(self, seed: int, *, told: bool = False) -> None:
        self.chance = random.Random(f"{seed}/story")
        self.loop = SeededLoop(random.Random(f"{seed}/loop"))
        self.trace = Trace(self.loop.time, told=told)
        self.faults = Faults(random.Random(f"{seed}/faults"), self.trace)
        self.violations: list[str] = []
        self.files = {service: MemoryFile() for service in SERVICES}
        self.safeties = {service: Safety(service, self.files, self.violated) for service in SERVICES}
        self.post = Post(self.faults, self.violated)
        self.ledger = Ledger(self.files, self.safeties, self.post.sent, self.violated)
        retry = Retry(attempts=self.chance.choice(ATTEMPTS), base=0.05, cap=2.0)
        self.scene = Scene(self.loop, self.trace, self.faults, MemoryBroker(4), self.post.send, retry, self._fallen)
        self.processes = {seat.name: Process(seat) for service in SERVICES for seat in self._seats(service)}
        self.ended: asyncio.Future[None] = self.loop.create_future()
        self.lasted = 0.0
        self.tasks: set[asyncio.Task[None]] = set()

    def _seats(self, service: str) -> list[Seat]:
        """One or two members of a service."""
        safety = self.safeties[service]
        safety.news = self.ledger.recorded
        names = [f"{service}-{number}" for number in range(1, self.chance.choice((2, 2, 3)))]
        chances = [random.Random(self.chance.random()) for _ in names]
        return [
            Seat(service, name, self.scene, self.files[service], safety, chance)
            for name, chance in zip(names, chances, strict=True)
        ]

    def play(self) -> TrialResult:
        """Live through it, up to the first violation."""
        with (
            asyncio.Runner(loop_factory=lambda: self.loop) as loop,
            mock.patch.multiple(runner, **IDLE),
            mock.patch.object(fault, "point", self._point),
        ):
            loop.run(self._live())
        faults, messages = self.faults.grave, sum(len(file.log) for file in self.files.values())
        return TrialResult(
            faults >= FEWEST_FAULTS and messages >= FEWEST_MESSAGES,
            self.violations,
            facts={"messages": messages, "faults": faults, "virtual seconds": round(self.lasted, 6)},
        )

    def violated(self, what: str) -> None:
        """A promise is broken: the universe ends."""
        if not self.ended.done():
            self.violations.append(what)
            self.trace.note("", f"VIOLATION {what}")
            self.ended.set_result(None)

    async def _live(self) -> None:
        story = self.loop.create_task(self._story())
        await asyncio.wait({story, self.ended}, return_when=asyncio.FIRST_COMPLETED)
        self.lasted = self.loop.time()
        self.faults.on = self.trace.told = False
        if story.done():
            story.result()
        self.ended.cancel()
        for process in self.processes.values():
            process.die("the universe ends")

    async def _story(self) -> None:
        for process in self.processes.values():
            self._begin(process.live())
        people = People(self.chance, self.processes, self.ledger, self.post, self.faults)
        self._begin(people.operate())
        commands = iter(people.commands())
        calls = [self.loop.create_task(people.call(commands)) for _ in range(CALLERS)]
        fate = self.loop.create_task(self._fate())
        await asyncio.gather(*calls)
        await asyncio.sleep(self.chance.uniform(0, 3))
        fate.cancel()
        await self._come_to_rest()

    # --- what befalls them ---

    async def _fate(self) -> None:
        """From time to time a process is killed or replaced, or somebody sets a wall clock."""
        while True:
            await asyncio.sleep(self.chance.expovariate(1.0))
            process = self.chance.choice(list(self.processes.values()))
            what = self.chance.choice(("kill", "kill", "kill", "clock step", "clock step", "replace"))
            if what == "clock step":
                self._set_clock(process)
            elif process.alive and what == "kill":
                self.faults.hit("kill", process.name)
                process.die("kill")
            elif process.alive:
                self._begin(process.stop())

    def _point(self, name: str) -> None:
        """A fault point is met: the process may end here, and one that is dead goes no further."""
        process = here.get()
        if process is None:
            return
        if not process.alive:
            raise Killed
        if self.faults.strikes("crash at a point"):
            self.faults.kill("crash at a point", process, name)

    def _set_clock(self, process: Process) -> None:
        by = self.chance.uniform(-1, 1) * self.chance.choice((1, 5, 30))
        process.seat.machine.ahead += by
        self.faults.hit("clock step", process.name, f"{by:+.3f} s")

    def _fallen(self, process: Process) -> None:
        """A process has died; another takes its seat."""
        if not self.ended.done():
            self._begin(self._follow(process, self.chance.choice(DOWN if self.faults.on else DOWN[:1])))

    async def _follow(self, process: Process, after: float) -> None:
        await asyncio.sleep(after)
        following = self.processes[process.name] = Process(process.seat)
        await following.live()

    def _begin(self, task: Coroutine[Any, Any, None]) -> None:
        begun = self.loop.create_task(task)
        self.tasks.add(begun)
        begun.add_done_callback(self.tasks.discard)

    # --- in the end ---

    async def _come_to_rest(self) -> None:
        """The faults cease, the clocks are set right, what was lost at the end of a stream comes; then all must settle."""
        self.faults.on = False
        self.trace.note("", "the faults cease")
        for process in self.processes.values():
            process.seat.machine.ahead = 0.0
        await asyncio.sleep(max(one.clock.stopped_until for one in self.processes.values()) - self.loop.time())
        self.scene.broker.publish(self.scene.lost.values(), self.processes["orders-1"].clock.now())
        end = self.loop.time() + PATIENCE
        left = self.ledger.open_ends()
        while left and self.loop.time() < end:
            await asyncio.sleep(1.0)
            left = self.ledger.open_ends()
        if left:
            self.violated(f"{len(left)} things did not come to rest: {'; '.join(left[:3])}")
