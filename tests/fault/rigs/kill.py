"""`kill`: the processes of two services, and of who uses them, are killed at fault points and started anew.

A world is a bank, two members of a vault, and a desk that sends commands and sees after what is dead or in doubt: real
processes over real files, forked from one that is warm and has opened nothing. A trial is a kill at a fault point. When each
point had its kill, the weather is calm, the world comes to rest, and a ledger looks at its files.
"""

from __future__ import annotations

import os
import random
import shutil
import signal
import tempfile
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, nullcontext
from functools import partial
from pathlib import Path

from headwater import fault
from tests.fault.rigs.ground import on_server
from tests.fault.rigs.kill_desk import Acknowledged
from tests.fault.rigs.kill_ledger import Ledger
from tests.fault.rigs.kill_member import AWAY, OUTDATED, Life
from tests.fault.rigs.kill_outside import Weather
from tests.fault.rigs.kill_plan import LULL, MIGRATION, NARROW, WIDE, Plan
from tests.fault.rigs.kill_process import LOOK, Process
from tests.fault.rigs.kill_services import Place
from tests.fault.rigs.trial import TrialResult, isolated
from tests.servers.postgres import PostgresServer

COUNT = 200
STORES = True
LONGEST = 20.0
"""Seconds after which a world comes to rest, whether or not all points had their kill."""
PATIENCE = 0.8
"""Seconds in which a process should come to its point."""
SLOWER = 2.5
"""So many times as long all of it takes on a server."""
TOGETHER = 0.1
"""How often all that runs dies with one of them."""
SELDOM = ("lease.renew", "repair.")
"""Points that are waited for twice as long."""
REST = 40.0
STOPS = 15.0
ROLES = ("bank-1", "vault-1", "vault-2", "desk-1")
POINTS = tuple(name for name in fault.POINTS if not name.startswith("postgres."))
ELSEWHERE = ("sqlite.", "lease.renewing", "lease.releasing", "channel.publishing", "channel.joining")
ELSEWHERE += ("channel.settling", "channel.trimming")
"""Points that only SQLite has."""
SERVER_POINTS = tuple(name for name in fault.POINTS if not name.startswith(ELSEWHERE))
SERVER_LIVES = 6.0
"""Seconds after which a server that is ours is killed, too, and started again."""


def one_trial(seed: int, store: str = "") -> TrialResult:
    """One world, in files or on a server, in a process of its own."""
    return isolated(partial(world, points=SERVER_POINTS if store else POINTS, store=store), seed)


def world(seed: int, points: Sequence[str] = POINTS, rest: float = REST, store: str = "") -> TrialResult:
    """A world with a kill at each of these points, and `rest` seconds to come to rest.

    What is patched in this process is so in all that it forks.
    """
    memory = Path("/dev/shm")
    place = Path(tempfile.mkdtemp(prefix="headwater-kill-", dir=memory if os.access(memory, os.W_OK) else None))
    try:
        with on_server(place, store, ("bank", "vault", "channel")) if store else nullcontext() as server:
            return World(Place(place), seed, points, server).run(rest)
    finally:
        shutil.rmtree(place)


class World:
    """The processes of a world, who kills them, and what was seen."""

    def __init__(self, place: Place, seed: int, points: Sequence[str], server: PostgresServer | None = None) -> None:
        self.place = place
        self.server = server
        self.slower = SLOWER if place.on_server else 1.0
        self.server_kills = 0
        self.seed = seed
        self.chance = random.Random(seed)
        self.plan = Plan(self.chance, points)
        self.batch = self.chance.choice((5, 50, 500))
        self.processes = [Process(role, place.folder) for role in ROLES]
        self.version = 0
        self.kills: Counter[str] = Counter(dict.fromkeys(points, 0))
        self.fallen: list[str] = []
        self.parent = self.holding = 0

    def run(self, rest: float) -> TrialResult:
        """Kill, let it come to rest, and look."""
        with self._tied():
            self._kill()
            found = self.fallen or self._rest(rest)
        kills = self.kills.total()
        if self.fallen:
            return TrialResult(True, found, kills)
        ledger, known = Ledger(self.place.folder), Acknowledged(self.place)
        found += ledger.violations(known.numbers("+"), known.numbers("-"), self.place.outside.happened())
        found += known.complaints()
        messages = sum(ledger.count(service, "events") for service in ("bank", "vault"))
        facts = {"most messages in a world": messages}
        if self.server is not None:
            facts["most kills of a server"] = self.server_kills
        return TrialResult(kills > 0, found, kills, facts, self.kills)

    @contextmanager
    def _tied(self) -> Iterator[None]:
        """Whatever happens, no process outlives this one: each ends when this pipe is closed."""
        self.parent, self.holding = os.pipe()
        try:
            yield
        finally:
            for one in self.processes:
                one.kill()
            os.close(self.holding)
            os.close(self.parent)

    # --- killing ---

    def _kill(self) -> None:
        end = time.monotonic() + LONGEST * self.slower
        due = time.monotonic() + SERVER_LIVES
        for one in self.processes:
            self._begin(one)
        while not (self.fallen or self._all_killed()) and time.monotonic() < end:
            if self.server is not None and time.monotonic() > due:
                self._kill_server(self.server)
                due = time.monotonic() + SERVER_LIVES
            for one in self.processes:
                self._see(one)
            time.sleep(LOOK)

    def _kill_server(self, server: PostgresServer) -> None:
        server.kill()
        self.server_kills += 1
        time.sleep(self.chance.uniform(0.0, LULL))
        server.restart()

    def _all_killed(self) -> bool:
        return self.plan.done and all(one.aim is None for one in self.processes)

    def _see(self, one: Process) -> None:
        """Start a process that has died anew; turn one that does not come to its point in time to another."""
        if (code := one.ended()) is not None:
            self._account(one, code)
            if self.chance.random() < TOGETHER:
                self._kill_others(one)
            self._begin(one)
        elif one.aim is None:
            self._renew(one)
        elif not one.told and one.set_trap() > PATIENCE * self.slower * (2 if one.aim.name.startswith(SELDOM) else 1):
            missed = one.aim.name
            one.turn_to(self.plan.next(one.service))
            self.plan.missed(missed)

    def _kill_others(self, one: Process) -> None:
        for other in self.processes:
            if other is not one:
                other.kill()
                self._account(other, -signal.SIGKILL)
                self._begin(other)

    def _renew(self, one: Process) -> None:
        """Find a point for a process that has none, in a new life if need be."""
        one.turn_to(self.plan.next(one.service))
        if one.aim is None and self.plan.waits(one.service):
            one.kill()
            self._begin(one)

    def _account(self, one: Process, code: int) -> None:
        """Count a death at a point; what ends without having been told to has broken down."""
        if code == -signal.SIGKILL and one.trap.sprung:
            self.kills[one.trap.sprung] += 1
            return
        if one.aim is not None:
            self.plan.missed(one.aim.name)
        started_anew = (OUTDATED, *([AWAY] if self.server_kills else []))
        if code not in (-signal.SIGKILL, *((0, -signal.SIGTERM) if one.told else started_anew)):
            self.fallen.append(one.broken(code))

    # --- lives ---

    def _begin(self, one: Process) -> None:
        """Fork a process into its next life, aimed at its next point."""
        one.turn_to(self.plan.first(one.service, one.trap.sprung))
        name = one.aim.name if one.aim is not None else ""
        self.version += name.startswith(MIGRATION)
        self._fork(one, calm=False, narrow=name in NARROW or (name not in WIDE and one.lives % 2 == 1))

    def _fork(self, one: Process, *, calm: bool, narrow: bool) -> None:
        one.lives += 1
        weather = Weather(f"{self.seed} {one.role} {one.lives}", calm)
        life = Life(one.role, self.place, weather, one.trap, self.version, self.batch, narrow, self.parent, self.seed)
        one.fork(life, self.holding)

    def _rest(self, patience: float) -> list[str]:
        """Start everything anew in calm weather, wait until the desk sees nothing left to do, and stop the services."""
        for one in self.processes:
            one.kill()
            one.turn_to(None)
            self._fork(one, calm=True, narrow=False)
        *services, desk = self.processes
        found = desk.wait(patience)
        for one in services:
            one.stop()
        return found + [line for one in services for line in one.wait(STOPS)]
