"""The rules by which write sets stand or fall, without any database."""

from __future__ import annotations

import copy

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from headwater.checkpoint import Checkpoint
from headwater.database import Collision, Facts, Judgement, WriteSet, judge, needs
from headwater.errors import KeyReused
from headwater.inbox import Mark, Release
from headwater.lease import Fence
from headwater.store import ANY, Append, CommandKey, Committed, Settled
from headwater.testing.contracts.database.values import TIME, draft, drafts, held, state, timer
from headwater.timer import Cancel

A, B = "bank.Account/a", "bank.Account/b"
CANCEL = Cancel("billing", "i-1", "expiry", must=True, due=TIME)
TIMER = ("billing", "i-1", "expiry")


def append(stream: str = A, expect: int = ANY, count: int = 1, **parts: object) -> WriteSet:
    return WriteSet(appends=(Append(stream, expect, drafts(count)),), **parts)


def key(name: str = "k", tenant: str = "", of: bytes = b"hash") -> CommandKey:
    return CommandKey(tenant, name, of, TIME)


def judged(*writes: WriteSet, **facts: object) -> Judgement:
    return judge(writes, Facts(**facts))


def stands(write: WriteSet, **facts: object) -> bool:
    (answer,) = judged(write, **facts).answers
    assert isinstance(answer, Committed | Collision)
    return isinstance(answer, Committed)


# --- what is needed ---


def test_nothing_is_needed_for_no_sets_and_for_empty_ones():
    assert needs([]) == needs([WriteSet(), WriteSet()])
    assert needs([]).streams == set()


def test_needs_names_all_that_sets_expect():
    everything = WriteSet(
        appends=[Append(A, ANY, []), Append(B, 0, [])],
        key=key("k", "acme"),
        fence=Fence("relay", 1),
        marks=[Mark("mail", A, 1, 0)],
        checkpoints=[Checkpoint("reader", 1, 0)],
        releases=[Release("mail", A, 1)],
        cancels=[CANCEL, Cancel("billing", "i-1", "whatever")],
        sagas=[state(0)],
    )
    found = needs([everything, append(A), WriteSet(fence=Fence("timers", 1))])
    assert found.streams == {A, B}
    assert found.keys == {("acme", "k")}
    assert found.leases == {"relay", "timers"}
    assert found.marks == {("mail", A)}
    assert found.checkpoints == {"reader"}
    assert found.held == {("mail", A, 1)}
    assert found.timers == {TIMER}
    assert found.sagas == {("billing", "i-1")}


def test_what_is_only_written_is_not_read():
    found = needs([WriteSet(holds=[held(A, 1)], timers=[timer("expiry")])])
    assert (found.held, found.timers) == (set(), set())


# --- appends ---


def test_messages_get_the_next_versions_and_positions():
    result = judged(append(A, 4, 2), append(B, 0, 1), position=10, streams={A: 4})
    places = [(one.position, one.stream, one.version, one.previous) for one in result.recorded]
    assert places == [(11, A, 5, 4), (12, A, 6, 5), (13, B, 1, 0)]
    assert result.answers == [Committed(12, 6), Committed(13, 1)]


def test_a_message_keeps_all_that_was_drafted():
    one = draft(b"data", kind="command", type="t", type_version=7, codec=3, time=9, meta=b"m")
    (found,) = judged(WriteSet(appends=[Append(A, 0, [one])])).recorded
    for name in set(one.__struct_fields__) - {"tags"}:
        assert getattr(found, name) == getattr(one, name)


@pytest.mark.parametrize(
    ("at", "expect", "standing"), [(0, 0, 1), (0, 1, 0), (3, 3, 1), (3, 2, 0), (3, 4, 0), (3, ANY, 1)]
)
def test_an_append_stands_where_its_stream_is_where_it_expects(at, expect, standing):
    assert stands(append(A, expect), streams={A: at} if at else {}) is bool(standing)


def test_a_collision_says_what_did_not_hold():
    (answer,) = judged(append(A, 7), streams={A: 2}).answers
    assert answer == Collision(f"stream {A} is at version 2, expected 7")


def test_a_set_that_falls_moves_nothing():
    facts = Facts(position=5, streams={A: 2}, marks={("mail", A): 1})
    before = copy.deepcopy(facts)
    falls = WriteSet(
        appends=[Append(B, 0, drafts(2)), Append(A, 9, drafts(1))], marks=[Mark("mail", A, 2, 1)], key=key()
    )
    result = judge([falls], facts)
    assert facts == before
    assert (result.standing, result.recorded, result.settled) == ([], [], [])


def test_a_set_sees_those_before_it_that_stood():
    result = judged(append(A, 0, 2), append(A, 0), append(A, 2), append(A, 3))
    assert [type(answer) for answer in result.answers] == [Committed, Collision, Committed, Committed]
    assert [one.version for one in result.recorded] == [1, 2, 3, 4]


def test_a_set_without_messages_is_answered_with_the_head():
    assert judged(WriteSet(), position=8).answers == [Committed(8, 0)]


# --- command keys ---


def test_a_known_key_repeats_its_answer_and_writes_nothing():
    result = judged(append(A, 99, key=key()), keys={("", "k"): Settled(b"hash", 4, 2)}, position=9)
    assert result.answers == [Committed(4, 2, repeated=True)]
    assert (result.standing, result.recorded, result.settled) == ([], [], [])


def test_a_known_key_of_another_command_is_an_error():
    (answer,) = judged(append(A, key=key(of=b"other")), keys={("", "k"): Settled(b"hash", 4, 2)}).answers
    assert isinstance(answer, KeyReused)
    assert "'k'" in str(answer)


def test_a_key_is_known_to_the_sets_after_it():
    result = judged(append(A, count=2, key=key()), append(A, key=key()), append(A, key=key(of=b"other")))
    assert result.answers[:2] == [Committed(2, 2), Committed(2, 2, repeated=True)]
    assert isinstance(result.answers[2], KeyReused)
    assert result.settled == [("", "k", Settled(b"hash", 2, 2), TIME)]


def test_keys_of_tenants_are_apart():
    result = judged(append(A, key=key(tenant="acme")), append(A, key=key(tenant="zeta", of=b"other")))
    assert result.answers == [Committed(1, 1), Committed(2, 2)]


# --- everything else that is expected ---


@pytest.mark.parametrize(
    ("write", "facts", "broken"),
    [
        (WriteSet(fence=Fence("relay", 3)), {"leases": {"relay": 3}}, {"leases": {"relay": 4}}),
        (WriteSet(fence=Fence("relay", 3)), {"leases": {"relay": 3}}, {}),
        (WriteSet(marks=[Mark("mail", A, 9, 4)]), {"marks": {("mail", A): 4}}, {"marks": {("mail", A): 5}}),
        (WriteSet(marks=[Mark("mail", A, 9, 0)]), {"marks": {("mail", B): 4}}, {"marks": {("mail", A): 1}}),
        (WriteSet(checkpoints=[Checkpoint("r", 9, 4)]), {"checkpoints": {"r": 4}}, {"checkpoints": {"r": 3}}),
        (WriteSet(releases=[Release("mail", A, 1)]), {"held": {("mail", A, 1)}}, {"held": {("mail", A, 2)}}),
        (WriteSet(cancels=[CANCEL]), {"timers": {TIMER: TIME}}, {"timers": {TIMER: TIME + 1}}),
        (WriteSet(cancels=[CANCEL]), {"timers": {TIMER: TIME}}, {}),
        (WriteSet(sagas=[state(2)]), {"sagas": {("billing", "i-1"): 2}}, {"sagas": {("billing", "i-1"): 3}}),
        (WriteSet(sagas=[state(0)]), {}, {"sagas": {("billing", "i-1"): 1}}),
    ],
)
def test_a_set_falls_with_anything_it_expects(write, facts, broken):
    assert stands(write, **copy.deepcopy(facts))
    assert not stands(write, **copy.deepcopy(broken))


def test_a_cancel_without_must_never_falls():
    assert stands(WriteSet(cancels=[Cancel("billing", "i-1", "expiry")]))


@pytest.mark.parametrize(
    ("first", "second", "again"),
    [
        (WriteSet(marks=[Mark("mail", A, 1, 0)]), WriteSet(marks=[Mark("mail", A, 2, 1)]), False),
        (WriteSet(checkpoints=[Checkpoint("r", 1, 0)]), WriteSet(checkpoints=[Checkpoint("r", 2, 1)]), False),
        (WriteSet(holds=[held(A, 1)]), WriteSet(releases=[Release("mail", A, 1)]), True),
        (WriteSet(timers=[timer("expiry", TIME)]), WriteSet(cancels=[CANCEL]), True),
        (WriteSet(sagas=[state(0)]), WriteSet(sagas=[state(1)]), False),
    ],
)
def test_what_a_set_wrote_holds_for_the_next(first, second, again):
    result = judged(second, first, second, second, first)
    kinds = [isinstance(answer, Committed) for answer in result.answers]
    assert kinds == [False, True, True, False, again]


def test_a_timer_that_was_moved_in_the_same_commit_no_longer_fires_at_its_old_time():
    moved = WriteSet(timers=[timer("expiry", TIME + 5)])
    result = judged(moved, WriteSet(cancels=[CANCEL]), timers={TIMER: TIME})
    assert isinstance(result.answers[1], Collision)


def test_a_set_that_cancels_and_sets_a_timer_leaves_it_set():
    both = WriteSet(cancels=[CANCEL], timers=[timer("expiry", TIME + 5)])
    fire = WriteSet(cancels=[Cancel("billing", "i-1", "expiry", must=True, due=TIME + 5)])
    result = judged(both, fire, timers={TIMER: TIME})
    assert all(isinstance(answer, Committed) for answer in result.answers)


def test_a_set_that_releases_and_holds_a_message_leaves_it_held():
    both = WriteSet(releases=[Release("mail", A, 1)], holds=[held(A, 1)])
    result = judged(both, both, held={("mail", A, 1)})
    assert all(isinstance(answer, Committed) for answer in result.answers)


# --- any sets at all ---

small = st.integers(0, 3)
streams = st.sampled_from((A, B))
some = st.fixed_dictionaries(
    {},
    optional={
        "appends": st.lists(st.builds(Append, streams, st.one_of(st.just(ANY), small), small.map(drafts)), max_size=2),
        "key": st.builds(
            CommandKey, st.sampled_from(("", "acme")), st.sampled_from("kl"), st.sampled_from((b"x", b"y")), small
        ),
        "fence": st.builds(Fence, st.just("relay"), small),
        "marks": st.lists(st.builds(Mark, st.just("mail"), streams, small, small), max_size=2),
        "checkpoints": st.lists(st.builds(Checkpoint, st.just("reader"), small, small), max_size=1),
        "holds": st.lists(st.builds(held, streams, st.integers(1, 3)), max_size=2),
        "releases": st.lists(st.builds(Release, st.just("mail"), streams, st.integers(1, 3)), max_size=2),
        "timers": st.lists(st.builds(timer, st.just("expiry"), small), max_size=1),
        "cancels": st.lists(
            st.builds(Cancel, st.just("billing"), st.just("i-1"), st.just("expiry"), st.booleans(), small), max_size=1
        ),
        "sagas": st.lists(st.builds(state, small), max_size=1),
    },
)
groups = st.lists(some.map(lambda parts: WriteSet(**parts)), max_size=6)
stored = st.builds(
    Facts,
    position=st.integers(0, 9),
    streams=st.dictionaries(streams, st.integers(1, 3)),
    keys=st.dictionaries(st.tuples(st.sampled_from(("", "acme")), st.sampled_from("kl")), st.just(Settled(b"x", 1, 1))),
    leases=st.dictionaries(st.just("relay"), st.integers(1, 3)),
    marks=st.dictionaries(st.tuples(st.just("mail"), streams), st.integers(1, 3)),
    checkpoints=st.dictionaries(st.just("reader"), st.integers(1, 3)),
    held=st.sets(st.tuples(st.just("mail"), streams, st.integers(1, 3))),
    timers=st.dictionaries(st.just(TIMER), small),
    sagas=st.dictionaries(st.just(("billing", "i-1")), st.integers(1, 3)),
)
quick = settings(max_examples=60, deadline=None, database=None)


@quick
@given(groups, stored)
def test_places_are_contiguous_and_only_of_sets_that_stand(writes, facts):
    heads, position = dict(facts.streams), facts.position
    result = judge(writes, facts)
    assert [one.position for one in result.recorded] == list(range(position + 1, position + 1 + len(result.recorded)))
    for one in result.recorded:
        assert (one.version, one.previous) == (heads.get(one.stream, 0) + 1, heads.get(one.stream, 0))
        heads[one.stream] = one.version
    written = [draft.id for write in result.standing for append in write.appends for draft in append.drafts]
    assert [one.id for one in result.recorded] == written
    committed = [answer for answer in result.answers if isinstance(answer, Committed) and not answer.repeated]
    assert len(result.standing) == len(committed)
    assert len(result.answers) == len(writes)


@quick
@given(groups, stored)
def test_a_group_is_judged_as_its_sets_one_after_another(writes, facts):
    other = copy.deepcopy(facts)
    together = judge(writes, facts)
    apart = [judge([write], other) for write in writes]
    assert [str(answer) for answer in together.answers] == [str(one.answers[0]) for one in apart]
    assert together.recorded == [recorded for one in apart for recorded in one.recorded]
    assert facts == other


@quick
@given(groups, stored)
def test_what_is_needed_is_enough_to_judge(writes, facts):
    wanted = needs(writes)
    read = Facts(
        position=facts.position,
        held=facts.held & wanted.held,
        **{
            name: {key: value for key, value in getattr(facts, name).items() if key in getattr(wanted, name)}
            for name in ("streams", "keys", "leases", "marks", "checkpoints", "timers", "sagas")
        },
    )
    assert [str(answer) for answer in judge(writes, read).answers] == [str(one) for one in judge(writes, facts).answers]
