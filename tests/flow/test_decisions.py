"""Decisions over events of several streams: what holds for a command holds for theirs."""

from __future__ import annotations

import asyncio
from typing import Any

import msgspec
import pytest

from headwater import (
    Aggregate,
    App,
    Boundary,
    Command,
    Committed,
    Conflict,
    DatabaseError,
    Decision,
    Event,
    KeyReused,
    Metadata,
    Part,
    ReadModel,
    Refused,
    Rejected,
    SchemaError,
    Unknown,
    decide,
    evolve,
)
from headwater.adapters.memory import MemoryDatabase
from headwater.database import Collision, WriteSet
from headwater.deciding import DOUBTS
from headwater.message import JSON, Draft
from headwater.store import ANY, Append, Relevant, Seen
from headwater.testing.harness import Harness
from tests.flow.rig import any_set, failing_commits, log_of, payloads, played, publication


class Open(Command):
    course: str
    seats: int


class Join(Command):
    course: str
    student: str
    friend: str | None = None
    how: str = ""


class Enrol(Command, service="school"):
    course: str
    student: str


class Opened(Event, tags="course"):
    course: str
    seats: int


class Joined(Event, tags="course student", category="Joining", service="school"):
    course: str
    student: str


class Wanted(Event, service="web", category="form"):
    course: str
    student: str


class Course(Aggregate, key="course"):
    @decide
    def open(self, command: Open) -> Opened:
        return Opened(command.course, command.seats)


class Joining(Decision, key="course"):
    seats: int = 0
    courses: int = 0
    friends: int = 0
    twice: bool = False

    @decide
    def join(self, command: Join) -> Joined | list[Joined] | None:
        if command.how == "break":
            raise ZeroDivisionError("broken")
        if command.how == "nothing":
            return None
        if self.twice:
            raise Rejected("twice")
        if not self.seats:
            raise Rejected("full", course=command.course)
        if self.courses == 3:
            raise Rejected("too many")
        if command.friend and not self.friends:
            raise Rejected("no friend is there")
        return [Joined(command.course, command.student)]

    @evolve(by="course")
    def opened(self, event: Opened) -> None:
        self.seats += event.seats

    @evolve(by=("course",))
    def joined(self, event: Joined) -> None:
        self.seats -= 1

    @evolve(by="student")
    def attends(self, event: Joined) -> None:
        self.courses += 1
        if event.student == "cursed":
            raise ZeroDivisionError("evolve is broken")

    @evolve(by="course student")
    def attends_this(self, event: Joined) -> None:
        self.twice = True

    @evolve(by={"course": "course", "student": "friend"})
    def has_friend(self, event: Joined) -> None:
        self.friends += 1


class Enrolment(Decision, key="course"):
    """The same for others, without the rules of a student."""

    seats: int = 0

    @decide
    def enrol(self, command: Enrol) -> Joined:
        if not self.seats:
            raise Rejected("full", course=command.course)
        return Joined(command.course, command.student)

    @evolve(by="course")
    def opened(self, event: Opened) -> None:
        self.seats += event.seats

    @evolve(by="course")
    def joined(self, event: Joined) -> None:
        self.seats -= 1


class JoinedNow(Event, stored="school.Joined", version=2, tags="course student", service="school"):
    course: str
    student: str


class Late(Decision, key="course"):
    students: tuple[str, ...] = ()

    @decide
    def enrol(self, command: Enrol) -> JoinedNow:
        if self.students:
            raise Rejected(" ".join(self.students))
        return JoinedNow(command.course, command.student)

    @evolve(by="course")
    def joined(self, event: JoinedNow) -> None:
        self.students = (*self.students, event.student)


class Weigh(Command):
    id: str
    grams: float


class Weighed(Event, tags="grams"):
    grams: float


class Scale(Decision, key="id"):
    @decide
    def weigh(self, command: Weigh) -> Weighed:
        return Weighed(command.grams)


class Start(Command, service="school"):
    course: str


class Term(Aggregate, key="course"):
    @decide
    def start(self, command: Start) -> Opened:
        return Opened(command.course, 1)


def school(*more: Any) -> App:
    app = App("school")
    app.add(Course, Joining, *more)
    return app


async def twin(world: Harness, app: App) -> App:
    """Another process of the service on the same data."""
    app.clock = world.clock
    database = MemoryDatabase(world.clock, world.databases["school"].file)
    await database.open()
    await app.connect(database, world.channel)
    return app


async def joined(world: Harness, app: App) -> list[tuple[str, str]]:
    return [(one.course, one.student) for one in await payloads(world, app, Joined)]


def event(name: str = "school.Joined", *, of: bytes | None = None, **fields: Any) -> WriteSet:
    """An event that another writer states."""
    tags = tuple(f"{tag}:{fields[tag]}" for tag in ("course", "student") if tag in fields)
    data = msgspec.json.encode(fields) if of is None else of
    return WriteSet(appends=[Append("school.else/1", ANY, [Draft("event", "x", name, 1, JSON, 0, data, b"{}", tags)])])


# --- deciding ---


@played
async def test_a_decision_rests_on_events_of_several_streams_and_of_aggregates():
    app = school()
    async with Harness(app) as world:
        for course in ("a", "b", "c", "d"):
            await app.send(Open(course, 2))
        assert isinstance(await app.attempt(Join("never", "ada")), Rejected)
        for course in ("a", "b", "c"):
            assert (await app.send(Join(course, "ada"))).version == 1
        assert (await app.attempt(Join("d", "ada"))).reason == "too many"
        assert (await app.attempt(Join("a", "ada"))).reason == "twice"
        assert (await app.send(Join("a", "bob"))).version == 2
        refused = await app.attempt(Join("a", "cleo"))
        assert (refused.reason, refused.details) == ("full", {"course": "a"})
        await app.send(Open("a", 1))
        await app.send(Join("a", "cleo"))
        assert {one.stream for one in await log_of(world, app) if one.type == "school.Joined"} == {
            "school.Joining/a", "school.Joining/b", "school.Joining/c",
        }  # fmt: skip


@played
async def test_a_part_whose_field_is_none_asks_for_nothing():
    app = school()
    async with Harness(app):
        await app.send(Open("a", 3))
        assert (await app.attempt(Join("a", "ada", friend="bob"))).reason == "no friend is there"
        await app.send(Join("a", "bob"))
        await app.send(Join("a", "ada", friend="bob"))


@played
async def test_a_boundary_of_functions_does_the_same():
    def opened(state: int, event: Opened) -> int:
        return state + event.seats

    def taken(state: int, event: Joined) -> int:
        return state - 1

    def enrol(state: int, command: Enrol) -> Joined:
        if not state:
            raise Rejected("full")
        return Joined(command.course, command.student)

    by = {"course": "course"}
    parts = [Part((Opened,), by, opened), Part((Joined,), by, taken)]
    app = App("school")
    app.add(Course, Boundary("Joining", "course", int, {Enrol: enrol}, parts))
    async with Harness(app):
        await app.send(Open("a", 1))
        assert (await app.send(Enrol("a", "ada"))).version == 1
        assert (await app.attempt(Enrol("a", "bob"))).reason == "full"


@played
async def test_a_decision_on_nothing_new_reads_nothing_twice():
    app = school(Enrolment)
    async with Harness(app) as world:
        await app.send(Open("a", 100))
        database, read = world.databases["school"], []
        read_relevant = database.read_relevant

        async def spied(items, seen):
            found = await read_relevant(items, seen)
            read.append(len(found.events))
            return found

        database.read_relevant = spied
        for number in range(4):
            await app.send(Enrol("a", f"s{number}"))
        assert read == [1, 1, 1, 1]
        await world.restart(app)
        assert (await app.send(Enrol("a", "late"))).version == 5


@played
async def test_an_old_version_and_an_old_name_of_a_relevant_event_are_upcast():
    app = App("school")
    app.upcast("school.Entered", 1, to="school.Joined")(
        lambda fields: {"course": fields["course"], "student": fields["pupil"]}
    )
    app.add(Late)
    async with Harness(app) as world:
        await world.databases["school"].commit(
            [event("school.Entered", of=b'{"course":"a","pupil":"old"}', course="a")]
        )
        assert (await app.attempt(Enrol("a", "ada"))).reason == "old"
        await world.databases["school"].commit([event("school.Joined", of=b'{"course":"b"}', course="b")])
        with pytest.raises(SchemaError, match="has no upcaster"):
            await app.send(Enrol("b", "ada"))


@played
async def test_events_of_handlers_carry_tags_too():
    app = school(Enrolment)

    @app.on(Opened)
    def host(event: Opened) -> Joined:
        return Joined(event.course, "host")

    async with Harness(app) as world:
        await app.send(Open("a", 1))
        await world.settle()
        assert await joined(world, app) == [("a", "host")]
        assert (await app.attempt(Enrol("a", "ada"))).reason == "full"


@played
async def test_its_events_reach_read_models_and_handlers():
    class Seats(ReadModel, key="course"):
        taken: int = 0

        @evolve
        def joined(self, event: Joined) -> None:
            self.taken += 1

    class Near(Seats, table="near", inline=True, key="course"):
        pass

    app, seen = school(Seats, Near), []

    @app.on(Joined)
    def hear(event: Joined) -> None:
        seen.append(event.student)

    mirror, mirrored = App("mirror"), []

    @mirror.on(Joined)
    def copy(event: Joined) -> None:
        mirrored.append(event.student)

    async with Harness(app, mirror) as world:
        await app.send(Open("a", 9))
        await app.send(Join("a", "ada"))
        answer = await app.send(Join("a", "bob"))
        assert (await app.get(Near, "a")).taken == 2
        await world.settle()
        assert (await app.get(Seats, "a", after=answer)).taken == 2
        assert seen == ["ada", "bob"]
        assert mirrored == ["ada", "bob"]


# --- what holds for every command ---


@played
async def test_the_same_key_is_done_once_and_answered_as_first_though_it_would_now_be_refused():
    app = school()
    async with Harness(app) as world:
        await app.send(Open("a", 1))
        first = await app.send(Join("a", "ada"), key="k")
        assert await app.attempt(Join("a", "ada"), key="k") == Committed(first.position, first.version, repeated=True)
        await world.restart(app)
        assert (await app.send(Join("a", "ada"), key="k")).position == first.position
        for other in (Join("b", "ada"), Join("a", "ada", how="break"), Open("a", 1)):
            with pytest.raises(KeyReused):
                await app.send(other, key="k")
        assert await joined(world, app) == [("a", "ada")]


@played
async def test_fifty_sends_of_one_key_are_done_once():
    app = school()
    async with Harness(app):
        await app.send(Open("a", 50))
        answers = await asyncio.gather(*(app.send(Join("a", "ada"), key="k") for _ in range(50)))
        assert len({answer.position for answer in answers}) == 1
        assert sum(not answer.repeated for answer in answers) == 1


@played
async def test_a_decision_on_no_event_keeps_its_key():
    app = school()
    async with Harness(app) as world:
        await app.send(Open("a", 1))
        assert not (await app.send(Join("a", "ada", how="nothing"), key="k")).repeated
        assert (await app.send(Join("a", "ada", how="nothing"), key="k")).repeated
        assert len(await log_of(world, app)) == 1


@played
async def test_a_decision_that_breaks_changes_nothing():
    app = school()
    async with Harness(app) as world:
        await app.send(Open("a", 1))
        with pytest.raises(ZeroDivisionError):
            await app.send(Join("a", "cursed", how="break"), key="k")
        assert not (await app.send(Join("a", "cursed"), key="k")).repeated
        for _ in range(2):
            with pytest.raises(ZeroDivisionError, match="evolve is broken"):
                await app.send(Join("b", "cursed"))
        assert await joined(world, app) == [("a", "cursed")]


@played
async def test_an_outcome_that_is_unknown_is_settled_by_the_key():
    app = school()
    async with Harness(app) as world:
        await app.send(Open("a", 2))
        database, commit = world.databases["school"], world.databases["school"].commit

        async def doubtful(writes):
            await commit(writes)
            return [Unknown(write.key.key) for write in writes]

        database.commit = doubtful
        unknown = await app.attempt(Join("a", "ada"), key="k")
        assert isinstance(unknown, Unknown)
        assert unknown.key == "k"
        del database.commit
        assert (await app.send(Join("a", "ada"), key="k")).repeated
        assert (await app.attempt(Join("a", "ada"))).reason == "twice"


@pytest.mark.parametrize("answered", [False, True])
@played
async def test_an_error_of_the_database_reaches_the_caller_and_the_next_goes_on(answered: bool):
    app = school()
    async with Harness(app) as world:
        await app.send(Open("a", 2))
        database = world.databases["school"]
        failing = failing_commits(database, DatabaseError("no"), any_set(lambda one: one.conditions), answered=answered)
        with failing, pytest.raises(DatabaseError):
            await app.send(Join("a", "ada"), key="k")
        assert not (await app.send(Join("a", "ada"), key="k")).repeated
        assert await joined(world, app) == [("a", "ada")]


@played
async def test_tenants_have_streams_of_their_own():
    app = school()
    async with Harness(app) as world:
        await app.send(Open("a", 2))
        await app.send(Join("a", "ada"), metadata=Metadata(tenant="acme"))
        assert (await log_of(world, app))[-1].stream == "acme:school.Joining/a"
        assert isinstance(await app.attempt(Join("a", "ada"), metadata=Metadata(tenant="a/b")), Rejected)
        assert isinstance(await app.attempt(Join("", "ada")), Rejected)


@played
async def test_a_value_that_cannot_be_a_tag_is_refused_before_anything_is_written():
    app = App("school")
    app.add(Scale)
    async with Harness(app) as world:
        with pytest.raises(SchemaError, match="grams: a tag is text, a whole number or a UUID"):
            await app.send(Weigh("a", 1.5))
        assert await log_of(world, app) == []


# --- many at once ---


@played
async def test_of_two_hundred_at_once_as_many_stand_as_there_are_seats():
    app = school()
    async with Harness(app) as world:
        await app.send(Open("a", 30))
        answers = await asyncio.gather(*(app.attempt(Join("a", f"s{number}")) for number in range(200)))
        assert sum(isinstance(answer, Committed) for answer in answers) == 30
        assert {answer.reason for answer in answers if isinstance(answer, Rejected)} == {"full"}
        assert len(await joined(world, app)) == 30


@played
async def test_processes_that_decide_at_once_sell_no_seat_twice_and_no_caller_hears_of_it():
    app = school()
    async with Harness(app) as world:
        others = [await twin(world, school()) for _ in range(3)]
        for course in "abcde":
            await app.send(Open(course, 7))
        who = [app, *others]
        sends = [who[number % 4].attempt(Join("abcde"[number % 5], f"s{number % 12}")) for number in range(120)]
        answers = await asyncio.gather(*sends)
        assert all(isinstance(answer, Committed | Rejected) for answer in answers)
        stood = await joined(world, app)
        assert len(stood) == len(set(stood)) == sum(isinstance(answer, Committed) for answer in answers)
        assert all(sum(course == one for course, _ in stood) <= 7 for one in "abcde")
        assert all(sum(student == f"s{one}" for _, student in stood) <= 3 for one in range(12))
        for other in others:
            await other.stop()


@played
async def test_a_decision_that_collides_is_made_again_on_what_is_new():
    app = school(Enrolment)
    async with Harness(app) as world:
        await app.send(Open("a", 2))
        database = world.databases["school"]
        commit, left = database.commit, [1]

        async def beaten(writes):
            if left[0] and writes[0].conditions:
                left[0] -= 1
                await commit([event(course="a", student="fast")])
                await commit([event(course="b", student="far")])
            return await commit(writes)

        database.commit = beaten
        await app.send(Enrol("a", "ada"))
        assert (await app.attempt(Enrol("a", "bob"))).reason == "full"


@played
async def test_an_event_of_another_course_makes_no_decision_again():
    app = school(Enrolment)
    async with Harness(app) as world:
        await app.send(Open("a", 2))
        database = world.databases["school"]
        commit, tried = database.commit, []

        async def beaten(writes):
            tried.append(writes)
            await commit([event(course="b", student="ada"), event("school.Else", course="a")])
            return await commit(writes)

        database.commit = beaten
        await app.send(Enrol("a", "ada"))
        assert len(tried) == 1


@played
async def test_what_changes_for_ever_is_a_conflict():
    app = school(Enrolment)
    async with Harness(app) as world:
        await app.send(Open("a", 500))
        database = world.databases["school"]
        commit = database.commit

        async def beaten(writes):
            await commit([event(course="a", student="fast")])
            return await commit(writes)

        database.commit = beaten
        with pytest.raises(Conflict, match="Enrolment/a rests on changed 100 times"):
            await app.send(Enrol("a", "ada"))


@played
async def test_a_state_of_a_log_that_has_been_put_back_is_read_again():
    app = school(Enrolment)
    async with Harness(app) as world:
        await app.send(Open("a", 2))
        await app.send(Open("b", 2))
        await app.send(Enrol("a", "ada"))
        [warm] = app.wiring.deciding._warm.values()
        warm.seen, warm.state.seats = Seen(1_000), 5
        database, tried = world.databases["school"], []
        read_relevant = database.read_relevant

        async def told_nothing(items, seen):
            tried.append(seen)
            return Relevant([], seen) if seen.safe else await read_relevant(items, seen)

        database.read_relevant = told_nothing
        await app.send(Enrol("a", "bob"))
        assert tried == [Seen(1_000)] * DOUBTS + [Seen()]
        assert (await app.attempt(Enrol("a", "cleo"))).reason == "full"


# --- commands of others ---


def wish(number: int, course: str, student: str) -> object:
    return publication(f"web.form/{number}", 1, "web.Wanted", Wanted(course, student))


class Office:
    """A service that enrols whom it hears of, and hears of refusals."""

    def __init__(self) -> None:
        self.app = App("office")
        self.refused: list[Refused] = []

        @self.app.on(Wanted, Refused, name="enrol")
        async def enrol(event: Wanted | Refused) -> Enrol | None:
            if isinstance(event, Refused):
                self.refused.append(event)
                return None
            return Enrol(event.course, event.student)


@played
async def test_commands_in_one_batch_see_what_those_before_them_decided():
    app, office = school(Enrolment), Office()
    async with Harness(app, office.app) as world:
        await app.send(Open("a", 2))
        await app.send(Open("b", 1))
        wishes = [wish(number, "aab"[number % 3], f"s{number}") for number in range(12)]
        await world.channel.publish(wishes)
        await world.settle()
        assert sorted(await joined(world, app)) == [("a", "s0"), ("a", "s1"), ("b", "s2")]
        assert len(office.refused) == 9
        assert {(one.reason, one.details["course"]) for one in office.refused} == {("full", "a"), ("full", "b")}
        assert await world.held(app) == []
        await world.settle()
        assert len(await joined(world, app)) == 3


@played
async def test_a_batch_whose_condition_falls_is_decided_again():
    app, office = school(Enrolment), Office()
    async with Harness(app, office.app) as world:
        await app.send(Open("a", 3))
        database = world.databases["school"]
        commit, collided = database.commit, []

        async def beaten(writes):
            if not collided and any(one.conditions and one.marks for one in writes):
                await commit([event(course="a", student="fast")])
                [answer] = await commit(writes)
                collided.append(answer)
                return [answer]
            return await commit(writes)

        database.commit = beaten
        await world.channel.publish([wish(number, "a", f"s{number}") for number in range(4)])
        await world.settle()
        assert [type(answer) for answer in collided] == [Collision]
        assert sorted(student for _, student in await joined(world, app)) == ["fast", "s0", "s1"]
        assert len(office.refused) == 2


@played
async def test_a_refusal_falls_with_what_it_rests_on():
    app, office = school(Enrolment), Office()
    async with Harness(app, office.app) as world:
        database = world.databases["school"]
        commit, beaten = database.commit, []

        async def opened_meanwhile(writes):
            if not beaten and any(one.conditions and one.marks for one in writes):
                beaten.append(True)
                await app.send(Open("a", 1))
            return await commit(writes)

        database.commit = opened_meanwhile
        await world.channel.publish([wish(1, "a", "ada")])
        await world.settle()
        assert await joined(world, app) == [("a", "ada")]
        assert office.refused == []


@played
async def test_an_aggregate_and_a_decision_in_one_batch_see_one_another():
    app, office = school(Enrolment, Term), App("office")

    @office.on(Wanted)
    def begin(event: Wanted) -> list[Command]:
        return [Start(event.course), Enrol(event.course, "ada"), Enrol(event.course, "bob")]

    async with Harness(app, office) as world:
        await world.channel.publish([wish(1, "a", "")])
        await world.settle()
        assert await joined(world, app) == [("a", "ada")]


@played
async def test_a_command_that_breaks_in_a_batch_is_held_alone():
    app, office = school(Enrolment), Office()
    async with Harness(app, office.app) as world:
        await app.send(Open("a", 3))
        broken = [True]
        decided = app.declared.boundaries["school.Enrolment"].decide
        enrol = decided[Enrol]

        def fails(state, command):
            if command.student == "s1" and broken:
                raise ZeroDivisionError("broken")
            return enrol(state, command)

        decided[Enrol] = fails
        await world.channel.publish([wish(number, "a", f"s{number}") for number in range(3)])
        await world.settle()
        assert sorted(student for _, student in await joined(world, app)) == ["s0", "s2"]
        broken.clear()
        await world.advance(hours=1)
        assert sorted(student for _, student in await joined(world, app)) == ["s0", "s1", "s2"]
