"""Promises of the inbox: marks, held messages, notes, outside effects, the journal."""

from __future__ import annotations

from headwater.database import Collision, Database, WriteSet
from headwater.inbox import Held, Mark, Note, Reason, Release, Step
from headwater.store import Committed
from headwater.testing.clock import VirtualClock
from headwater.testing.contracts.database.case import DatabaseCase, promise
from headwater.testing.contracts.database.values import TIME, A, B, appending, commit_one, committing, held

C = "bank.Account/c"


class MarkPromises(DatabaseCase):
    """One mark a (consumer, stream), moved by compare-and-set, for ever."""

    @promise
    async def test_a_mark_moves_only_from_where_it_is(self, database: Database, clock: VirtualClock) -> None:
        await committing(database, WriteSet(marks=[Mark("mail", A, 3, 0)]))
        for stale in (0, 2, 4):
            assert isinstance(await commit_one(database, WriteSet(marks=[Mark("mail", A, 9, stale)])), Collision)
        assert await database.marks("mail", [A]) == {A: 3}
        await committing(database, WriteSet(marks=[Mark("mail", A, 7, 3)]))
        assert await database.marks("mail", [A]) == {A: 7}

    @promise
    async def test_marks_of_consumers_and_streams_are_apart(self, database: Database, clock: VirtualClock) -> None:
        await committing(
            database, WriteSet(marks=[Mark("mail", A, 1, 0), Mark("mail", B, 2, 0), Mark("print", A, 3, 0)])
        )
        assert await database.marks("mail", [A, B, C]) == {A: 1, B: 2}
        assert await database.marks("print", [A, B]) == {A: 3}
        assert await database.marks("nobody", [A]) == {}
        assert await database.marks("mail", []) == {}

    @promise
    async def test_one_stale_mark_of_many_fells_the_set(self, database: Database, clock: VirtualClock) -> None:
        await committing(database, WriteSet(marks=[Mark("mail", B, 5, 0)]))
        assert isinstance(
            await commit_one(database, WriteSet(marks=[Mark("mail", A, 1, 0), Mark("mail", B, 6, 0)])), Collision
        )
        assert await database.marks("mail", [A, B]) == {B: 5}

    @promise
    async def test_marks_outlive_a_crash_and_many_are_read_at_once(
        self, database: Database, clock: VirtualClock
    ) -> None:
        streams = [f"bank.Account/{number}" for number in range(2_000)]
        await committing(database, WriteSet(marks=[Mark("mail", stream, 1, 0) for stream in streams]))
        database = await self.again(database)
        assert await database.marks("mail", streams) == dict.fromkeys(streams, 1)


class HeldPromises(DatabaseCase):
    """What is not done is held, whole, by key, until it is released."""

    @promise
    async def test_a_held_message_reads_back_whole(self, database: Database, clock: VirtualClock) -> None:
        whole = held(
            A,
            4,
            Reason.UNCERTAIN,
            previous=2,
            data=b"\x00\xff not json",
            due=5,
            attempts=3,
            crashes=2,
            cause="the müller is down 💧",
            fingerprint="f" * 64,
            history=["first", "second ü"],
            since=TIME,
            headers={"type": "bank.Withdrawn", "odd": "ü"},
            raw=True,
        )
        await committing(database, WriteSet(holds=[whole]))
        database = await self.again(database)
        assert _plain(await database.held_of("mail", A, 10)) == _plain([whole])
        assert isinstance((await database.held_of("mail", A, 10))[0].reason, Reason)

    @promise
    async def test_holding_a_held_message_replaces_it(self, database: Database, clock: VirtualClock) -> None:
        await committing(database, WriteSet(holds=[held(A, 1, Reason.RETRY, due=5, attempts=1)]))
        later = held(A, 1, Reason.DEAD, attempts=8, cause="gave up")
        await committing(database, WriteSet(holds=[later]))
        assert _plain(await database.held_of("mail", A, 10)) == _plain([later])
        assert (await database.held_count("mail"))[0] == 1

    @promise
    async def test_a_set_may_release_and_hold_the_same_message(self, database: Database, clock: VirtualClock) -> None:
        await committing(database, WriteSet(holds=[held(A, 1)]))
        again = held(A, 1, Reason.RETRY, due=9, attempts=2)
        await committing(database, WriteSet(releases=[Release("mail", A, 1)], holds=[again]))
        assert _plain(await database.held_of("mail", A, 10)) == _plain([again])

    @promise
    async def test_only_what_is_held_can_be_released(self, database: Database, clock: VirtualClock) -> None:
        await committing(database, WriteSet(holds=[held(A, 1), held(A, 2, Reason.BEHIND)]))
        for wrong in (Release("mail", A, 3), Release("mail", B, 1), Release("print", A, 1)):
            one = WriteSet(releases=[Release("mail", A, 1), wrong])
            assert isinstance(await commit_one(database, one), Collision)
        assert (await database.held_count("mail"))[0] == 2
        release = WriteSet(releases=[Release("mail", A, 1)])
        answers = await database.commit([release, release])
        assert [type(answer) for answer in answers] == [Committed, Collision]
        assert [one.message.version for one in await database.held_of("mail", A, 10)] == [2]

    @promise
    async def test_held_keys_tells_which_are_held_by_this_consumer(
        self, database: Database, clock: VirtualClock
    ) -> None:
        await committing(database, WriteSet(holds=[held(A, 1), held(B, 1, consumer="print")]))
        assert await database.held_keys("mail", [A, B, C]) == {A}
        assert await database.held_keys("print", [A, B, C]) == {B}
        assert await database.held_keys("mail", []) == set()
        await committing(database, WriteSet(releases=[Release("mail", A, 1)]))
        assert await database.held_keys("mail", [A, B]) == set()

    @promise
    async def test_held_count_counts_messages_and_bytes(self, database: Database, clock: VirtualClock) -> None:
        assert await database.held_count("mail") == (0, 0)
        await committing(database, WriteSet(holds=[held(A, 1, data=b"x" * 1_000), held(B, 1, data=b"y" * 500)]))
        count, size = await database.held_count("mail")
        assert count == 2
        assert 1_500 <= size < 3_000
        await committing(database, WriteSet(releases=[Release("mail", A, 1), Release("mail", B, 1)]))
        assert await database.held_count("mail") == (0, 0)

    @promise
    async def test_held_of_gives_a_key_in_order_of_version(self, database: Database, clock: VirtualClock) -> None:
        holds = [held(A, version, Reason.BEHIND) for version in (10, 2, 9, 1)]
        await committing(database, WriteSet(holds=[*holds, held(B, 3), held(A, 4, consumer="print")]))
        assert [one.message.version for one in await database.held_of("mail", A, 10)] == [1, 2, 9, 10]
        assert [one.message.version for one in await database.held_of("mail", A, 2)] == [1, 2]
        assert await database.held_of("mail", C, 10) == []

    @promise
    async def test_held_list_gives_an_operator_what_has_a_reason(self, database: Database, clock: VirtualClock) -> None:
        holds = [held(A, 1, Reason.DEAD), held(A, 2, Reason.BEHIND), held(B, 1, Reason.UNCERTAIN)]
        await committing(database, WriteSet(holds=[*holds, held(C, 1, Reason.DEAD, consumer="print")]))
        assert _places(await database.held_list("mail", [Reason.DEAD], 10)) == {("mail", A, 1)}
        both = {("mail", A, 1), ("mail", B, 1), ("print", C, 1)}
        assert _places(await database.held_list(None, [Reason.DEAD, Reason.UNCERTAIN], 10)) == both
        assert _places(await database.held_list("mail", [Reason.GAP], 10)) == set()
        assert len(await database.held_list(None, list(Reason), 3)) == 3


class TurnPromises(DatabaseCase):
    """`held_due` gives the first message of each key whose turn it is, and `next_due` says when to ask again."""

    @promise
    async def test_only_the_first_message_of_a_key_has_its_turn(self, database: Database, clock: VirtualClock) -> None:
        behind = [held(A, version, Reason.BEHIND) for version in (2, 3)]
        await committing(database, WriteSet(holds=[*behind, held(A, 1, Reason.RETRY, due=TIME)]))
        assert _places(await database.held_due("mail", TIME, 10)) == {("mail", A, 1)}
        await committing(database, WriteSet(releases=[Release("mail", A, 1)]))
        assert _places(await database.held_due("mail", TIME, 10)) == {("mail", A, 2)}

    @promise
    async def test_a_retry_has_its_turn_when_it_is_due_and_its_key_waits(
        self, database: Database, clock: VirtualClock
    ) -> None:
        holds = [held(A, 1, Reason.RETRY, due=TIME + 5), held(A, 2, Reason.BEHIND)]
        await committing(database, WriteSet(holds=holds))
        assert await database.held_due("mail", TIME + 4, 10) == []
        assert _places(await database.held_due("mail", TIME + 5, 10)) == {("mail", A, 1)}
        assert await database.next_due("mail") == TIME + 5

    @promise
    async def test_a_parked_key_has_no_turn_and_others_flow(self, database: Database, clock: VirtualClock) -> None:
        parked = [held(A, 1, Reason.DEAD), held(B, 1, Reason.UNCERTAIN), held(C, 5, Reason.GAP, previous=3)]
        behind = [held(stream, version + 1, Reason.BEHIND) for stream, version in ((A, 1), (B, 1), (C, 5))]
        await committing(database, WriteSet(holds=[*parked, *behind]))
        assert await database.held_due("mail", TIME * 2, 10) == []
        assert await database.next_due("mail") is None
        await committing(database, WriteSet(holds=[held("other/d", 1, Reason.RETRY, due=TIME)]))
        assert _places(await database.held_due("mail", TIME, 10)) == {("mail", "other/d", 1)}

    @promise
    async def test_a_gap_has_its_turn_once_the_mark_has_reached_what_was_before_it(
        self, database: Database, clock: VirtualClock
    ) -> None:
        gap = held(A, 5, Reason.GAP, previous=3, due=TIME * 3)
        await committing(database, WriteSet(holds=[gap, held(A, 6, Reason.BEHIND)], marks=[Mark("mail", A, 2, 0)]))
        await committing(database, WriteSet(marks=[Mark("print", A, 3, 0), Mark("mail", B, 3, 0)]))
        assert await database.held_due("mail", TIME, 10) == []
        assert await database.next_due("mail") is None
        await committing(database, WriteSet(marks=[Mark("mail", A, 3, 2)]))
        assert _places(await database.held_due("mail", TIME, 10)) == {("mail", A, 5)}
        when = await database.next_due("mail")
        assert when is not None
        assert when <= TIME

    @promise
    async def test_what_fills_a_gap_comes_before_it(self, database: Database, clock: VirtualClock) -> None:
        gap, filler = held(A, 5, Reason.GAP, previous=3), held(A, 3, Reason.RETRY, due=TIME + 9)
        await committing(database, WriteSet(holds=[gap, filler], marks=[Mark("mail", A, 3, 0)]))
        assert await database.held_due("mail", TIME, 10) == []
        assert _places(await database.held_due("mail", TIME + 9, 10)) == {("mail", A, 3)}

    @promise
    async def test_the_oldest_come_first_up_to_the_limit(self, database: Database, clock: VirtualClock) -> None:
        streams = [f"bank.Account/{number}" for number in range(5)]
        dues = [TIME + due for due in (40, 10, 50, 20, 30)]
        holds = [held(stream, 1, Reason.RETRY, due=due, since=due) for stream, due in zip(streams, dues, strict=True)]
        await committing(database, WriteSet(holds=holds))
        found = await database.held_due("mail", TIME + 45, 3)
        assert [one.due - TIME for one in found] == [10, 20, 30]
        assert [one.due - TIME for one in await database.held_due("mail", TIME + 45, 10)] == [10, 20, 30, 40]
        assert await database.next_due("mail") == TIME + 10

    @promise
    async def test_the_turns_of_consumers_are_apart(self, database: Database, clock: VirtualClock) -> None:
        await committing(database, WriteSet(holds=[held(A, 1, due=TIME), held(A, 2, due=TIME + 9, consumer="print")]))
        assert _places(await database.held_due("mail", TIME + 9, 10)) == {("mail", A, 1)}
        assert _places(await database.held_due("print", TIME + 9, 10)) == {("print", A, 2)}
        assert await database.next_due("print") == TIME + 9
        assert await database.next_due("nobody") is None


class NotePromises(DatabaseCase):
    """What a feed has in its hands, what outside effects are under way, and which effects are in."""

    @promise
    async def test_a_note_is_replaced_and_read_back_after_a_crash(
        self, database: Database, clock: VirtualClock
    ) -> None:
        assert await database.noted("feed") == []
        await committing(
            database, WriteSet(note=Note("feed", [(A, 1), (B, 2)])), WriteSet(note=Note("other", [(C, 3)]))
        )
        await committing(database, WriteSet(note=Note("feed", [(B, 3), (A, 2)])))
        database = await self.again(database)
        assert await database.noted("feed") == [(B, 3), (A, 2)]
        assert await database.noted("other") == [(C, 3)]

    @promise
    async def test_an_empty_note_clears_it_and_no_note_leaves_it(self, database: Database, clock: VirtualClock) -> None:
        await committing(database, WriteSet(note=Note("feed", [(A, 1)])), WriteSet())
        assert await database.noted("feed") == [(A, 1)]
        await committing(database, WriteSet(note=Note("feed", ())))
        assert await database.noted("feed") == []

    @promise
    async def test_a_step_is_intended_then_done_then_cleared(self, database: Database, clock: VirtualClock) -> None:
        intended = Step("mail", "m-1", "charge")
        done = Step("mail", "m-1", "charge", done=True, outcome=b'{"receipt":"\xc3\xbc"}')
        await committing(database, WriteSet(steps=[intended]))
        database = await self.again(database)
        assert await database.steps("mail", "m-1") == [intended]
        await committing(database, WriteSet(steps=[done]))
        assert await database.steps("mail", "m-1") == [done]
        await committing(database, WriteSet(steps=[Step("mail", "m-1", "charge", clear=True)]))
        assert await database.steps("mail", "m-1") == []

    @promise
    async def test_a_step_that_must_be_new_stands_once(self, database: Database, clock: VirtualClock) -> None:
        first, done = Step("mail", "m-1", "charge", new=True), Step("mail", "m-1", "charge", done=True, outcome=b"7")
        others = [Step("mail", "m-1", "bill", new=True), Step("mail", "m-2", "charge", new=True)]
        await committing(database, WriteSet(steps=[first]))
        again = appending(A, 0, steps=[first])
        assert isinstance((await database.commit([again]))[0], Collision)
        await committing(database, WriteSet(steps=[done, *others]))
        assert isinstance((await database.commit([again]))[0], Collision)
        await committing(database, WriteSet(steps=[Step("mail", "m-1", "charge", clear=True)]))
        answers = await database.commit([again, again])
        assert [type(answer) for answer in answers] == [Committed, Collision]
        assert len(await database.read(0, 10)) == 1

    @promise
    async def test_steps_of_a_message_are_all_and_without_one_the_open(
        self, database: Database, clock: VirtualClock
    ) -> None:
        one, two = Step("mail", "m-1", "one", done=True, outcome=b"1"), Step("mail", "m-1", "two")
        other, elsewhere = Step("mail", "m-2", "one"), Step("print", "m-1", "one")
        await committing(database, WriteSet(steps=[one, two, other, elsewhere]))
        assert _named(await database.steps("mail", "m-1")) == _named([one, two])
        assert _named(await database.steps("mail", None)) == _named([two, other])
        assert _named(await database.steps(None, None)) == _named([two, other, elsewhere])
        assert await database.steps("mail", "m-9") == []

    @promise
    async def test_the_journal_has_a_line_for_each_effect_that_stands(
        self, database: Database, clock: VirtualClock
    ) -> None:
        standing = WriteSet(journal=[("mail", A, 1), ("mail", B, 2)])
        fallen = WriteSet(journal=[("mail", C, 3)], marks=[Mark("mail", A, 9, 8)])
        answers = await database.commit([standing, fallen])
        assert [type(answer) for answer in answers] == [Committed, Collision]
        lines = await self.journal_of(database)
        assert lines is None or sorted(lines) == [("mail", A, 1), ("mail", B, 2)]


def _places(found: list[Held]) -> set[tuple[str, str, int]]:
    assert len({(one.consumer, one.message.stream, one.message.version) for one in found}) == len(found)
    return {(one.consumer, one.message.stream, one.message.version) for one in found}


def _named(steps: list[Step]) -> set[tuple[str, str, str, bool, bytes]]:
    return {(step.consumer, step.message_id, step.name, step.done, step.outcome) for step in steps}


def _plain(found: list[Held]) -> list[tuple[object, ...]]:
    """All fields but the position of the message, which is where it was read from: it may be kept or not."""
    return [
        (
            (one.consumer, one.key, one.reason, one.due, one.attempts, one.crashes, one.cause, one.fingerprint),
            (list(one.history), one.since, dict(one.headers), one.raw),
            (one.message.stream, one.message.version, one.message.previous, one.message.kind, one.message.id),
            (one.message.type, one.message.type_version, one.message.codec, one.message.time),
            (one.message.data, one.message.meta),
        )
        for one in found
    ]
