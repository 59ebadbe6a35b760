"""Which write sets stand: a pure step over facts that the adapter reads inside its transaction.

An adapter reads what `needs` names, calls `judge`, and writes what it returns; the rules stand here once for all of them.
Sets are judged in order, each seeing the ones before it as written.
"""

from __future__ import annotations

from collections.abc import Sequence

from msgspec import Struct, field

from headwater.database.placed import Placed
from headwater.database.writes import Answer, Collision, WriteSet
from headwater.errors import KeyReused
from headwater.message import Draft, Recorded
from headwater.store import ANY, CommandKey, Committed, Condition, Settled


class Needs(Struct):
    """What must be read before sets can be judged."""

    streams: set[str] = field(default_factory=set)
    keys: set[tuple[str, str]] = field(default_factory=set)
    conditions: set[Condition] = field(default_factory=set)
    leases: set[str] = field(default_factory=set)
    marks: set[tuple[str, str]] = field(default_factory=set)
    checkpoints: set[str] = field(default_factory=set)
    held: set[tuple[str, str, int]] = field(default_factory=set)
    steps: set[tuple[str, str, str]] = field(default_factory=set)
    timers: set[tuple[str, str, str]] = field(default_factory=set)
    sagas: set[tuple[str, str]] = field(default_factory=set)


class Facts(Struct):
    """What is stored of what was needed; what is missing is not stored. `position` is the last of the log.

    `unmet` are the conditions for which an event stands that was not seen.
    """

    position: int = 0
    streams: dict[str, int] = field(default_factory=dict)
    keys: dict[tuple[str, str], Settled] = field(default_factory=dict)
    unmet: set[Condition] = field(default_factory=set)
    leases: dict[str, int] = field(default_factory=dict)
    marks: dict[tuple[str, str], int] = field(default_factory=dict)
    checkpoints: dict[str, int] = field(default_factory=dict)
    held: set[tuple[str, str, int]] = field(default_factory=set)
    steps: set[tuple[str, str, str]] = field(default_factory=set)
    timers: dict[tuple[str, str, str], int] = field(default_factory=dict)
    sagas: dict[tuple[str, str], int] = field(default_factory=dict)


class Judgement(Struct):
    """The answer to each set, the sets that stand, the messages to write, and the command keys with their answers.

    `tags` are those of events, by their positions in `recorded` (from 0).
    """

    answers: list[Answer] = field(default_factory=list)
    standing: list[WriteSet] = field(default_factory=list)
    recorded: list[Recorded] = field(default_factory=list)
    tags: dict[int, tuple[str, ...]] = field(default_factory=dict)
    placed: Placed | None = None
    settled: list[tuple[str, str, Settled, int]] = field(default_factory=list)


def needs(writes: Sequence[WriteSet]) -> Needs:
    """What must be read to judge these sets."""
    found = Needs()
    for write in writes:
        for append in write.appends:
            found.streams.add(append.stream)
        for key in (write.key, write.after):
            if key is not None:
                found.keys.add((key.tenant, key.key))
        if write.conditions:
            found.conditions.update(write.conditions)
        if write.fence is not None:
            found.leases.add(write.fence.lease)
        if write.marks or write.checkpoints or write.releases or write.steps:
            _need_inbox(write, found)
        if write.cancels or write.sagas:
            found.timers.update([(one.owner, one.key, one.name) for one in write.cancels if one.must])
            found.sagas.update([(state.saga, state.key) for state in write.sagas])
    return found


def _need_inbox(write: WriteSet, found: Needs) -> None:
    found.marks.update([(mark.consumer, mark.stream) for mark in write.marks])
    found.checkpoints.update([checkpoint.name for checkpoint in write.checkpoints])
    found.held.update([(one.consumer, one.stream, one.version) for one in write.releases])
    found.steps.update([(one.consumer, one.message_id, one.name) for one in write.steps if one.new])


def judge(writes: Sequence[WriteSet], facts: Facts) -> Judgement:
    """Decide which sets stand, give their messages versions and positions, and answer all. Changes `facts` as it goes."""
    result = Judgement()
    for write in writes:
        answer = _repeated(write.key, facts) if write.key is not None else None
        if answer is None:
            broken = _broken(write, facts)
            if not broken and write.conditions:
                broken = _condition_broken(write, facts, result)
            answer = Collision(broken) if broken else _accept(write, facts, result)
        result.answers.append(answer)
    return result


def _repeated(key: CommandKey, facts: Facts) -> Answer | None:
    settled = facts.keys.get((key.tenant, key.key))
    if settled is None:
        return None
    if settled.hash != key.hash:
        return KeyReused(f"the command key {key.key!r} was used before for a different command; use a new key")
    return Committed(settled.position, settled.version, repeated=True)


def _broken(write: WriteSet, facts: Facts) -> str:
    """The first expectation of a set that does not hold, in words; empty if all hold."""
    broken = _log_broken(write, facts)
    if not broken and (write.marks or write.checkpoints or write.releases or write.steps):
        broken = _inbox_broken(write, facts)
    if not broken and (write.cancels or write.sagas):
        broken = _instances_broken(write, facts)
    return broken


def _log_broken(write: WriteSet, facts: Facts) -> str:
    if write.fence is not None and facts.leases.get(write.fence.lease, 0) != write.fence.epoch:
        return f"lease {write.fence.lease} is at another epoch"
    for append in write.appends:
        at = facts.streams.get(append.stream, 0)
        if append.expect not in (ANY, at):
            return f"stream {append.stream} is at version {at}, expected {append.expect}"
    return _unfounded(write, facts) if write.after is not None else ""


def _unfounded(write: WriteSet, facts: Facts) -> str:
    """A version alone does not tell: another's events may stand where those of the command before were expected."""
    after = write.after
    settled = facts.keys.get((after.tenant, after.key)) if after is not None else None
    if settled is None or settled.version != write.appends[0].expect:
        return f"the command before it, on which {write.appends[0].stream} was decided, does not stand"
    return ""


def _condition_broken(write: WriteSet, facts: Facts, result: Judgement) -> str:
    """The first condition that does not hold, in words: what sets before this one place was seen by nobody."""
    placed = result.placed = result.placed or Placed()
    placed.learn(result.recorded, result.tags)
    for condition in write.conditions:
        if condition in facts.unmet or placed.meets(condition.items):
            return "an event has come that the decision has not seen"
        if condition.seen.safe > facts.position:
            return "the decision has seen more than the log has: it is a copy from before"
    return ""


def _inbox_broken(write: WriteSet, facts: Facts) -> str:
    for mark in write.marks:
        if facts.marks.get((mark.consumer, mark.stream), 0) != mark.expect:
            return f"the mark of {mark.consumer} on {mark.stream} has moved"
    for checkpoint in write.checkpoints:
        if facts.checkpoints.get(checkpoint.name, 0) != checkpoint.expect:
            return f"the checkpoint of {checkpoint.name} has moved"
    for one in write.releases:
        if (one.consumer, one.stream, one.version) not in facts.held:
            return f"{one.consumer} no longer holds {one.stream} version {one.version}"
    for step in write.steps:
        if step.new and (step.consumer, step.message_id, step.name) in facts.steps:
            return f"the effect {step.name} of {step.consumer} on {step.message_id} was begun before"
    return ""


def _instances_broken(write: WriteSet, facts: Facts) -> str:
    for cancel in write.cancels:
        if cancel.must and facts.timers.get((cancel.owner, cancel.key, cancel.name)) != cancel.due:
            return f"the timer {cancel.name} of {cancel.owner} {cancel.key} is gone or was moved"
    for state in write.sagas:
        if facts.sagas.get((state.saga, state.key), 0) != state.expect:
            return f"the state of {state.saga} {state.key} has moved"
    return ""


def _accept(write: WriteSet, facts: Facts, result: Judgement) -> Committed:
    version = 0
    for append in write.appends:
        version = _place(append.stream, append.drafts, facts, result)
    if write.marks or write.checkpoints or write.releases or write.holds or write.steps:
        _accept_inbox(write, facts)
    if write.cancels or write.timers or write.sagas:
        _accept_instances(write, facts)
    if write.key is not None:
        settled = Settled(write.key.hash, facts.position, version)
        facts.keys[write.key.tenant, write.key.key] = settled
        result.settled.append((write.key.tenant, write.key.key, settled, write.key.time))
    result.standing.append(write)
    return Committed(facts.position, version)


def _accept_inbox(write: WriteSet, facts: Facts) -> None:
    for mark in write.marks:
        facts.marks[mark.consumer, mark.stream] = mark.version
    for checkpoint in write.checkpoints:
        facts.checkpoints[checkpoint.name] = checkpoint.position
    for one in write.releases:
        facts.held.discard((one.consumer, one.stream, one.version))
    for held in write.holds:
        facts.held.add((held.consumer, held.message.stream, held.message.version))
    for step in write.steps:
        (facts.steps.discard if step.clear else facts.steps.add)((step.consumer, step.message_id, step.name))


def _accept_instances(write: WriteSet, facts: Facts) -> None:
    for cancel in write.cancels:
        facts.timers.pop((cancel.owner, cancel.key, cancel.name), None)
    for timer in write.timers:
        facts.timers[timer.owner, timer.key, timer.name] = timer.due
    for state in write.sagas:
        facts.sagas[state.saga, state.key] = state.expect + 1


def _place(stream: str, drafts: Sequence[Draft], facts: Facts, result: Judgement) -> int:
    recorded = result.recorded
    version = facts.streams.get(stream, 0)
    position = facts.position
    for draft in drafts:
        version += 1
        position += 1
        if draft.tags and draft.kind == "event":
            result.tags[len(recorded)] = tuple(dict.fromkeys(draft.tags))
        recorded.append(
            Recorded(
                position,
                stream,
                version,
                draft.kind,
                draft.id,
                draft.type,
                draft.type_version,
                draft.codec,
                draft.time,
                version - 1,
                draft.data,
                draft.meta,
            )
        )
    facts.streams[stream] = version
    facts.position = position
    return version
