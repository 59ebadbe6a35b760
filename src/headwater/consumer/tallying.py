"""What producers say they have published, checked against the marks of one consumer: looked up, then judged. ADR 0012."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from msgspec import Struct, field
from msgspec.structs import replace

from headwater.clock import Clock
from headwater.database import Database
from headwater.inbox import Held, Reason
from headwater.source import Span, Tally
from headwater.tally import body_of

LATELY = 10_000
"""Marks that are remembered, at least; twice as many at most."""
HELD = 4
"""Tallies of one chain that a consumer holds at most, besides one after a gap."""


class Told(Struct):
    """What tallies come to: how far the marks of their chains come, and those that are held until all has come."""

    marks: dict[str, int] = field(default_factory=dict)
    holds: list[Held] = field(default_factory=list)


class Checking:
    """Checks tallies for one consumer. It remembers marks that were moved lately, so that few are looked up."""

    def __init__(self, consumer: str, database: Database, clock: Clock, *, from_now: bool) -> None:
        self.consumer = consumer
        self.database = database
        self.clock = clock
        self.from_now = from_now
        self._lately: dict[str, int] = {}
        self._before: dict[str, int] = {}

    def moved(self, marks: Mapping[str, int]) -> None:
        """These marks are stored."""
        if len(self._lately) > LATELY:
            self._before, self._lately = self._lately, {}
        self._lately.update(marks)

    async def check(self, tallies: Sequence[Tally], reached: dict[str, int], marks: dict[str, int]) -> Told:
        """Check tallies against the marks as they are with their batch; the marks of their chains join `marks`."""
        if not tallies:
            return Told()
        left = [replace(tally, streams=self._left(tally.streams, reached)) for tally in tallies]
        chains = list(dict.fromkeys(tally.message.stream for tally in tallies))
        asked = dict.fromkeys(stream for tally in left for stream in tally.streams)
        known = await self.database.marks(self.consumer, [*chains, *asked])
        marks.update((chain, known[chain]) for chain in chains if chain in known)
        held = {
            chain: [row.message.version for row in await self.database.held_of(self.consumer, chain, HELD + 2)]
            for chain in await self.database.held_keys(self.consumer, chains)
        }
        return check_tallies(self.consumer, left, known | reached, held, self.clock.now(), from_now=self.from_now)

    def _left(self, streams: Mapping[str, Span], reached: Mapping[str, int]) -> dict[str, Span]:
        """The streams that must be looked up: no mark is remembered that is far enough."""
        lately, before = self._lately.get, self._before.get
        return {
            stream: span
            for stream, span in streams.items()
            if lately(stream, 0) < span[1] and before(stream, 0) < span[1] and reached.get(stream, 0) < span[1]
        }


def check_tallies(
    consumer: str,
    tallies: Sequence[Tally],
    marks: Mapping[str, int],
    held: Mapping[str, Sequence[int]],
    now: int,
    *,
    from_now: bool,
) -> Told:
    """Check tallies against marks as they are after the messages that came with them, and the marks of their chains.

    `held` are the versions of each chain that are held. One that comes after a gap in its chain, or finds something missing
    where enough are held, does not move the mark: the first of those is held too, so that the rest is told again. With
    `from_now`, a stream without a mark begins with the first tally.
    """
    told = Told()
    known = {chain: set(versions) for chain, versions in held.items()}
    for tally in tallies:
        message = tally.message
        chain, version = message.stream, message.version
        mark = told.marks.get(chain, marks.get(chain))
        begins, at = mark is None and from_now, mark or 0
        if version <= at:
            continue
        waiting = known.setdefault(chain, set())
        beyond = {one for one in waiting if one > at}
        missing = missing_of(tally.streams, marks, from_now=from_now, begins=begins)
        after_gap = message.previous > at and not begins
        apart = after_gap or (bool(missing) and len(waiting - beyond) >= HELD)
        if not beyond if apart else missing:
            waiting.add(version)
            told.holds.append(Held(consumer, chain, replace(message, data=body_of(missing)), Reason.TALLY, since=now))
        if not apart:
            told.marks[chain] = version
    return told


def missing_of(
    streams: Mapping[str, Span], marks: Mapping[str, int], *, from_now: bool, begins: bool = False
) -> dict[str, Span]:
    """Of the streams of a tally, those that are behind, each with its mark in place of the version before.

    With `from_now`, one without a mark is at the version before, or where all `begins`, at the last.
    """
    missing = {}
    for stream, (since, last) in streams.items():
        mark = marks.get(stream)
        if mark is None:
            mark = (last if begins else since) if from_now else 0
        if mark < last:
            missing[stream] = (mark, last)
    return missing
