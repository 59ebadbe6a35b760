"""Promises of a commit: each set all or nothing, with its own answer."""

from __future__ import annotations

import random
from pathlib import Path

from headwater.checkpoint import Checkpoint
from headwater.database import Answer, Collision, Database, WriteSet
from headwater.errors import KeyReused
from headwater.inbox import Mark, Note, Reason, Release, Step
from headwater.lease import Fence
from headwater.store import ANY, Append, Committed
from headwater.table import Upsert
from headwater.testing.clock import VirtualClock
from headwater.testing.contracts.database.case import DatabaseCase, promise
from headwater.testing.contracts.database.values import (
    TIME,
    TOTALS,
    A,
    B,
    appending,
    commit_one,
    committed,
    committing,
    drafts,
    held,
    key,
    state,
    timer,
    versions,
)
from headwater.timer import Cancel


class ExpectPromises(DatabaseCase):
    """An append stands only where its stream is where it expects."""

    @promise
    async def test_expect_is_exact(self, database: Database, clock: VirtualClock) -> None:
        await committing(database, appending(A, 0, 2))
        for wrong in (0, 1, 3):
            answer = await commit_one(database, appending(A, wrong))
            assert isinstance(answer, Collision)
            assert A in answer.what
        assert await versions(database) == [1, 2]
        await committing(database, appending(A, 2))
        assert await versions(database) == [1, 2, 3]

    @promise
    async def test_expect_0_is_a_stream_that_is_not_there(self, database: Database, clock: VirtualClock) -> None:
        await committing(database, appending(A, 0))
        assert isinstance(await commit_one(database, appending(A, 0)), Collision)
        await committing(database, appending(B, 0))

    @promise
    async def test_expect_any_appends_wherever_the_stream_is(self, database: Database, clock: VirtualClock) -> None:
        await committing(database, appending(A, ANY), appending(A, ANY, 2))
        await committing(database, appending(A, ANY))
        assert await versions(database) == [1, 2, 3, 4]

    @promise
    async def test_a_stream_in_the_future_is_not_expected(self, database: Database, clock: VirtualClock) -> None:
        assert isinstance(await commit_one(database, appending(A, 5)), Collision)
        assert await database.head() == 0


def everything_of(expect: int) -> WriteSet:
    """A set with every part, whose append expects `expect`."""
    return WriteSet(
        appends=(Append(A, ANY, drafts(2)), Append(B, expect, drafts(1))),
        key=key("all"),
        marks=[Mark("mail", A, 4, 0)],
        checkpoints=[Checkpoint("reader", 9, 0)],
        holds=[held(A, 5, Reason.RETRY, due=TIME)],
        releases=[Release("mail", B, 1)],
        timers=[timer("new")],
        cancels=[Cancel("billing", "i-1", "old")],
        sagas=[state(0, b"state")],
        upserts=[Upsert(TOTALS, [("a", 1)])],
        note=Note("feed", [(A, 4)]),
        steps=[Step("mail", "m-1", "charge")],
        journal=[("mail", A, 4)],
    )


async def everything_in(database: Database) -> tuple[object, ...]:
    """All that `everything_of` may change."""
    return (
        await database.read(0, 100),
        await database.settled("", "all"),
        await database.marks("mail", [A]),
        await database.checkpoint("reader"),
        await database.held_list("mail", list(Reason), 10),
        await database.timers_list(10),
        await database.sagas("billing", ["i-1"]),
        await database.find(TOTALS, {}, 10),
        await database.noted("feed"),
        await database.steps("mail", "m-1"),
    )


async def prepare(database: Database) -> None:
    """What `everything_of` removes, and the table that it fills."""
    await database.create_table(TOTALS)
    await committing(database, WriteSet(holds=[held(B, 1)], timers=[timer("old")]))


class SetPromises(DatabaseCase):
    """A set is written whole or not at all; other sets of the same commit do not mind."""

    @promise
    async def test_all_parts_of_a_set_are_written_together(self, database: Database, clock: VirtualClock) -> None:
        await prepare(database)
        await committing(database, everything_of(0))
        database = await self.again(database)
        log, settled, marks, checkpoint, holds, timers, sagas, rows, note, steps = await everything_in(database)
        assert [(one.stream, one.version) for one in log] == [(A, 1), (A, 2), (B, 1)]  # type: ignore[attr-defined]
        assert settled is not None
        assert (marks, checkpoint, note, rows) == ({A: 4}, 9, [(A, 4)], [("a", 1)])
        assert holds == [held(A, 5, Reason.RETRY, due=TIME)]
        assert timers == [timer("new")]
        assert sagas == {"i-1": state(1, b"state")}
        assert steps == [Step("mail", "m-1", "charge")]

    @promise
    async def test_of_a_set_that_falls_nothing_is_written(self, database: Database, clock: VirtualClock) -> None:
        await prepare(database)
        before = await everything_in(database)
        assert isinstance(await commit_one(database, everything_of(3)), Collision)
        assert await everything_in(database) == before
        assert await self.journal_of(database) in ([], None)

    @promise
    async def test_sets_beside_one_that_falls_stand_with_their_own_answers(
        self, database: Database, clock: VirtualClock
    ) -> None:
        answers = await database.commit([appending(A, 0), appending(B, 7), appending(A, 1, 2), appending(B, 0)])
        assert [type(answer) for answer in answers] == [Committed, Collision, Committed, Committed]
        log = await database.read(0, 10)
        assert [(one.stream, one.version) for one in log] == [(A, 1), (A, 2), (A, 3), (B, 1)]
        positions = [one.position for one in log]
        assert positions == sorted(set(positions))

    @promise
    async def test_a_set_sees_the_sets_before_it_as_written(self, database: Database, clock: VirtualClock) -> None:
        first = WriteSet(
            appends=[Append(A, 0, drafts(1))],
            marks=[Mark("mail", A, 1, 0)],
            checkpoints=[Checkpoint("reader", 1, 0)],
            holds=[held(A, 1)],
            timers=[timer("expiry", TIME)],
            sagas=[state(0)],
        )
        second = WriteSet(
            appends=[Append(A, 1, drafts(1))],
            marks=[Mark("mail", A, 2, 1)],
            checkpoints=[Checkpoint("reader", 2, 1)],
            releases=[Release("mail", A, 1)],
            cancels=[Cancel("billing", "i-1", "expiry", must=True, due=TIME)],
            sagas=[state(1, b"two")],
        )
        again = await database.commit([first, second, first, second])
        assert [type(answer) for answer in again] == [Committed, Committed, Collision, Collision]
        assert await database.held_count("mail") == (0, 0)
        assert await database.next_timer() is None
        assert (await database.sagas("billing", ["i-1"]))["i-1"] == state(2, b"two")

    @promise
    async def test_of_two_sets_with_the_same_expect_in_one_commit_the_first_stands(
        self, database: Database, clock: VirtualClock
    ) -> None:
        answers = await database.commit([appending(A, 0, 2), appending(A, 0, 3)])
        assert [type(answer) for answer in answers] == [Committed, Collision]
        assert await versions(database) == [1, 2]

    @promise
    async def test_a_set_may_append_to_several_streams(self, database: Database, clock: VirtualClock) -> None:
        one = WriteSet(appends=[Append(B, 0, drafts(2)), Append(A, 0, drafts(1)), Append(B, ANY, drafts(1))])
        (answer,) = await committing(database, one)
        assert answer.version == 3
        assert [(one.stream, one.version) for one in await database.read(0, 10)] == [(B, 1), (B, 2), (A, 1), (B, 3)]

    @promise
    async def test_a_set_without_appends_stands_at_the_head(self, database: Database, clock: VirtualClock) -> None:
        await committing(database, appending(A, count=3))
        (answer,) = await committing(database, WriteSet(marks=[Mark("mail", A, 1, 0)]))
        assert answer.position == await database.head()
        assert isinstance(await commit_one(database, WriteSet()), Committed)

    @promise
    async def test_a_group_of_sets_is_answered_as_its_sets_alone(self, database: Database, clock: VirtualClock) -> None:
        folder = Path(self.tmp_path) / "alone"
        folder.mkdir()
        other = await self.make(folder, clock)
        self.databases.append(other)
        chance = random.Random(7)
        for _ in range(12):
            group = [random_set(chance) for _ in range(chance.randint(1, 6))]
            together = await database.commit(group)
            apart = [await commit_one(other, one) for one in group]
            assert [outcome(answer) for answer in together] == [outcome(answer) for answer in apart]
        assert [place(one) for one in await database.read(0, 1_000)] == [
            place(one) for one in await other.read(0, 1_000)
        ]


def outcome(answer: Answer) -> tuple[object, ...]:
    """What two databases must agree on."""
    if isinstance(answer, Committed):
        return ("committed", answer.version, answer.repeated)
    return (type(answer).__name__,)


def place(recorded: object) -> tuple[str, int, str]:
    """What two logs must agree on."""
    return recorded.stream, recorded.version, recorded.id  # type: ignore[attr-defined]


def random_set(chance: random.Random) -> WriteSet:
    """A set that may well collide with others of its kind."""
    small = chance.randint(0, 3)
    return WriteSet(
        appends=[Append(chance.choice((A, B)), chance.choice((ANY, ANY, small)), drafts(chance.randint(0, 2)))],
        key=key(f"k-{chance.randint(0, 9)}", of=chance.choice((b"x", b"x", b"y"))) if small else None,
        marks=[Mark("mail", A, small + 1, small)] if chance.random() < 0.3 else (),
        sagas=[state(small)] if chance.random() < 0.3 else (),
        holds=[held(A, small + 1)] if chance.random() < 0.3 else (),
        releases=[Release("mail", A, small + 1)] if chance.random() < 0.2 else (),
    )


class CommandKeyPromises(DatabaseCase):
    """A command key that is known is answered as it was the first time."""

    @promise
    async def test_a_key_that_is_known_is_answered_as_the_first_time(
        self, database: Database, clock: VirtualClock
    ) -> None:
        (first,) = await committing(database, appending(A, 0, 2, key=key()))
        await committing(database, appending(B, count=3))
        (again,) = await committing(database, appending(A, 0, 2, key=key()))
        assert again == Committed(first.position, first.version, repeated=True)
        assert await versions(database) == [1, 2]

    @promise
    async def test_a_key_is_known_within_its_own_commit(self, database: Database, clock: VirtualClock) -> None:
        answers = await committing(database, appending(A, key=key()), appending(B), appending(A, key=key()))
        assert answers[2] == Committed(answers[0].position, answers[0].version, repeated=True)
        assert await versions(database) == [1]

    @promise
    async def test_a_key_is_known_after_a_crash(self, database: Database, clock: VirtualClock) -> None:
        (first,) = await committing(database, appending(A, count=2, key=key()))
        database = await self.again(database)
        (again,) = await committing(database, appending(A, count=2, key=key()))
        assert again == Committed(first.position, first.version, repeated=True)
        assert await versions(database) == [1, 2]

    @promise
    async def test_a_repetition_writes_no_part_of_its_set(self, database: Database, clock: VirtualClock) -> None:
        await prepare(database)
        await committing(database, appending(A, key=key("all")))
        before = await everything_in(database)
        (again,) = await committing(database, everything_of(0))
        assert again.repeated
        assert await everything_in(database) == before

    @promise
    async def test_a_repetition_is_answered_whatever_its_set_expects(
        self, database: Database, clock: VirtualClock
    ) -> None:
        await committing(database, appending(A, 0, key=key()))
        assert committed(await commit_one(database, appending(A, 99, key=key()))).repeated

    @promise
    async def test_a_key_for_another_command_is_an_error(self, database: Database, clock: VirtualClock) -> None:
        first, reused = await database.commit([appending(A, key=key()), appending(A, key=key(of=b"other"))])
        assert isinstance(first, Committed)
        assert isinstance(reused, KeyReused)
        assert isinstance(await commit_one(database, appending(A, key=key(of=b"other"))), KeyReused)
        database = await self.again(database)
        assert isinstance(await commit_one(database, appending(A, key=key(of=b"other"))), KeyReused)
        assert await versions(database) == [1]

    @promise
    async def test_the_keys_of_tenants_are_apart(self, database: Database, clock: VirtualClock) -> None:
        one, two = key(tenant="acme"), key(tenant="zeta", of=b"other")
        answers = await committing(database, appending(A, key=one), appending(A, key=two), appending(A, key=key()))
        assert [answer.repeated for answer in answers] == [False, False, False]
        assert await versions(database) == [1, 2, 3]

    @promise
    async def test_a_key_of_a_set_that_fell_is_free(self, database: Database, clock: VirtualClock) -> None:
        assert isinstance(await commit_one(database, appending(A, 9, key=key())), Collision)
        assert await database.settled("", "k") is None
        (answer,) = await committing(database, appending(A, 0, key=key(of=b"other")))
        assert not answer.repeated

    @promise
    async def test_settled_tells_the_answer_by_key(self, database: Database, clock: VirtualClock) -> None:
        (answer,) = await committing(database, appending(A, count=2, key=key("ü💧", "acme", b"\x00\xff")))
        found = await database.settled("acme", "ü💧")
        assert found is not None
        assert (found.hash, found.position, found.version) == (b"\x00\xff", answer.position, 2)
        assert await database.settled("", "ü💧") is None
        assert await database.settled("acme", "k") is None

    @promise
    async def test_old_keys_are_forgotten_and_counted(self, database: Database, clock: VirtualClock) -> None:
        old = [appending(A, key=key(f"old-{number}", time=TIME + number)) for number in range(3)]
        await committing(database, *old, appending(A, key=key("new", time=TIME + 100)))
        assert await database.forget_keys(TIME + 3) == 3
        assert await database.forget_keys(TIME + 100) == 0
        assert await database.settled("", "old-2") is None
        assert await database.settled("", "new") is not None
        (again,) = await committing(database, appending(A, key=key("old-1", of=b"other")))
        assert not again.repeated


class FencePromises(DatabaseCase):
    """A set with a fence stands only while the lease is at that epoch."""

    @promise
    async def test_a_set_of_the_present_epoch_stands(self, database: Database, clock: VirtualClock) -> None:
        lease = await database.acquire("relay", "one")
        assert lease is not None
        await committing(database, appending(A, fence=Fence("relay", lease.epoch)))

    @promise
    async def test_a_set_of_another_epoch_writes_nothing(self, database: Database, clock: VirtualClock) -> None:
        lease = await database.acquire("relay", "one")
        assert lease is not None
        for stale in (lease.epoch - 1, lease.epoch + 1):
            assert isinstance(await commit_one(database, appending(A, fence=Fence("relay", stale))), Collision)
        assert isinstance(await commit_one(database, appending(A, fence=Fence("nobody", 1))), Collision)
        assert await database.head() == 0

    @promise
    async def test_a_fence_binds_its_own_set_only(self, database: Database, clock: VirtualClock) -> None:
        answers = await database.commit([appending(A, fence=Fence("relay", 5)), appending(A)])
        assert [type(answer) for answer in answers] == [Collision, Committed]
