"""`pause`: a process that holds leases is stopped for longer than they live, others take over, and it is let go on.

Two members of each of two services run under load. A trial is one pause in which a lease of the stopped process was taken
over; in the end the ledger must be exact, and the channel must have each message once and in order: a relay whose epoch is
over has published nothing.
"""

from __future__ import annotations

import asyncio
import fcntl
import os
import random
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from pathlib import Path

import apsw

from headwater import App, HeadwaterError
from tests.fault.rigs.ground import on_server
from tests.fault.rigs.pair import Book, Pair
from tests.fault.rigs.trial import TrialResult

COUNT = 50
STORES = True
PAUSES = 5
TTL = 0.8
KEYS = 40
PAUSE = 0.005
SETTLED = 40.0
SERVICES = ("desk", "mirror")
ROOT = Path(__file__).parents[3]


def one_trial(seed: int, store: str = "") -> TrialResult:
    """Run the services, in files or on a server, and pause members of them some times."""
    return pauses(seed, PAUSES, store)


def pauses(seed: int, count: int, store: str = "") -> TrialResult:
    """Run the services and pause members so many times."""
    with tempfile.TemporaryDirectory(prefix="headwater-pause-") as place:
        folder = Path(place)
        with on_server(folder, store, (*SERVICES, "channel")) if store else nullcontext():
            return asyncio.run(Scene(folder, random.Random(seed)).play(count))


class Scene:
    """The processes, the one who sends commands, and what was seen."""

    def __init__(self, folder: Path, chance: random.Random) -> None:
        self.pair = Pair(folder)
        self.chance = chance
        self.members: dict[str, subprocess.Popen[bytes]] = {}
        self.acknowledged: list[int] = []
        self.sending = True
        self.flowed: dict[str, list[int]] = {"desk": [], "mirror": []}
        self.locked = 0

    async def play(self, count: int) -> TrialResult:
        """Start, pause, let go on, come to rest, and look."""
        with self._processes():
            async with self.pair.desk().client() as app:
                sender = asyncio.create_task(self._send(app))
                try:
                    await asyncio.sleep(0.3)
                    taken_over = sum([await self._pause() for _ in range(count)])
                    self.sending = False
                    await sender
                finally:
                    sender.cancel()
                await self._settle()
            fallen = [
                f"{name} ended with {one.returncode}" for name, one in self.members.items() if one.poll() is not None
            ]
        violations = fallen + self.pair.ledger(self.acknowledged) + self.pair.republished()
        return TrialResult(taken_over > 0, violations, taken_over, self._facts())

    def _facts(self) -> dict[str, float]:
        """Figures: how often the stopped one had the write lock of a file, and what was mirrored when it had none."""
        most = {f"most mirrored while a {one} is stopped": max(found, default=0) for one, found in self.flowed.items()}
        return {"stopped while writing": self.locked, "booked": len(self.acknowledged), **most}

    @contextmanager
    def _processes(self) -> Iterator[None]:
        quiet, end_of_quiet = os.pipe()
        try:
            for service in SERVICES:
                for number in (1, 2):
                    self._start(service, f"{service}-{number}", quiet)
            yield
        finally:
            for process in self.members.values():
                process.kill()
                process.wait()
                if process.stdout is not None:
                    process.stdout.close()
            os.close(end_of_quiet)
            os.close(quiet)

    def _start(self, service: str, member: str, quiet: int) -> None:
        words = [
            sys.executable,
            "-m",
            "tests.fault.rigs.pause_member",
            service,
            str(self.pair.folder),
            str(TTL),
            member,
        ]
        with (self.pair.folder / f"{member}.log").open("wb") as log:
            started = subprocess.Popen(words, cwd=ROOT, stdin=quiet, stdout=subprocess.PIPE, stderr=log)
        self.members[member] = started
        assert started.stdout is not None
        if started.stdout.readline() != b"ready\n":
            raise AssertionError((self.pair.folder / f"{member}.log").read_text()[-500:])

    async def _send(self, app: App) -> None:
        number = 0
        while self.sending:
            number += 1
            try:
                await app.send(Book(f"k{number % KEYS}", number), key=f"book-{number}")
            except HeadwaterError as error:
                raise AssertionError(f"command {number} was answered {error}") from error
            self.acknowledged.append(number)
            await asyncio.sleep(PAUSE)

    async def _pause(self) -> bool:
        """Stop one member for longer than its leases live; whether one of them was taken over."""
        name = self._victim()
        service = name.partition("-")[0]
        self.members[name].send_signal(signal.SIGSTOP)
        before = self._leases(service)
        mirrored = self._mirrored()
        try:
            await asyncio.sleep(TTL * self.chance.uniform(2.0, 3.5))
            after = self._leases(service)
            if self._blocks():
                self.locked += 1
            else:
                self.flowed[service].append(self._mirrored() - mirrored)
        finally:
            self.members[name].send_signal(signal.SIGCONT)
        await asyncio.sleep(self.chance.uniform(0.3, 1.5))
        return any(owner == name and after[lease] != (owner, epoch) for lease, (owner, epoch) in before.items())

    def _victim(self) -> str:
        """Mostly the one who has the leases, sometimes anybody."""
        if self.chance.random() < 0.15:
            return self.chance.choice(sorted(self.members))
        owners = Counter(
            owner for owner, _ in self._leases(self.chance.choice(SERVICES)).values() if owner in self.members
        )
        return owners.most_common(1)[0][0] if owners else self.chance.choice(sorted(self.members))

    def _blocks(self) -> bool:
        """Whether the stopped process has the write lock of a file, so that everybody waits for it."""
        for lock in self.pair.folder.glob("*.db.lock"):
            descriptor = os.open(lock, os.O_RDWR)
            try:
                if not any(_free(descriptor) for _ in range(10)):
                    return True
            finally:
                os.close(descriptor)
        return False

    def _leases(self, service: str) -> dict[str, tuple[str, int]]:
        return {
            name: (owner, epoch)
            for name, owner, epoch in self.pair.rows(service, "SELECT name, owner, epoch FROM leases")
        }

    def _mirrored(self) -> int:
        return int(self.pair.rows("mirror", "SELECT count(*) FROM journal")[0][0])

    async def _settle(self) -> None:
        end = time.monotonic() + SETTLED
        while time.monotonic() < end:
            try:
                if not self.pair.behind():
                    break
            except apsw.BusyError:
                pass
            await asyncio.sleep(0.1)
        await asyncio.sleep(TTL)  # what is stale would write now


def _free(descriptor: int) -> bool:
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        time.sleep(0.01)
        return False
    return True
