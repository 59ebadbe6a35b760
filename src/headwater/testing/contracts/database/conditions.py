"""Promises of conditions: an append stands only if of the events that its decision rests on none has come since."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from headwater.database import Answer, Collision, Database, WriteSet
from headwater.errors import DeclarationError
from headwater.message import Draft
from headwater.store import ANY, Append, Committed, Condition, Item, Seen
from headwater.testing.clock import VirtualClock
from headwater.testing.contracts.database.case import DatabaseCase, promise
from headwater.testing.contracts.database.values import A, B, commit_one, committed, committing, draft, key
from headwater.testing.contracts.race import RACERS, run_race, wrong

COURSE, PUPIL = "course:c1", "pupil:p1"
OF_COURSE = Item(("school.Joined",), (COURSE,))
OF_BOTH = Item(("school.Joined", "school.Left"), (COURSE, PUPIL))
LARGE = 400


def joined(*tags: str, name: str = "school.Joined", **fields: Any) -> Draft:
    """An event with tags."""
    return draft(type=name, tags=tags, **fields)


def placing(*events: Draft, stream: str = A, **parts: Any) -> WriteSet:
    """A set that appends these."""
    return WriteSet(appends=(Append(stream, ANY, events),), **parts)


async def seen_of(database: Database, *items: Item) -> Condition:
    """The condition that nothing comes which these items take, from now on."""
    return Condition(items, (await database.read_relevant(items, Seen())).seen)


async def found(database: Database, *items: Item) -> list[tuple[str, list[int]]]:
    """The ids of the events that these items take, with the places of the items."""
    relevant = await database.read_relevant(items, Seen())
    return [(one.id, list(places)) for one, places in relevant.events]


class RelevantPromises(DatabaseCase):
    """Events are found by type and tag."""

    @promise
    async def test_items_take_any_of_their_types_and_all_of_their_tags(
        self, database: Database, clock: VirtualClock
    ) -> None:
        await committing(
            database,
            placing(joined(COURSE, PUPIL, id="both"), joined(COURSE, id="course"), joined(PUPIL, id="pupil")),
            placing(joined(COURSE, PUPIL, id="left", name="school.Left"), joined(id="none"), stream=B),
            placing(joined(COURSE, PUPIL, id="else", name="school.Else")),
        )
        assert await found(database, OF_COURSE) == [("both", [0]), ("course", [0])]
        assert await found(database, OF_BOTH) == [("both", [0]), ("left", [0])]
        assert await found(database, Item(tags=(PUPIL,))) == [
            ("both", [0]), ("pupil", [0]), ("left", [0]), ("else", [0]),
        ]  # fmt: skip
        assert await found(database, Item(("school.Left", "school.Else"))) == [("left", [0]), ("else", [0])]
        assert await found(database, Item(("school.Joined",), (PUPIL,)), OF_COURSE, OF_BOTH) == [
            ("both", [0, 1, 2]), ("course", [1]), ("pupil", [0]), ("left", [2]),
        ]  # fmt: skip
        assert await found(database, Item(("school.Never",)), Item(tags=("course:c2",))) == []
        assert await found(database) == []

    @promise
    async def test_what_is_found_is_what_the_log_has(self, database: Database, clock: VirtualClock) -> None:
        await committing(database, placing(joined(), joined(COURSE)), placing(joined(COURSE), stream=B))
        log = await database.read(0, 10)
        relevant = await database.read_relevant([OF_COURSE], Seen())
        assert [one for one, _ in relevant.events] == log[1:]
        assert [one for one, _ in (await database.read_relevant([Item((log[0].type,))], Seen())).events] == log

    @promise
    async def test_only_events_are_relevant(self, database: Database, clock: VirtualClock) -> None:
        for kind in ("command", "reply", "timer", "control"):
            condition = await seen_of(database, OF_COURSE, Item(("school.Joined",)))
            await committing(database, placing(joined(COURSE, kind=kind)))
            await committing(database, placing(conditions=[condition]))
        assert await found(database, OF_COURSE, Item(("school.Joined",)), Item(tags=(COURSE,))) == []

    @promise
    async def test_nothing_is_read_twice_and_nothing_is_left_out(self, database: Database, clock: VirtualClock) -> None:
        seen, ids = Seen(), []
        for number in range(6):
            await committing(database, placing(joined(COURSE, id=f"e{number}"), joined(PUPIL)))
            relevant = await database.read_relevant([OF_COURSE], seen)
            ids += [one.id for one, _ in relevant.events]
            seen = relevant.seen
            assert (await database.read_relevant([OF_COURSE], seen)).events == []
        assert ids == [f"e{number}" for number in range(6)]

    @promise
    async def test_what_is_listed_as_seen_is_left_out(self, database: Database, clock: VirtualClock) -> None:
        await committing(database, placing(*(joined(COURSE, id=f"e{number}") for number in range(4))))
        log = await database.read(0, 10)
        some = Seen(log[0].position, (log[2].position,))
        relevant = await database.read_relevant([OF_COURSE, Item(("school.Joined",))], some)
        assert [one.id for one, _ in relevant.events] == ["e1", "e3"]

    @promise
    async def test_tags_are_any_text_and_count_once(self, database: Database, clock: VirtualClock) -> None:
        odd = ("", " ", "ü", "'\"\\", "%_", "[]", "null", "💧", "x" * 300, "Course:c1")
        await committing(database, placing(joined(*odd, *odd, id="odd"), joined("course:C1", id="other")))
        for tag in odd:
            assert await found(database, Item(tags=(tag,))) == [("odd", [0])]
        assert await found(database, Item(("school.Joined",), odd), Item(tags=(COURSE,))) == [("odd", [0])]

    @promise
    async def test_many_events_and_tags(self, database: Database, clock: VirtualClock) -> None:
        many = [joined(COURSE, f"pupil:{number}", *(f"t{one}" for one in range(10))) for number in range(LARGE)]
        await committing(database, placing(*many))
        assert len(await found(database, OF_COURSE)) == LARGE
        assert await found(database, Item(tags=(COURSE, "t3", "pupil:7"))) == [(many[7].id, [0])]
        items = [Item(tags=(f"pupil:{number}", "t1")) for number in range(LARGE)]
        assert await found(database, *items) == [(one.id, [place]) for place, one in enumerate(many)]

    @promise
    async def test_tags_outlive_a_crash(self, database: Database, clock: VirtualClock) -> None:
        await committing(database, placing(joined(COURSE, id="e1")))
        condition = await seen_of(database, OF_COURSE)
        await committing(database, placing(joined(COURSE, id="e2")))
        database = await self.again(database)
        assert await found(database, OF_COURSE) == [("e1", [0]), ("e2", [0])]
        assert isinstance(await commit_one(database, placing(conditions=[condition])), Collision)

    @promise
    async def test_what_was_undone_is_not_found(self, database: Database, clock: VirtualClock) -> None:
        condition = await seen_of(database, OF_COURSE)
        with pytest.raises(ZeroDivisionError):
            async with database.transaction() as transaction:
                transaction.write([placing(joined(COURSE))])
                raise ZeroDivisionError
        async with database.transaction() as transaction:
            with pytest.raises(ZeroDivisionError):
                async with transaction.savepoint():
                    transaction.write([placing(joined(COURSE))])
                    raise ZeroDivisionError
            transaction.write([placing(joined(PUPIL))])
        assert await found(database, Item(tags=(COURSE,))) == []
        assert len(await found(database, Item(tags=(PUPIL,)))) == 1
        await committing(database, placing(joined(COURSE), conditions=[condition]))

    @promise
    async def test_an_item_names_a_type_or_a_tag(self, database: Database, clock: VirtualClock) -> None:
        with pytest.raises(DeclarationError):
            Item()


class ConditionPromises(DatabaseCase):
    """A set whose condition does not hold falls, and no other."""

    @promise
    async def test_a_set_falls_when_a_relevant_event_has_come(self, database: Database, clock: VirtualClock) -> None:
        for item in (OF_COURSE, OF_BOTH, Item(("school.Joined",)), Item(tags=(PUPIL,)), Item(tags=(COURSE, PUPIL))):
            condition = await seen_of(database, item, Item(("school.Never",)))
            await committing(database, placing(joined(COURSE, PUPIL), stream=B))
            head = await database.head()
            assert isinstance(await commit_one(database, placing(joined(), conditions=[condition])), Collision)
            assert await database.head() == head

    @promise
    async def test_a_set_stands_when_what_has_come_is_of_another_type_or_tag(
        self, database: Database, clock: VirtualClock
    ) -> None:
        condition = await seen_of(database, OF_COURSE, OF_BOTH, Item(tags=("room:1",)), Item(("school.Opened",)))
        await committing(
            database,
            placing(joined(PUPIL), joined("course:c2", PUPIL), joined(COURSE, PUPIL, name="school.Else")),
            placing(joined(COURSE, name="school.Left"), joined(PUPIL, name="school.Left"), joined(), stream=B),
        )
        await committing(database, placing(joined(COURSE, PUPIL, "room:1"), conditions=[condition]))
        assert isinstance(await commit_one(database, placing(conditions=[condition])), Collision)

    @promise
    async def test_each_of_several_conditions_must_hold(self, database: Database, clock: VirtualClock) -> None:
        first, second = await seen_of(database, OF_COURSE), await seen_of(database, Item(tags=(PUPIL,)))
        await committing(database, placing(joined(PUPIL)))
        both = placing(joined(), conditions=[first, second])
        assert isinstance(await commit_one(database, both), Collision)
        await committing(database, placing(joined(), conditions=[first, await seen_of(database, Item(tags=(PUPIL,)))]))

    @promise
    async def test_a_condition_is_about_what_comes_before_its_own_set(
        self, database: Database, clock: VirtualClock
    ) -> None:
        condition = await seen_of(database, OF_COURSE)
        answers = await database.commit(
            [
                placing(joined(COURSE), joined(COURSE), conditions=[condition]),
                placing(joined(COURSE), conditions=[condition]),
                placing(joined(PUPIL), conditions=[condition], stream=B),
                placing(joined(PUPIL), stream=B),
            ]
        )
        assert [type(answer) for answer in answers] == [Committed, Collision, Collision, Committed]

    @promise
    async def test_a_set_that_fell_is_in_nobody_s_way(self, database: Database, clock: VirtualClock) -> None:
        condition = await seen_of(database, OF_COURSE, Item(("school.Joined",)))
        fallen = WriteSet(appends=(Append(A, 7, (joined(COURSE),)),))
        answers = await database.commit([fallen, placing(joined(COURSE), conditions=[condition])])
        assert [type(answer) for answer in answers] == [Collision, Committed]

    @promise
    async def test_events_before_it_in_a_transaction_count(self, database: Database, clock: VirtualClock) -> None:
        condition = await seen_of(database, OF_COURSE)
        typed = await seen_of(database, Item(("school.Joined",)))
        async with database.transaction() as transaction:
            transaction.write([placing(joined(PUPIL))])
            committed(transaction.write([placing(joined("x"), conditions=[condition])])[0])
            assert isinstance(transaction.write([placing(joined(), conditions=[typed])])[0], Collision)
            transaction.write([placing(joined(COURSE))])
            assert isinstance(transaction.write([placing(joined(), conditions=[condition])])[0], Collision)

    @promise
    async def test_a_repeated_command_is_answered_whatever_has_come_since(
        self, database: Database, clock: VirtualClock
    ) -> None:
        condition = await seen_of(database, OF_COURSE)
        (first,) = await committing(database, placing(joined(COURSE), key=key(), conditions=[condition]))
        again = committed(await commit_one(database, placing(joined(COURSE), key=key(), conditions=[condition])))
        assert (again.position, again.repeated) == (first.position, True)
        fallen = await commit_one(database, placing(joined(COURSE), key=key("other"), conditions=[condition]))
        assert isinstance(fallen, Collision)
        assert await database.settled("", "other") is None

    @promise
    async def test_a_set_without_messages_may_have_a_condition(self, database: Database, clock: VirtualClock) -> None:
        condition = await seen_of(database, OF_COURSE)
        await committing(database, WriteSet(key=key("idle"), conditions=[condition]))
        await committing(database, placing(joined(COURSE)))
        assert isinstance(await commit_one(database, WriteSet(key=key(), conditions=[condition])), Collision)

    @promise
    async def test_a_condition_on_nothing_holds(self, database: Database, clock: VirtualClock) -> None:
        await committing(database, placing(joined(COURSE)))
        await committing(database, placing(joined(COURSE), conditions=[Condition((), Seen())]))

    @promise
    async def test_who_has_seen_more_than_the_log_has_must_look_again(
        self, database: Database, clock: VirtualClock
    ) -> None:
        await committing(database, placing(joined(COURSE)))
        condition = Condition((Item(tags=(PUPIL,)),), Seen(await database.head() + 1_000))
        assert isinstance(await commit_one(database, placing(conditions=[condition])), Collision)

    @promise
    async def test_what_is_listed_as_seen_breaks_no_condition(self, database: Database, clock: VirtualClock) -> None:
        await committing(database, placing(*(joined(COURSE) for _ in range(4))))
        positions = [one.position for one in await database.read(0, 10)]
        for item in (OF_COURSE, Item(("school.Joined",)), Item(tags=(COURSE,))):
            listed = Condition((item,), Seen(positions[0], tuple(positions[1:3])))
            assert isinstance(await commit_one(database, placing(conditions=[listed])), Collision)
            all_listed = Condition((item,), Seen(0, tuple(positions)))
            await committing(database, placing(conditions=[all_listed]))


class RacePromises(DatabaseCase):
    """However many decide at a time, no decision misses what stood before it."""

    @promise
    async def test_of_fifty_decisions_on_the_same_events_one_stands(
        self, database: Database, clock: VirtualClock
    ) -> None:
        condition = await seen_of(database, OF_COURSE)
        deciding = [
            commit_one(database, placing(joined(COURSE), stream=f"s/{n}", conditions=[condition])) for n in range(50)
        ]
        answers: list[Answer] = await asyncio.gather(*deciding)
        assert sorted(type(answer).__name__ for answer in answers) == ["Collision"] * 49 + ["Committed"]
        assert len(await found(database, OF_COURSE)) == 1

    @promise
    async def test_seats_are_not_sold_twice(self, database: Database, clock: VirtualClock) -> None:
        handles = [database, *[await self.beside(database) for _ in range(3)]]

        async def subscribe(number: int) -> bool:
            own = handles[number % len(handles)]
            while True:
                relevant = await own.read_relevant([OF_COURSE], Seen())
                if len(relevant.events) >= 10:
                    return False
                condition = Condition((OF_COURSE,), relevant.seen)
                write = placing(joined(COURSE, f"pupil:{number}"), stream=f"pupil/{number}", conditions=[condition])
                if isinstance(await commit_one(own, write), Committed):
                    return True

        got = await asyncio.gather(*(subscribe(number) for number in range(RACERS * 2)))
        assert got.count(True) == 10
        assert len(await found(database, OF_COURSE)) == 10

    @promise
    async def test_no_decision_misses_what_stood_before_it(self, database: Database, clock: VirtualClock) -> None:
        handles = [database, *[await self.beside(database) for _ in range(3)]]
        race = await run_race(handles, "race")
        assert wrong(race.entries, await self.commit_order(database)) == []
        assert race.decided >= RACERS, "decisions stand"
        assert race.refused >= RACERS, "decisions fall"
        log = await database.read(0, 10_000)
        assert sorted(one.id for one in log) == sorted(mark for one in race.entries for mark, _, _ in one.events)
