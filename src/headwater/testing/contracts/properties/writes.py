"""Write sets by chance: each a handful of parts over few names, so that parts meet, and what they expect as a distance.

A drawn expectation is how far it is from what is stored (0: right); `aimed` makes a true one of it.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final

from hypothesis import strategies as st
from msgspec.structs import replace

from headwater.checkpoint import Checkpoint
from headwater.database import Facts, WriteSet
from headwater.inbox import Held, Mark, Note, Reason, Release, Step
from headwater.lease import Fence
from headwater.message import JSON, Draft, Recorded
from headwater.store import ANY, Append, CommandKey, Condition, Item, Seen
from headwater.table import Table, Upsert
from headwater.testing.contracts.database.values import EVERYTHING, LINES, META, TIME, TOTALS
from headwater.timer import Cancel, SagaState, Timer

STREAMS: Final = ("bank.Account/a", "bank.Account/b", "ü:odd/'💧\0%\"")
CONSUMERS: Final = ("mail", "print'\0ü")
KEYS: Final = ("k", "k\0", "ü", "l", "m")
TENANTS: Final = ("", "acme")
LEASES: Final = ("relay", "réplay")
READERS: Final = ("totals", "totals 2")
FEEDS: Final = ("log", "channel")
OWNERS: Final = ("billing", "b'\0")
MESSAGES: Final = ("m-1", "0197a5e8-7a64-7000-8000-00000000000a")
LAST: Final = CommandKey("", "(the last)", b"", 0)
"""Stands for the key of the set before it in the same commit."""

UNMADE: Final = Table("unmade", TOTALS.columns)


def names(some: Sequence[Any]) -> st.SearchStrategy[Any]:
    """One of some names, the first most often: things meet."""
    return st.sampled_from([some[0], some[0], *some])


versions = st.integers(1, 4)
times = st.integers(TIME, TIME + 5)
texts = st.text(st.characters(exclude_categories=["Cs"]), max_size=4)
payloads = st.one_of(st.sampled_from([b"{}", b'{"cents":1}', b"gone", b"broken", b""]), st.binary(max_size=6))
distances = st.sampled_from([0] * 8 + [1, -1])
ids = st.one_of(st.just(""), st.sampled_from([*MESSAGES, "0197A5E8-7A64-7000-8000-00000000000A", "00" * 16]))
drafts = st.builds(
    Draft,
    kind=names(["event", "command", "reply", "timer", "control"]),
    id=ids,
    type=names(["bank.Withdrawn", "ü"]),
    type_version=versions,
    codec=names([JSON, 2]),
    time=times,
    data=payloads,
    meta=st.just(META),
)
tags = st.lists(st.sampled_from(["t", "t", "ü\0'", "u"]), max_size=3).map(tuple)
tagged = st.builds(lambda one, some: replace(one, tags=some), drafts, tags)
items = st.builds(
    Item,
    st.sampled_from([(), ("bank.Withdrawn",), ("bank.Withdrawn",), ("bank.Withdrawn", "ü"), ("none",)]),
    st.sampled_from([("t",), ("t",), ("ü\0'",), ("t", "u")]),
) | st.builds(Item, st.sampled_from([("ü",), ("bank.Withdrawn", "none")]))
conditions = st.builds(
    Condition,
    st.lists(items, min_size=1, max_size=2).map(tuple),
    st.builds(Seen, st.sampled_from([0, 0, 0, 1, 3]), st.sampled_from([(), (), (0,), (0, 1)])),
)
"""What was seen is drawn as how far it is from the head of the log."""
keys = st.builds(CommandKey, names(TENANTS), names(KEYS), names([b"1", b"1", b"1", b"\0\xff"]), times)
appends = st.builds(
    Append, names(STREAMS), st.sampled_from([0, 0, 0, 0, ANY, ANY, 1, -1]), st.lists(tagged, min_size=0, max_size=3)
)
recorded = st.builds(
    Recorded,
    position=versions,
    stream=names(STREAMS),
    version=versions,
    kind=st.just("event"),
    id=names(MESSAGES),
    type=texts,
    type_version=versions,
    codec=names([JSON, 2]),
    time=times,
    previous=st.integers(0, 3),
    data=payloads,
    meta=st.just(META),
)
held = st.builds(
    Held,
    consumer=names(CONSUMERS),
    key=names(STREAMS[1:]),
    message=recorded,
    reason=names(list(Reason)),
    due=times,
    attempts=st.integers(0, 3),
    crashes=st.integers(0, 3),
    cause=texts,
    fingerprint=texts,
    history=st.lists(texts, max_size=2),
    since=times,
    headers=st.dictionaries(texts, texts, max_size=2),
    raw=st.booleans(),
)
timers = st.builds(Timer, names(OWNERS), names(KEYS[:2]), names(KEYS[2:4]), times, names(STREAMS), drafts)
cancels = st.builds(Cancel, names(OWNERS), names(KEYS[:2]), names(KEYS[2:4]), st.booleans(), distances)
sagas = st.builds(SagaState, names(OWNERS), names(KEYS[:2]), distances, payloads, st.booleans())
steps = st.builds(
    Step, names(CONSUMERS), names(MESSAGES), names(KEYS[:2]), st.booleans(), payloads, st.sampled_from([False, True])
)

integers = st.one_of(st.integers(-2, 2), st.sampled_from([2**63 - 1, -(2**63)]))
few = st.lists(st.integers(0, 2), max_size=2)
totals = st.builds(
    Upsert,
    st.just(TOTALS),
    st.lists(st.tuples(names(STREAMS), integers), max_size=3),
    st.lists(st.tuples(names(STREAMS)), max_size=2),
)
lines = st.builds(
    Upsert,
    st.just(LINES),
    st.lists(st.tuples(st.integers(0, 1), names(KEYS[:2]), st.none() | integers), max_size=3),
    st.lists(st.tuples(st.integers(0, 1), names(KEYS[:2])), max_size=2),
)
everything = st.builds(
    Upsert,
    st.just(EVERYTHING),
    st.lists(
        st.tuples(
            names(KEYS[:2]),
            st.none() | texts,
            st.none() | integers,
            st.none() | st.floats(allow_nan=False, allow_infinity=False),
            st.none() | st.booleans(),
            st.none() | payloads,
            st.none() | st.dictionaries(texts, few, max_size=2),
        ),
        max_size=2,
    ),
)
unfit = st.sampled_from(
    [
        Upsert(UNMADE, [("a", 1)]),
        Upsert(TOTALS, [("a",)]),
        Upsert(TOTALS, [("a", "many")]),
        Upsert(TOTALS, [("a", 1.5)]),
        Upsert(TOTALS, [(None, 1)]),
        Upsert(EVERYTHING, [("k", None, None, float("nan"), None, None, None)]),
        Upsert(EVERYTHING, [("k", None, None, None, None, "text", None)]),
        Upsert(EVERYTHING, [("k", None, None, None, None, 5, None)]),
        Upsert(EVERYTHING, [("k", None, None, None, "yes", None, None)]),
    ]
)
"""Rows that no table takes."""


PARTS: Final[dict[str, st.SearchStrategy[Any]]] = {
    "appends": appends,
    "key": keys,
    "after": st.one_of(st.just(LAST), keys),
    "conditions": conditions,
    "fence": st.builds(Fence, names(LEASES), distances),
    "marks": st.builds(Mark, names(CONSUMERS), names(STREAMS), st.integers(0, 4), distances),
    "checkpoints": st.builds(Checkpoint, names(READERS), st.integers(0, 9), distances),
    "holds": held,
    "releases": st.builds(Release, names(CONSUMERS), names(STREAMS), st.integers(0, 9)),
    "timers": timers,
    "cancels": cancels,
    "sagas": sagas,
    "upserts": st.one_of(totals, lines, everything, unfit),
    "note": st.builds(Note, names(FEEDS), st.lists(st.tuples(names(STREAMS), versions), max_size=2)),
    "steps": steps,
    "journal": st.tuples(names(CONSUMERS), names(STREAMS), versions),
}
ALONE: Final = frozenset({"key", "after", "fence", "note"})


def _set_of(parts: Sequence[tuple[str, Any]]) -> WriteSet:
    fields: dict[str, Any] = {}
    for name, value in parts:
        if name in ALONE:
            fields[name] = value
        else:
            fields.setdefault(name, []).append(value)
    if not fields.get("appends"):
        fields.pop("after", None)  # it is about an append
    return WriteSet(**fields)


def _part(name: str) -> st.SearchStrategy[tuple[str, Any]]:
    return st.tuples(st.just(name), PARTS[name])


some_parts = st.lists(st.one_of(*(_part(name) for name in (*PARTS, "holds", "releases"))), min_size=1, max_size=8)
write_sets = some_parts.map(_set_of)


@st.composite
def chains(draw: st.DrawFn) -> list[WriteSet]:
    """Sets that were each decided on what the one before it leaves, as commands on one aggregate are."""
    stream = draw(names(STREAMS))
    links: list[WriteSet] = []
    for _ in range(draw(st.integers(2, 3))):
        parts = [*draw(some_parts), ("key", draw(keys)), ("after", LAST)]
        append = Append(stream, 0, draw(st.lists(tagged, min_size=1, max_size=2)))
        links.append(_set_of([("appends", append), *(part for part in parts if part[0] != "appends")]))
    return [replace(links[0], after=None), *links[1:]]


commits = st.one_of(st.lists(write_sets, min_size=1, max_size=6), chains())


def asking(write: WriteSet, positions: Sequence[int]) -> WriteSet:
    """The set with true positions in its conditions; `positions` are those of the log, in order, after 0."""
    if not write.conditions:
        return write

    def at(back: int) -> int:
        return positions[max(len(positions) - 1 - back, 0)]

    return replace(
        write,
        conditions=[
            Condition(one.items, Seen(at(one.seen.safe), tuple(map(at, one.seen.above)))) for one in write.conditions
        ],
    )


def aimed(write: WriteSet, facts: Facts, before: WriteSet | None, number: int) -> WriteSet:
    """The set with what it expects taken from the facts, and an id for each of its messages; `before`: the set before it."""
    return replace(
        write,
        after=(before.key if before is not None else None) if write.after is LAST else write.after,
        appends=[_append(one, facts, f"{number}-{index}") for index, one in enumerate(write.appends)],
        fence=write.fence and Fence(write.fence.lease, facts.leases.get(write.fence.lease, 0) + write.fence.epoch),
        marks=[replace(one, expect=facts.marks.get((one.consumer, one.stream), 0) + one.expect) for one in write.marks],
        checkpoints=[replace(one, expect=facts.checkpoints.get(one.name, 0) + one.expect) for one in write.checkpoints],
        releases=[_release(one, facts) for one in write.releases],
        cancels=[_cancel(one, facts) for one in write.cancels],
        sagas=[replace(one, expect=facts.sagas.get((one.saga, one.key), 0) + one.expect) for one in write.sagas],
    )


def _release(one: Release, facts: Facts) -> Release:
    """Of something that is held, most often."""
    held = sorted(facts.held)
    return Release(*held[one.version % len(held)]) if held and one.version else one


def _cancel(one: Cancel, facts: Facts) -> Cancel:
    """Of a timer that is set, where it must be there."""
    timers = sorted(facts.timers)
    if one.must and timers and (one.owner, one.key, one.name) not in facts.timers:
        owner, key, name = timers[0]
        one = replace(one, owner=owner, key=key, name=name)
    return replace(one, due=facts.timers.get((one.owner, one.key, one.name), TIME) + one.due)


def _append(one: Append, facts: Facts, name: str) -> Append:
    expect = ANY if one.expect == ANY else facts.streams.get(one.stream, 0) + one.expect
    named = [replace(draft, id=draft.id or f"{name}-{index}") for index, draft in enumerate(one.drafts)]
    return Append(one.stream, expect, named)
