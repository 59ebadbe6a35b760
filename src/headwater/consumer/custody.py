"""Custody: which messages of a batch are new, which are duplicates, and which must be held. A pure step."""

from __future__ import annotations

from collections.abc import Sequence

from msgspec import Struct, field

from headwater.inbox import Held, Reason
from headwater.message import Recorded


class Sorted(Struct):
    """A batch as one consumer sees it: what to run, what to hold, and how far its marks come."""

    fresh: list[Recorded] = field(default_factory=list)
    holds: list[Held] = field(default_factory=list)
    marks: dict[str, int] = field(default_factory=dict)
    duplicates: int = 0


def sort_logged(consumer: str, messages: Sequence[Recorded], held: set[str], now: int) -> Sorted:
    """Sort messages of our own log, where nothing is repeated or missing."""
    found = Sorted()
    for message in messages:
        if message.key in held:
            found.holds.append(Held(consumer, message.key, message, Reason.BEHIND, due=now, since=now))
        else:
            found.fresh.append(message)
    return found


def sort_delivered(
    consumer: str, messages: Sequence[Recorded], marks: dict[str, int], held: set[str], now: int, *, from_now: bool
) -> Sorted:
    """Sort messages of a channel against the marks of their streams and the keys that are held; `held` grows with gaps.

    With `from_now`, the first message of a stream without a mark is taken as its beginning. A mark that stays where it is
    is named too: a gap is one only as long as nobody has filled it.
    """
    found = Sorted()
    reached = found.marks
    for message in messages:
        stream = message.stream
        if message.previous < 0:  # it has no place in a stream
            if message.key in held:
                found.duplicates += 1
            else:
                found.fresh.append(message)
            continue
        mark = reached.get(stream)
        if mark is None:
            mark = marks.get(stream, message.previous if from_now else 0)
        if message.version <= mark:
            found.duplicates += 1
            continue
        if message.previous > mark:
            held.add(message.key)
            reached[stream] = mark
            found.holds.append(Held(consumer, message.key, message, Reason.GAP, since=now))
            continue
        reached[stream] = message.version
        if message.key in held:
            found.holds.append(Held(consumer, message.key, message, Reason.BEHIND, due=now, since=now))
        else:
            found.fresh.append(message)
    return found


def lane_of(rows: Sequence[Held], marks: dict[str, int]) -> list[Held]:
    """The held messages of one key that may run now, in order: up to the first gap that is still open. Moves `marks`."""
    lane: list[Held] = []
    for row in rows:
        message = row.message
        if row.reason in (Reason.DEAD, Reason.UNCERTAIN):
            break
        if row.reason is Reason.GAP:
            if message.previous > marks.get(message.stream, 0):
                break
            marks[message.stream] = max(message.version, marks.get(message.stream, 0))
        lane.append(row)
    return lane
