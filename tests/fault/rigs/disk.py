"""`disk`: the disk of two services fills up under load, by a file of another or by what they write themselves, and is freed.

Commands are then refused with DatabaseFull, nothing acknowledged is lost, and within 5 seconds of the disk being freed
commands are taken again and their effects arrive in the other service, without a restart.
"""

from __future__ import annotations

import asyncio
import logging
import random
import time
from collections.abc import Callable

from headwater import App, HeadwaterError
from headwater.errors import DatabaseFull
from tests.fault.rigs.disk_space import Space, small_disk
from tests.fault.rigs.pair import BOOKED, Book, Pair
from tests.fault.rigs.trial import TrialResult, isolated

COUNT = 20
SENDERS = 8
RESUMED = 5.0
SETTLED = 30.0
CLEAR = ("DatabaseFull", "ChannelError", "ChannelFull")


def one_trial(seed: int) -> TrialResult:
    """Fill and free one disk, in a process of its own."""
    return isolated(trial, seed)


def trial(seed: int) -> TrialResult:
    """Fill and free one disk."""
    with small_disk() as space:
        return asyncio.run(Scene(space, random.Random(seed)).play())


class Scene:
    """One disk, the services on it, and those who send commands."""

    def __init__(self, space: Space, chance: random.Random) -> None:
        self.pair = Pair(space.folder)
        self.space = space
        self.filler = chance.random() < 0.5 or not space.fills_up
        self.full_for = chance.choice((0.3, 1.5, 4.0, 8.0))
        self.text = 200 if self.filler else 20_000
        self.acknowledged: dict[int, float] = {}
        self.refused: list[str] = []
        self.unclear: list[str] = []
        self.over = asyncio.Event()
        self._number = 0

    async def play(self) -> TrialResult:
        """Load, fill, wait, free, and look."""
        listener = _Listener(self.unclear)
        logging.getLogger("headwater").addHandler(listener)
        desk, mirror = self.pair.desk(), self.pair.mirror()
        try:
            async with desk, mirror:
                senders = [asyncio.create_task(self._send(desk)) for _ in range(SENDERS)]
                await asyncio.sleep(0.3)
                await self._fill()
                freed = await self._free()
                facts = await self._resumed(freed)
                self.over.set()
                await asyncio.gather(*senders)
                await self._settle()
        finally:
            logging.getLogger("headwater").removeHandler(listener)
        violations = self.pair.ledger(self.acknowledged) + sorted(set(self.unclear))
        violations += [
            f"{what} only {seconds:.1f} s after the disk was free"
            for what, seconds in facts.items()
            if seconds > RESUMED
        ]
        return TrialResult(bool(self.refused), violations, 1, facts)

    async def _send(self, app: App) -> None:
        while not self.over.is_set():
            self._number += 1
            number = self._number
            book = Book(f"k{number % 20}", number, "x" * self.text)
            while not await self._attempt(app, book):
                await asyncio.sleep(0.05)
                if self.over.is_set():
                    return
            await asyncio.sleep(0.005)

    async def _attempt(self, app: App, book: Book) -> bool:
        try:
            await app.send(book, key=f"book-{book.number}")
        except DatabaseFull as error:
            self.refused.append(str(error))
            return False
        except HeadwaterError as error:
            self.unclear.append(f"a command was answered {type(error).__name__}: {error}"[:300])
            return False
        self.acknowledged[book.number] = time.monotonic()
        return True

    async def _fill(self) -> None:
        """Until a command is refused, at most 15 seconds."""
        end = time.monotonic() + 15
        while not self.refused and time.monotonic() < end:
            if self.filler:
                self.space.fill()
            await asyncio.sleep(0.05)
        await asyncio.sleep(self.full_for)

    async def _free(self) -> float:
        await asyncio.to_thread(self.space.free)
        self.text = 200
        return time.monotonic()

    async def _resumed(self, freed: float) -> dict[str, float]:
        """Seconds until a command was taken, and until what was booked by one has come to the mirror."""
        taken = await _until(lambda: any(at > freed for at in self.acknowledged.values()))
        first = min((one for one, at in self.acknowledged.items() if at > freed), default=0)
        [(stream, version)] = self.pair.rows(
            "desk", f"SELECT stream, version FROM events WHERE {BOOKED} AND data ->> 'number' = {first}"
        ) or [("", 0)]
        sql = (
            f"SELECT 1 FROM journal WHERE consumer = 'mirror.mirrored' AND stream = '{stream}' AND version = {version}"
        )
        await _until(lambda: bool(self.pair.rows("mirror", sql)))
        return {"taken": round(taken - freed, 2), "mirrored": round(time.monotonic() - freed, 2)}

    async def _settle(self) -> None:
        await _until(lambda: not self.pair.behind(), SETTLED)
        await asyncio.sleep(0.2)


async def _until(holds: Callable[[], bool], seconds: float = 20.0) -> float:
    """When it held, or after so many seconds."""
    end = time.monotonic() + seconds
    while not holds() and time.monotonic() < end:
        await asyncio.sleep(0.02)
    return time.monotonic()


class _Listener(logging.Handler):
    """Hears of errors of flows that do not say clearly what is the matter."""

    def __init__(self, unclear: list[str]) -> None:
        super().__init__()
        self.unclear = unclear

    def emit(self, record: logging.LogRecord) -> None:
        fields = getattr(record, "fields", {})
        if record.getMessage() == "flow.failed" and fields.get("error") not in CLEAR:
            self.unclear.append(
                f"{fields.get('flow')} failed with {fields.get('error')}: {fields.get('cause') or fields.get('where')}"
            )
