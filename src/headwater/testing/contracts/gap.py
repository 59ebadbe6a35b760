"""Writers whose transactions end in another order than they began, and a look whether a reader missed something.

A reader follows the log while writers append to streams that they share: at once, or in transactions that take their time,
of which some are undone. What was answered must have been read once, each stream in its order.
"""

from __future__ import annotations

import asyncio
import random
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from typing import Final, Protocol

from msgspec import Struct, field

from headwater.database import Collision, Database, Failed, Transaction, WriteSet
from headwater.message import JSON, Draft, Recorded
from headwater.store import ANY, Append

WRITERS: Final = 12
STREAMS: Final = 40
MOST: Final = 40
"""Events of a transaction, at most."""
LONG: Final = 0.03
"""Seconds for which a writer keeps a transaction open, at most."""
UNDONE: Final = 0.1
PREPARED: Final = 0.1
PAGE: Final = 200
PATIENCE: Final = 0.05


class Log(Protocol):
    """What a reader follows: a database, or something in its place."""

    async def read(self, after: int, limit: int) -> list[Recorded]:
        """Messages above a position, so many at most."""
        ...

    async def changed(self, after: int, timeout: float) -> bool:
        """Wait until there is something above a position, but not for longer than `timeout` seconds."""
        ...


class TwoPhase(Protocol):
    """How a transaction is prepared on a server that knows prepared transactions: it then has no process any more."""

    def prepare(self, transaction: Transaction, name: str) -> None:
        """Prepare what was written in an open transaction; what comes after it in the block writes nothing."""
        ...

    async def end(self, name: str, *, commit: bool) -> None:
        """Commit or undo a prepared transaction."""
        ...


class Written(Struct):
    """The ids of the events that stand, and how many transactions were undone and prepared."""

    ids: list[str] = field(default_factory=list)
    undone: int = 0
    prepared: int = 0


class Undone(Exception):
    """Raised within a transaction that is to be undone, or has been prepared."""


class Writer:
    """Appends by chance, on one handle; `name` fixes what it does."""

    def __init__(self, database: Database, name: str, two_phase: TwoPhase | None = None) -> None:
        self.database = database
        self.written = Written()
        self._name = name
        self._two_phase = two_phase
        self._chance = random.Random(name)
        self._number = 0

    async def run(self, events: int) -> Written:
        """Write until so many events stand."""
        while len(self.written.ids) < events:
            ids = await (self._slowly() if self._chance.random() < 0.7 else self._at_once())
            self.written.ids += ids
            self.written.undone += not ids
        return self.written

    async def _at_once(self) -> list[str]:
        write = self._write(self._stream())
        (answer,) = await self.database.commit([write])
        return [] if isinstance(answer, Collision | Failed) else _ids(write)

    async def _slowly(self) -> list[str]:
        """First to a stream of its own, and a while later to one that it shares."""
        writes = [self._write(f"gap.Own/{self._name}"), self._write(self._stream())]
        fate, name = self._chance.random(), f"{self._name}-{self._number}"
        prepares = self._two_phase is not None and fate > 1 - PREPARED
        try:
            async with self.database.transaction() as transaction:
                for write in writes:
                    (answer,) = transaction.write([write])
                    if isinstance(answer, Collision | Failed):
                        raise Undone
                    await self._pause()
                if self._two_phase is not None and prepares:
                    self._two_phase.prepare(transaction, name)
                if prepares or fate < UNDONE:
                    raise Undone
        except Undone:
            if not prepares:
                return []
        if self._two_phase is not None and prepares:
            commit = self._chance.random() > UNDONE
            self.written.prepared += 1
            await self._pause()
            await self._two_phase.end(name, commit=commit)
            return [mark for write in writes for mark in _ids(write)] if commit else []
        return [mark for write in writes for mark in _ids(write)]

    def _stream(self) -> str:
        return f"gap.Shared/{self._chance.randrange(STREAMS)}"

    def _write(self, stream: str) -> WriteSet:
        drafts = [self._draft() for _ in range(self._chance.choice((1, 1, 2, MOST)))]
        return WriteSet([Append(stream, ANY, drafts)])

    def _draft(self) -> Draft:
        self._number += 1
        return Draft("event", f"{self._name}-{self._number}", "gap.Written", 1, JSON, 0, b"{}", b"{}")

    async def _pause(self) -> None:
        if self._chance.random() < 0.3:
            await asyncio.sleep(self._chance.random() * LONG)  # noqa: TID251 - a race is in real time


def _ids(write: WriteSet) -> list[str]:
    return [draft.id for append in write.appends for draft in append.drafts]


async def follow(log: Log, over: Callable[[], bool]) -> list[Recorded]:
    """All that a reader sees that goes on from the last message it saw, until all is `over` and nothing more comes."""
    seen: list[Recorded] = []
    while True:
        ended, last = over(), seen[-1].position if seen else 0
        page = await log.read(last, PAGE)
        seen += page
        if not page:
            if ended:
                return seen
            await log.changed(last, PATIENCE)


def wrong(written: Sequence[str], seen: Sequence[Recorded]) -> list[str]:
    """What is wrong with what a reader saw, in words; `written` are the ids of all events that stand."""
    times = Counter(one.id for one in seen)
    return [
        *_told("missed", set(written) - times.keys()),
        *_told("saw what does not stand", times.keys() - set(written)),
        *_told("saw twice", {mark for mark, count in times.items() if count > 1}),
        *_told("saw out of order", set(_out_of_order(seen))),
    ]


def _told(what: str, found: set[str]) -> list[str]:
    return [f"the reader {what}: {len(found)} events, as {', '.join(sorted(found)[:5])}"] if found else []


def _out_of_order(seen: Sequence[Recorded]) -> Iterator[str]:
    """What comes after a later one of its stream."""
    last: dict[str, int] = {}
    for one in seen:
        if one.version < last.get(one.stream, 0):
            yield one.id
        last[one.stream] = max(one.version, last.get(one.stream, 0))
