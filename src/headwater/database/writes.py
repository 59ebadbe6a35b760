"""The value types of a commit: what one transaction writes, and how each part is answered."""

from __future__ import annotations

from collections.abc import Sequence

from msgspec import Struct

from headwater.checkpoint import Checkpoint
from headwater.errors import Conflict, HeadwaterError, KeyReused, Unknown
from headwater.inbox import Held, Mark, Note, Release, Step
from headwater.lease import Fence
from headwater.store import Append, CommandKey, Committed, Condition
from headwater.table import Upsert
from headwater.timer import Cancel, SagaState, Timer


class WriteSet(Struct, frozen=True, gc=False):
    """What stands or falls together: everything in it is written, or nothing is.

    It falls when something it expects does not hold: a stream's version, a mark, a checkpoint, a saga's version, a held
    message or a timer to be removed, a lease's epoch. A command key that is known makes it a repetition.
    `conditions` are about the events that stand before the set, not about its own.
    `after` is the command whose events the first append was decided on: that command must stand, and the append must
    expect the version that it left.
    `journal` is (consumer, stream, version) of each message whose effect is in this set.
    """

    appends: Sequence[Append] = ()
    key: CommandKey | None = None
    after: CommandKey | None = None
    conditions: Sequence[Condition] = ()
    fence: Fence | None = None
    marks: Sequence[Mark] = ()
    checkpoints: Sequence[Checkpoint] = ()
    holds: Sequence[Held] = ()
    releases: Sequence[Release] = ()
    timers: Sequence[Timer] = ()
    cancels: Sequence[Cancel] = ()
    sagas: Sequence[SagaState] = ()
    upserts: Sequence[Upsert] = ()
    note: Note | None = None
    steps: Sequence[Step] = ()
    journal: Sequence[tuple[str, str, int]] = ()

    @property
    def consumes(self) -> bool:
        """Whether it writes more than appends and a command key."""
        return bool(
            self.marks
            or self.checkpoints
            or self.sagas
            or self.holds
            or self.releases
            or self.timers
            or self.cancels
            or self.upserts
            or self.note
            or self.steps
            or self.journal
        )


class Collision(Struct, frozen=True, gc=False):
    """The set fell: what it expected does not hold. Load again and decide again."""

    what: str


class Failed(Struct, frozen=True):
    """The database could not write this set even alone; nothing of it is stored."""

    error: HeadwaterError


Answer = Committed | Collision | KeyReused | Failed | Unknown


def stands(answer: Answer) -> Committed:
    """The answer of a set that had to stand. Raises Conflict where it fell, Unknown, or what the database said."""
    if isinstance(answer, Committed):
        return answer
    if isinstance(answer, Collision):
        raise Conflict(answer.what)
    raise answer.error if isinstance(answer, Failed) else answer
