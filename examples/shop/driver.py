"""Drives a run from its start to its end: starts the services, feeds them, kills some, and waits until all is done."""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import Sequence
from dataclasses import dataclass

from .feeder import client, feed
from .folder import Folder
from .messages import PlaceOrder
from .progress import Progress, Snapshot
from .routes import SERVICES
from .services import Services
from .topics import make_topics
from .view import Scene, View

LOOK = 0.5
STUCK = 5.0
FAILING = 20.0
QUIET = 150.0


@dataclass(frozen=True)
class Pace:
    """`rate`: orders a second; `kill_every`: seconds between kills; `deadline`: seconds until the run is given up."""

    rate: float | None = None
    kill_every: float | None = None
    deadline: float | None = None
    seed: int = 1

    def limit(self, orders: int) -> float:
        """Seconds that so many orders may take at most."""
        if self.deadline is not None:
            return self.deadline
        return 120 + orders / 100 + (orders / self.rate if self.rate else 0)


class Driver:
    """One run. `run` says what was missing when it was given up, and nothing when all was done."""

    def __init__(
        self, folder: Folder, services: Services, orders: Sequence[PlaceOrder], pace: Pace, view: View
    ) -> None:
        self.folder = folder
        self.services = services
        self.orders = orders
        self.pace = pace
        self.view = view
        self.progress = Progress(folder)
        self.notes: list[str] = []
        self._begun = time.monotonic()
        self._moved = time.time()
        self._last: Snapshot | None = None

    async def run(self) -> str:
        tasks: list[asyncio.Task[None]] = []
        try:
            self.progress.logs.make()
            await make_topics(self.folder)
            self.services.start_all()
            tasks.append(asyncio.create_task(self._feed(self.progress.placed())))
            if self.pace.kill_every is not None:
                tasks.append(asyncio.create_task(self._kill(self.pace.kill_every)))
            return await self._watch(tasks)
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
            self.progress.close()
            self.view.close()
            self.services.stop_all()

    async def _feed(self, placed: set[int]) -> None:
        """Place what is not in the log yet."""
        left = [order for order in self.orders if order.order_id not in placed]
        where = self.folder.environment("orders")
        async with client(where["HEADWATER_STORE"], where["HEADWATER_CHANNEL"]).client() as app:
            await feed(app, left, self.pace.rate)

    async def _kill(self, every: float) -> None:
        chance = random.Random(self.pace.seed)
        while True:
            await asyncio.sleep(every)
            service = chance.choice(SERVICES)
            self.services.kill(service)
            self.services.start(service)

    async def _watch(self, tasks: Sequence[asyncio.Task[None]]) -> str:
        """Look, show, and restart what fell, until all is done or the run is given up."""
        while True:
            now = self.progress.look()
            self._show(now)
            for task in tasks:
                if task.done():
                    task.result()
            if now.finished(len(self.orders)):
                return ""
            if why := self._hopeless(now):
                return f"{why}; {len(self.orders) - now.placed} orders are not placed, {now.open} are open"
            await asyncio.sleep(LOOK)
            if fallen := self.services.restart_fallen():
                self.notes += fallen
                self._moved = time.time()  # it may move on, or fall once too often

    def _show(self, now: Snapshot) -> None:
        if now != self._last:
            self._moved = time.time()
        self._last = now
        seconds = time.monotonic() - self._begun
        self.view.show(Scene(len(self.orders), seconds, now, self.services.up(), self.services.kills, self.notes))

    def _hopeless(self, now: Snapshot) -> str:
        """Why waiting is no use any more; empty while it is."""
        quiet = time.time() - self._moved
        if quiet > STUCK:
            complaints = self.services.complaints(self._moved - STUCK)
            said = [f"{service} says: {words}" for service, words in complaints.items()]
            self.notes += [note for note in said if note not in self.notes]
            if quiet > FAILING and complaints:
                return f"nothing moves, and {said[0]}"
            if now.stuck():
                return "some orders wait behind dead letters"
        if quiet > QUIET:
            return f"nothing has moved for {quiet:.0f} seconds"
        if time.monotonic() - self._begun > self.pace.limit(len(self.orders)):
            return f"not done within {self.pace.limit(len(self.orders)):.0f} seconds"
        return ""
