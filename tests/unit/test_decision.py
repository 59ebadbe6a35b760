"""Tags, the query that a decision makes of its evolve methods, and what it folds."""

from __future__ import annotations

from enum import Enum
from typing import Any
from uuid import UUID

import pytest

from headwater import Aggregate, Command, Decision, DeclarationError, Event, Rejected, SchemaError, decide, evolve
from headwater.decider import decider_of
from headwater.decision import boundary_of, query_of
from headwater.message import LONGEST_TAG, named_fields, tag_of
from headwater.schema import Schema
from headwater.store import Item
from headwater.testing.scenario import given


class Join(Command):
    course: str
    student: str
    friend: str | None = None


class Opened(Event, tags="course", stored="s.Opened"):
    course: str
    seats: int = 1


class Joined(Event, tags=("course", "student"), stored="s.Joined"):
    course: str
    student: str


class Left(Event, tags={"course": "course", "student": "who"}, stored="s.Left"):
    course: str
    who: str


class Noted(Event, stored="s.Noted"):
    text: str


class Joining(Decision, key="course", category="joining"):
    seats: int = 0
    courses: tuple[str, ...] = ()
    friends: int = 0
    notes: int = 0

    @decide
    def join(self, command: Join) -> Joined:
        if not self.seats:
            raise Rejected("full")
        return Joined(command.course, command.student)

    @evolve(by="course")
    def opened(self, event: Opened) -> None:
        self.seats += event.seats

    @evolve(by="course")
    def changed(self, event: Joined | Left) -> None:
        self.seats += 1 if isinstance(event, Left) else -1

    @evolve(by=["student"])
    def attends(self, event: Joined) -> None:
        self.courses = (*self.courses, event.course)

    @evolve(by={"course": "course", "student": "friend"})
    def has_friend(self, event: Joined) -> None:
        self.friends += 1

    @evolve(by=())
    def noted(self, event: Noted) -> None:
        self.notes += 1


class Colour(Enum):
    RED = "red"
    ONE = 1


class Tagging(Event, tags={"one": "a", "many": "b"}):
    a: Any
    b: Any = None


class More(Tagging):
    c: str = ""


class Untagged(Event):
    a: str


def test_the_query_is_made_of_the_evolve_methods_in_their_order() -> None:
    query = query_of(boundary_of(Joining, "school"), Join("a", "ada", "bob"), Schema("school"))
    assert query.items == (
        Item(("s.Opened",), ("course:a",)),
        Item(("s.Joined", "s.Left"), ("course:a",)),
        Item(("s.Joined",), ("student:ada",)),
        Item(("s.Joined",), ("course:a", "student:bob")),
        Item(("s.Noted",)),
    )
    assert query.takers("s.Joined", ("course:a", "student:ada")) == [1, 2]
    assert query.takers("s.Joined", ("student:bob", "course:a")) == [1, 3]
    assert query.takers("s.Opened", ("course:b",)) == []
    assert query.takers("s.Noted", ()) == [4]


def test_a_part_by_a_field_that_is_none_is_left_out() -> None:
    query = query_of(boundary_of(Joining, "school"), Join("a", "ada"), Schema("school"))
    assert len(query.items) == len(query.evolvers) == 4
    assert Item(("s.Joined",), ("course:a", "student:bob")) not in query.items


def test_a_query_has_the_older_names_of_its_events_too() -> None:
    schema = Schema("school")
    schema.upcast("s.Begun", 1, lambda fields: fields, to="s.Opened")
    query = query_of(boundary_of(Joining, "school"), Join("a", "ada"), schema)
    assert query.items[0].types == ("s.Begun", "s.Opened")


def test_the_category_of_a_boundary() -> None:
    assert boundary_of(Joining, "school").category == "school.joining"
    assert boundary_of(Joining, "joining").category == "joining.joining"


def test_a_scenario_shows_a_decision_what_carries_the_tags_of_its_command() -> None:
    history = (Opened("a", 2), Joined("a", "bob"), Joined("b", "ada"), Opened("b", 5), Noted("x"), Left("b", "eve"))
    outcome = given(Joining, *history).when(Join("a", "ada", "bob"))
    outcome.then(Joined("a", "ada")).then_state(seats=0, courses=("b", "a"), friends=1, notes=1)
    given(Joining, *history, Joined("a", "eve")).when(Join("a", "ada")).then_rejected("full")
    given(Joining, *history, Joined("a", "eve"), Left("a", "eve")).when(Join("a", "ada")).then(Joined("a", "ada"))
    with pytest.raises(DeclarationError, match="Joining decides no Opened"):
        given(Joining).when(Opened("a"))


def tags_of(event: Any) -> tuple[str, ...]:
    return Schema("school").of(type(event)).tags_of(event)


@pytest.mark.parametrize(
    ("event", "tags"),
    [
        (Joined("a", "ada"), ("course:a", "student:ada")),
        (Left("a", "ada"), ("course:a", "student:ada")),
        (Tagging("x"), ("one:x",)),
        (Tagging(None, []), ()),
        (Tagging("", ("p", "q", "p")), ("one:", "many:p", "many:q")),
        (Tagging(17, [UUID(int=1), None]), ("one:17", "many:00000000-0000-0000-0000-000000000001")),
        (Tagging(Colour.RED, frozenset({Colour.ONE})), ("one:red", "many:1")),
        (Tagging("x", {"y"}), ("one:x", "many:y")),
        (More("x", ["y"]), ("one:x", "many:y")),
        (Untagged("x"), ()),
    ],
)
def test_the_tags_of_an_event(event: Any, tags: tuple[str, ...]) -> None:
    assert tags_of(event) == tags


@pytest.mark.parametrize(
    ("value", "words"),
    [
        (1.5, "one: a tag is text, a whole number or a UUID, and 1.5 is a float"),
        (True, "one: a tag is text, a whole number or a UUID, and True is a bool"),
        (b"x", "one: a tag is text, a whole number or a UUID, and b'x' is a bytes"),
        (
            "x" * (LONGEST_TAG - 3),
            f"one: a tag has {LONGEST_TAG} characters at most, and this one has {LONGEST_TAG + 1}",
        ),
    ],
)
def test_what_is_no_tag(value: Any, words: str) -> None:
    with pytest.raises(SchemaError) as caught:
        tags_of(Tagging(value))
    assert str(caught.value) == words


def test_a_tag_may_be_as_long_as_the_limit() -> None:
    assert len(tag_of("one", "x" * (LONGEST_TAG - 4))) == LONGEST_TAG


def test_fields_are_named_in_three_ways() -> None:
    assert named_fields("a  b") == {"a": "a", "b": "b"}
    assert named_fields(["a", "b c"]) == {"a": "a", "b c": "b c"}
    assert named_fields({"a": "b"}) == {"a": "b"}
    assert named_fields("") == named_fields(()) == {}


def test_tags_are_of_events_and_of_fields() -> None:
    class Tell(Command, tags="course"):
        course: str

    class Told(Event, tags="course"):
        other: str

    for declared, words in (
        (Tell, "Tell is a command: only events have tags"),
        (Told, "Told has no field 'course', by which it should be tagged"),
    ):
        with pytest.raises(DeclarationError) as caught:
            Schema("school").add(declared)
        assert str(caught.value) == words


def test_only_a_decision_evolves_by_tags() -> None:
    class Course(Aggregate, key="course"):
        @evolve(by="course")
        def opened(self, event: Opened) -> None: ...

    with pytest.raises(DeclarationError) as caught:
        decider_of(Course, "school")
    assert str(caught.value).endswith("Course.opened: only a Decision evolves by tags")
