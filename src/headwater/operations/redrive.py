"""Redrive and discard: what an operator does about held messages. Every change stands only if the message is still held."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

import msgspec
from msgspec import Struct

from headwater import fault
from headwater.clock import Clock, iso
from headwater.database import Collision, Database, Failed, WriteSet
from headwater.errors import Conflict, DatabaseError, HeadwaterError
from headwater.inbox import Held, Mark, Reason, Release, Step
from headwater.operations.dead_letters import find_held, id_of, list_held
from headwater.operations.refusal import NotPossible
from headwater.schema import check_strict
from headwater.store import Committed

AT_ONCE: Final = 200
HISTORY: Final = 10


class Effect(Struct, frozen=True):
    """What a person found out about an uncertain effect: it was done, with an outcome (JSON), or it was not done.

    `name` says which, where a message has several that are open.
    """

    done: bool
    outcome: bytes = b"null"
    name: str = ""


class Outcome(Struct, frozen=True):
    """What became of some held messages: the ids that were changed, and why others were left as they are."""

    changed: list[str]
    left: dict[str, str]


# --- redrive ---


async def redrive(database: Database, clock: Clock, held_id: str, effect: Effect | None = None) -> Held:
    """Let a held message be tried again at once; the row as it now is.

    An uncertain one needs `effect`, unless its outcome has become known. Raises NotFound, NotPossible, SchemaError for an
    outcome, Conflict if it was changed meanwhile.
    """
    row = await find_held(database, held_id)
    if effect is not None and row.reason is not Reason.UNCERTAIN:
        raise NotPossible(f"{held_id} is {row.reason.value}, not uncertain; redrive it without --done and --not-done")
    steps = [await _settled_step(database, row, effect)] if row.reason is Reason.UNCERTAIN else []
    refusal = _not_redriven(row)
    if refusal and not steps:
        raise NotPossible(f"{held_id}: {refusal}")
    word = "" if effect is None else " as done" if effect.done else " as not done"
    again = freed(row, clock.now(), word)
    await _commit_one(database, held_id, _replaced(row, again, [step for step in steps if step is not None]))
    return again


async def redrive_all(database: Database, clock: Clock, *, consumer: str = "", fingerprint: str = "") -> Outcome:
    """Let all dead letters of a consumer, or with a fingerprint, be tried again; uncertain ones are left for a person."""
    outcome = Outcome([], {})
    ready: list[Held] = []
    for row in await list_held(database, consumer=consumer, fingerprint=fingerprint):
        refusal = _not_redriven(row)
        if refusal:
            outcome.left[id_of(row)] = refusal
        else:
            ready.append(row)
    now = clock.now()
    await _commit_all(database, [(id_of(row), _replaced(row, freed(row, now), ())) for row in ready], outcome)
    return outcome


def freed(row: Held, now: int, word: str = "") -> Held:
    """A held message as it is tried again: due at once, its attempts counted anew, its history kept and `word` noted."""
    return msgspec.structs.replace(
        row,
        reason=Reason.RETRY,
        due=now,
        attempts=0,
        crashes=0,
        history=(*row.history, f"{iso(now)} redriven{word}")[-HISTORY:],
    )


def _not_redriven(row: Held) -> str:
    """Why a message cannot simply be tried again; empty if it can."""
    if row.raw:
        return "it could not be decoded, so it can only be shown or discarded; mend its sender"
    if row.reason is Reason.UNCERTAIN:
        return "an outside effect may have happened; look at the other side, then say --done OUTCOME_JSON or --not-done"
    if row.reason is Reason.GAP:
        return "a message before it has not come, and is asked for; it runs by itself after that one"
    if row.reason is Reason.TALLY:
        return "it is no message: what it tells of has not come, and is asked for"
    if row.reason is Reason.BEHIND:
        return "it waits for the first message of its key and runs by itself after it; redrive that one"
    return ""


async def _settled_step(database: Database, row: Held, effect: Effect | None) -> Step | None:
    """The open effect of a message as a person has settled it; None where none is open and it was not done, or is known."""
    steps = await database.steps(row.consumer, row.message.id)
    open_steps = [step for step in steps if not step.done]
    if effect is None:
        if open_steps or not steps:
            raise NotPossible(f"{id_of(row)}: {_not_redriven(row)}")
        return None
    named = [step for step in open_steps if effect.name in ("", step.name)]
    if not named and (effect.done or effect.name):
        known = ", ".join(step.name for step in open_steps) or "none"
        raise NotPossible(f"{id_of(row)} has no such open effect; open are: {known}")
    if len(named) > 1:
        names = ", ".join(step.name for step in named)
        raise NotPossible(f"{id_of(row)} has several open effects ({names}); say which with --step")
    if not named:
        return None
    [step] = named
    if not effect.done:
        return Step(step.consumer, step.message_id, step.name, clear=True)
    outcome = msgspec.json.encode(check_strict(effect.outcome))
    return Step(step.consumer, step.message_id, step.name, done=True, outcome=outcome)


def _replaced(row: Held, again: Held, steps: Sequence[Step]) -> WriteSet:
    return WriteSet(releases=[_release(row)], holds=[again], steps=steps)


# --- discard ---


async def discard(database: Database, held_id: str) -> Held:
    """Give up a held message: its effect never happens, and what is behind it becomes free. The row as it was.

    One after a gap is given up together with what is missing before it: the mark moves past both. Raises NotFound,
    NotPossible, or Conflict if it was changed meanwhile.
    """
    row = await find_held(database, held_id)
    await _commit_one(database, held_id, await _discarded(database, row))
    return row


async def discard_all(database: Database, *, consumer: str = "", fingerprint: str = "") -> Outcome:
    """Give up all dead letters of a consumer, or with a fingerprint; uncertain ones only one by one."""
    outcome = Outcome([], {})
    rows = await list_held(database, consumer=consumer, fingerprint=fingerprint)
    sets = []
    for row in rows:
        if row.reason is Reason.UNCERTAIN:
            outcome.left[id_of(row)] = "an outside effect may have happened; discard it by its id"
        else:
            sets.append((id_of(row), WriteSet(releases=[_release(row)])))
    await _commit_all(database, sets, outcome)
    return outcome


async def _discarded(database: Database, row: Held) -> WriteSet:
    marks = [await _passed(database, row)] if row.reason is Reason.GAP else []
    steps = [
        Step(step.consumer, step.message_id, step.name, clear=True)
        for step in (await database.steps(row.consumer, row.message.id) if row.reason is Reason.UNCERTAIN else [])
        if not step.done
    ]
    return WriteSet(releases=[_release(row)], marks=marks, steps=steps)


async def _passed(database: Database, row: Held) -> Mark:
    """The mark past a gap and the message after it.

    Only for the first message of its key: the mark must not pass one that is still held in front, whose own gap would then
    count as filled.
    """
    [first] = await database.held_of(row.consumer, row.key, 1)
    if first.message.version != row.message.version:
        raise NotPossible(f"{id_of(row)} is not the first of its key; discard {id_of(first)} before it")
    stream = row.message.stream
    mark = (await database.marks(row.consumer, [stream])).get(stream, 0)
    if row.message.previous <= mark:
        raise Conflict(f"{id_of(row)}: what was missing before it has come, and it runs by itself; look again")
    return Mark(row.consumer, stream, row.message.version, mark)


def _release(row: Held) -> Release:
    return Release(row.consumer, row.message.stream, row.message.version)


# --- commits ---


async def _commit_one(database: Database, held_id: str, write: WriteSet) -> None:
    outcome = Outcome([], {})
    await _commit_all(database, [(held_id, write)], outcome, alone=True)


async def _commit_all(
    database: Database, sets: Sequence[tuple[str, WriteSet]], outcome: Outcome, *, alone: bool = False
) -> None:
    """Commit sets in groups, each standing for itself, and note what became of each; raises for one that is `alone`."""
    for start in range(0, len(sets), AT_ONCE):
        part = sets[start : start + AT_ONCE]
        fault.point("operations.settling")
        answers = await database.commit([write for _, write in part])
        fault.point("operations.settled")
        for (held_id, _), answer in zip(part, answers, strict=True):
            if isinstance(answer, Committed):
                outcome.changed.append(held_id)
                continue
            error = _error(held_id, answer)
            if alone or not isinstance(error, Conflict):
                raise error
            outcome.left[held_id] = "it was changed meanwhile; look again"


def _error(held_id: str, answer: object) -> HeadwaterError:
    if isinstance(answer, Collision):
        return Conflict(f"{held_id} was changed meanwhile; look again")
    if isinstance(answer, Failed):
        return answer.error
    return answer if isinstance(answer, HeadwaterError) else DatabaseError(f"{held_id}: {answer}")
