"""What a consumer has taken: one mark a (consumer, stream) for ever, the messages it holds, and the batch in its hands.

The mark of (consumer, stream) is the last version whose effect is committed *or which lies in the held table*. A message
at or below the mark is a duplicate. A held key takes its messages only from the held table, in order, until it is free.
"""

from __future__ import annotations

from collections.abc import Sequence
from enum import StrEnum
from typing import Protocol

from msgspec import Struct

from headwater.message import Recorded


class Mark(Struct, frozen=True, gc=False):
    """Move the mark of (consumer, stream) from `expect` to `version`; it stands only if the mark is at `expect`."""

    consumer: str
    stream: str
    version: int
    expect: int


class Reason(StrEnum):
    """Why a message is held. `TALLY`: it is no message but a tally, and what it tells of has not all come."""

    RETRY = "retry"
    BEHIND = "behind"
    GAP = "gap"
    DEAD = "dead"
    UNCERTAIN = "uncertain"
    TALLY = "tally"


class Held(Struct, frozen=True, gc=False):
    """A message in a consumer's custody that is not done: waiting for a retry, parked, behind one that is, or after a gap.

    `due` is when its retry is (microseconds); `attempts` counts failed attempts, `crashes` those that took the process
    with them. `raw` marks one that could not be decoded: `message.data` is then the body as it came.
    """

    consumer: str
    key: str
    message: Recorded
    reason: Reason
    due: int = 0
    attempts: int = 0
    crashes: int = 0
    cause: str = ""
    fingerprint: str = ""
    history: Sequence[str] = ()
    since: int = 0
    headers: dict[str, str] = {}
    raw: bool = False


class Release(Struct, frozen=True, gc=False):
    """Take a message out of the held table; the write set stands only if it is there."""

    consumer: str
    stream: str
    version: int


class Note(Struct, frozen=True, gc=False):
    """The messages that a feed has in its hands, as (stream, version), or that it runs; written before they are run.

    Found at a start, it tells what was in flight at a crash. A relay notes how far each topic is told, as (topic, position).
    """

    feed: str
    messages: Sequence[tuple[str, int]]


class Step(Struct, frozen=True, gc=False):
    """The state of an outside effect: intended (`done` false) or done with an outcome (JSON); `clear` removes it.

    With `new`, the write set stands only if nothing is known of the effect yet.
    """

    consumer: str
    message_id: str
    name: str
    done: bool = False
    outcome: bytes = b""
    clear: bool = False
    new: bool = False


class Inbox(Protocol):
    """Reads of marks, held messages, notes and outside effects."""

    async def marks(self, consumer: str, streams: Sequence[str]) -> dict[str, int]:
        """The marks of those streams that have one."""
        ...

    async def held_keys(self, consumer: str, keys: Sequence[str]) -> set[str]:
        """Which of the keys are held."""
        ...

    async def held_count(self, consumer: str) -> tuple[int, int]:
        """How many messages a consumer holds, and their bytes."""
        ...

    async def held_due(self, consumer: str, now: int, limit: int) -> list[Held]:
        """The first message of each held key (by version) whose turn it is, oldest first.

        A retry, or what is behind none, when its `due` is not after `now`; what is after a gap, once the mark of its
        stream has reached its `previous`; never what is dead, uncertain or a tally.
        """
        ...

    async def held_of(self, consumer: str, key: str, limit: int) -> list[Held]:
        """The held messages of a key, in order of version."""
        ...

    async def held_list(self, consumer: str | None, reasons: Sequence[Reason], limit: int) -> list[Held]:
        """Held messages for an operator: of one consumer or all, with one of the reasons."""
        ...

    async def next_due(self, consumer: str) -> int | None:
        """From when on `held_due` gives something (microseconds); None if no key waits for a time alone."""
        ...

    async def noted(self, feed: str) -> list[tuple[str, int]]:
        """The open note of a feed."""
        ...

    async def steps(self, consumer: str | None, message_id: str | None) -> list[Step]:
        """The outside effects of a message (done or not), or all that are open (intended, not done)."""
        ...
