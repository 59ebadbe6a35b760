"""Two services for the rigs: a desk that books entries and is reminded of each by a timer, and a mirror of its events.

The ledger looks at their data from outside: nothing acknowledged lost, nothing done twice, each key in order.
"""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Any

from headwater import After, Aggregate, App, Command, Event, ReadModel, Retry, decide, evolve
from headwater.clock import Clock
from tests.fault.rigs.ground import ground

REMINDED = 0.3
"""Seconds after which the desk is reminded of an entry."""
PATIENT = Retry(attempts=1_000, base=0.05, cap=0.5)


class Book(Command):
    """Book an entry under a key."""

    key: str
    number: int
    text: str = ""


class Booked(Event, service="desk", category="Entry"):
    """An entry was booked."""

    key: str
    number: int
    text: str = ""


class Reminder(Event, service="desk", category="reminder"):
    """It is time to look at an entry again."""

    key: str
    number: int


class Entry(Aggregate, key="key"):
    """The entries of a key."""

    count: int = 0

    @decide
    def book(self, command: Book) -> Booked:
        """Book whatever comes."""
        return Booked(command.key, command.number, command.text)

    @evolve
    def booked(self, event: Booked) -> None:
        """Count."""
        self.count += 1


class Copy(ReadModel, key="key"):
    """What the mirror knows of a key."""

    count: int = 0
    total: int = 0

    @evolve
    def booked(self, event: Booked) -> None:
        """Count and sum."""
        self.count += 1
        self.total += event.number


async def remind(event: Booked | Reminder) -> After | None:
    """Ask to be reminded, and be it."""
    if isinstance(event, Reminder):
        return None
    return After(Reminder(event.key, event.number), seconds=REMINDED, name=str(event.number))


async def mirrored(event: Booked) -> None:
    """See what was booked."""


def desk(store: str = "", channel: str = "", clock: Clock | None = None) -> App:
    """The service that takes commands."""
    app = App("desk", store=store, channel=channel, journal=True, retry=PATIENT, clock=clock)
    app.add(Entry)
    app.on(Booked, Reminder)(remind)
    return app


def mirror(store: str = "", channel: str = "", clock: Clock | None = None) -> App:
    """The service that looks at what the desk does."""
    app = App("mirror", store=store, channel=channel, journal=True, retry=PATIENT, clock=clock)
    app.add(Copy)
    app.on(Booked)(mirrored)
    return app


BOOKED = "kind = 'event' AND stream LIKE 'desk.Entry/%'"
TIMERS = "kind = 'timer'"
CONSUMERS = (
    ("desk", "desk.remind", f"({BOOKED} OR {TIMERS})"),
    ("mirror", "mirror.mirrored", BOOKED),
    ("mirror", "mirror.copy", BOOKED),
)


class Pair:
    """The two services on the ground of a folder, seen from outside."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.ground = ground(folder)

    def desk(self) -> App:
        """The desk on this ground."""
        return desk(self.ground.url("desk"), self.ground.url("channel"))

    def mirror(self) -> App:
        """The mirror on this ground."""
        return mirror(self.ground.url("mirror"), self.ground.url("channel"))

    def rows(self, service: str, sql: str) -> list[tuple[Any, ...]]:
        """Ask a database, or the `channel`."""
        return self.ground.rows(service, sql)

    def numbers(self, where: str) -> list[int]:
        """The numbers of the desk's messages of a kind, in order of the log."""
        return [
            number
            for (number,) in self.rows("desk", f"SELECT data ->> 'number' FROM events WHERE {where} ORDER BY position")
        ]

    def behind(self) -> int:
        """How many effects are still to come."""
        booked = len(self.numbers(BOOKED))
        done = sum(
            self.rows(service, f"SELECT count(*) FROM journal WHERE consumer = '{name}'")[0][0]
            for service, name, _ in CONSUMERS
        )
        return booked * (len(CONSUMERS) + 1) - int(done)  # an entry and its reminder, and two in the mirror

    def ledger(self, acknowledged: Iterable[int]) -> list[str]:
        """What is wrong, in words; for when all has come to rest."""
        booked = self.numbers(BOOKED)
        lost = sorted(set(acknowledged) - set(booked))
        found = [f"acknowledged and lost: {lost[:10]}"] if lost else []
        found += doubled("entries", booked) + doubled("reminders", self.numbers(TIMERS))
        if missing := set(booked) - set(self.numbers(TIMERS)):
            found.append(f"never reminded of {sorted(missing)[:10]}")
        for service, consumer, where in CONSUMERS:
            found += self._journal(service, consumer, where)
        for service in ("desk", "mirror"):
            held = self.rows(service, "SELECT consumer, reason, cause, count(*) FROM held GROUP BY 1, 2, 3")
            found += [f"{service} still holds {row}" for row in held[:3]]
            found += [f"{service}: {line}" for line in self.ground.damage(service)]
        return found + self._copies()

    def _journal(self, service: str, consumer: str, where: str) -> list[str]:
        """Each message taken once, those of a stream in order."""
        logged = [tuple(row) for row in self.rows("desk", f"SELECT stream, version FROM events WHERE {where}")]
        sql = f"SELECT stream, version FROM journal WHERE consumer = '{consumer}' ORDER BY sequence"
        taken = [tuple(row) for row in self.rows(service, sql)]
        found = doubled(f"{consumer} took", taken)
        if missing := set(logged) - set(taken):
            found.append(f"{consumer} never took {sorted(missing)[:5]}")
        reached: dict[str, int] = {}
        for stream, version in taken:
            if version < reached.get(stream, 0):
                found.append(f"{consumer} took {stream} {version} after {reached[stream]}")
            reached[stream] = version
        return found

    def _copies(self) -> list[str]:
        sql = f"SELECT data ->> 'key', count(*), sum(CAST(data ->> 'number' AS INTEGER)) FROM events WHERE {BOOKED} GROUP BY 1"
        wanted = {tuple(row) for row in self.rows("desk", sql)}
        there = {tuple(row) for row in self.rows("mirror", "SELECT key, count, total FROM copy")}
        return [f"the read model differs: {sorted(wanted ^ there)[:5]}"] if wanted != there else []

    def republished(self) -> list[str]:
        """Where the channel has a message of the desk twice, or out of order: a stale relay has written."""
        sql = """SELECT headers ->> 'subject', headers ->> 'streamversion' FROM messages
        WHERE topic = 'desk.Entry' AND for_group IS NULL ORDER BY position"""
        sent = [tuple(row) for row in self.rows("channel", sql)]
        return doubled("the channel has", sent)


def doubled(what: str, found: list[Any]) -> list[str]:
    """A line where something is there more than once."""
    seen: set[Any] = set()
    twice = {one for one in found if one in seen or seen.add(one)}  # type: ignore[func-returns-value]
    return [f"{what} twice: {sorted(twice)[:10]}"] if twice else []
