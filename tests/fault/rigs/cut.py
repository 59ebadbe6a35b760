"""`cut`: connections to PostgreSQL are cut after COMMIT was sent: before its answer comes, or as it comes.

Writers send sets with a key and without, and transactions; every other trial has sets that only append, at versions they name,
which take one trip. Every answer must be true: what is committed is there once, at the
position that was said; what failed is not there; what is unknown is settled by its key, or tried again under it. A trial is a
cut; `--store` has it on a server that is there already.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field

from headwater.adapters.postgres import PostgresDatabase
from headwater.clock import SystemClock
from headwater.database import Answer, Failed, WriteSet
from headwater.errors import DatabaseError, HeadwaterError, Unknown
from headwater.inbox import Mark
from headwater.message import JSON, Draft, Recorded
from headwater.store import ANY, Append, CommandKey, Committed
from tests.fault.rigs.on_server import fresh_database
from tests.fault.rigs.trial import TrialResult
from tests.servers.proxy import Cut, Proxy

COUNT = 2_000
STORES = True
CUTS = 250
WRITERS = 8
ONE_IN = 2
PATIENCE = 120.0
CONSUMER = "cut.reader"


def one_trial(seed: int, store: str = "", cuts: int = CUTS) -> TrialResult:
    """Cut so many connections, on a server that is started for it if none is given, and look."""
    with fresh_database(store) as url:
        scene = Scene(url, seed, cuts)
        with scene.proxy:
            return asyncio.run(scene.play())


@dataclass
class Ledger:
    """What was answered for each event, by its id: where it is, that it is not there, or that it may be."""

    there: dict[str, tuple[int, int]] = field(default_factory=dict)
    """The position and the version that were answered."""
    nowhere: set[str] = field(default_factory=set)
    unknown: set[str] = field(default_factory=set)

    def wrong(self, log: list[Recorded]) -> list[str]:
        """What of it is not true of the log, in words."""
        places = {one.id: (one.position, one.version) for one in log}
        claims = (
            ("doubled", {one.id for one in log if places[one.id] != (one.position, one.version)}),
            ("answered and lost", self.there.keys() - places.keys()),
            ("elsewhere than answered", {i for i, at in self.there.items() if places.get(i, at) != at}),
            ("answered as failed and there", self.nowhere & places.keys()),
            ("there and never answered", places.keys() - self.there.keys() - self.unknown),
        )
        return [f"{what}: {len(found)} events, as {sorted(found)[:5]}" for what, found in claims if found]


class Scene:
    """The proxy, the writers, and what they were answered."""

    def __init__(self, url: str, seed: int, cuts: int) -> None:
        self.url = url
        self.cuts = cuts
        self.chance = random.Random(seed)
        self.named = seed % 2 == 1
        self.fate = random.Random(f"fate {seed}")
        self.proxy = Proxy(url, self._fate)
        self.ledger = Ledger()
        self.marks: dict[str, Answer] = {}
        self.settled = 0
        self.open = False

    async def play(self) -> TrialResult:
        """Write through cuts until there were enough, and look at the log."""
        async with _opened(self.url) as direct:
            async with _opened(self.proxy.url) as database, asyncio.timeout(PATIENCE):
                self.open = True
                await asyncio.gather(*(self._write(database, number) for number in range(WRITERS)))
            marks = await direct.marks(CONSUMER, sorted(self.marks))
            found = self.ledger.wrong(await direct.read(0, 1_000_000)) + self._wrong(marks) + await direct.verify()
        facts = {
            "unknown, settled by key": self.settled,
            "unknown for good": len(self.ledger.unknown) + sum(isinstance(one, Unknown) for one in self.marks.values()),
            "committed": len(self.ledger.there),
        }
        return TrialResult(self.proxy.cuts > 0, found, self.proxy.cuts, facts)

    def _fate(self) -> Cut | None:
        wanted = self.open and self.proxy.cuts < self.cuts and self.fate.randrange(ONE_IN) == 0
        return self.fate.choice(list(Cut)) if wanted else None

    async def _write(self, database: PostgresDatabase, number: int) -> None:
        count = 0
        while self.proxy.cuts < self.cuts:
            count += 1
            ways = [self._with_key, self._with_key, self._without_key, self._in_transaction]
            ways += [] if self.named else [self._mark]
            await self.chance.choice(ways)(database, f"{number}-{count}")

    async def _with_key(self, database: PostgresDatabase, name: str) -> None:
        """Until it is committed, under the same key."""
        while True:
            (answer,) = await database.commit([self._appending(name, key=True)])
            if isinstance(answer, Committed):
                return self._is_there(name, answer.position, answer.version)
            if isinstance(answer, Unknown) and await self._settles(database, name):
                return None
            await asyncio.sleep(0.01)

    async def _without_key(self, database: PostgresDatabase, name: str) -> None:
        (answer,) = await database.commit([self._appending(name)])
        if isinstance(answer, Committed):
            self._is_there(name, answer.position, answer.version)
        else:
            (self.ledger.unknown if isinstance(answer, Unknown) else self.ledger.nowhere).add(name)

    async def _in_transaction(self, database: PostgresDatabase, name: str) -> None:
        answer: Answer | None = None
        try:
            async with database.transaction() as transaction:
                (answer,) = transaction.write([self._appending(name, key=True)])
        except Unknown:
            if not await self._settles(database, name):
                await self._with_key(database, name)
        except HeadwaterError:
            self.ledger.nowhere.add(name)
        else:
            assert isinstance(answer, Committed)
            self._is_there(name, answer.position, answer.version)

    async def _mark(self, database: PostgresDatabase, name: str) -> None:
        """A set without messages leaves no trace in the log."""
        (self.marks[name],) = await database.commit([WriteSet(marks=[Mark(CONSUMER, name, 1, 0)])])

    async def _settles(self, database: PostgresDatabase, name: str) -> bool:
        """Ask by the key what became of it."""
        with suppress(DatabaseError):
            settled = await database.settled("", name)
            if settled is not None:
                self.settled += 1
                self._is_there(name, settled.position, settled.version)
                return True
        return False

    def _appending(self, name: str, *, key: bool = False) -> WriteSet:
        """An event on its writer's stream, wherever that stands, or the first of one of its own."""
        draft = Draft("event", name, "cut.Written", 1, JSON, 0, b"{}", b"{}")
        stream, expect = (name, 0) if self.named else (name.partition("-")[0], ANY)
        append = Append(f"cut.Stream/{stream}", expect, [draft])
        return WriteSet([append], key=CommandKey("", name, b"h", 1) if key else None)

    def _is_there(self, name: str, position: int, version: int) -> None:
        self.ledger.there[name] = position, version

    def _wrong(self, marks: dict[str, int]) -> list[str]:
        lost = [name for name, one in self.marks.items() if isinstance(one, Committed) and name not in marks]
        there = [name for name, one in self.marks.items() if isinstance(one, Failed) and name in marks]
        found = {"marks are lost": lost, "marks were answered as failed and are there": there}
        return [f"{what}: {names[:5]}" for what, names in found.items() if names]


@asynccontextmanager
async def _opened(url: str) -> AsyncIterator[PostgresDatabase]:
    database = PostgresDatabase(url, SystemClock())
    await database.open()
    try:
        yield database
    finally:
        await database.close()
