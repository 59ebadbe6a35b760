"""What of a decision, and of tags, is refused when it is declared."""

from __future__ import annotations

from dataclasses import dataclass

import pytest

from headwater import Aggregate, App, Boundary, Command, Decision, DeclarationError, Event, decide, evolve
from headwater.operations.commands import find_command
from headwater.testing.harness import Harness
from tests.flow.rig import played
from tests.flow.test_decisions import Join, Joined, Joining, Open, Opened, Wanted, school


class NoKey(Decision):
    @decide
    def join(self, command: Join) -> None: ...


class NoField(Decision, key="course"):
    @decide
    def open(self, command: Open) -> None: ...
    @evolve(by="student")
    def joined(self, event: Joined) -> None: ...


class NoBy(Decision, key="course"):
    @decide
    def join(self, command: Join) -> None: ...
    @evolve
    def joined(self, event: Joined) -> None: ...


class NoTag(Decision, key="course"):
    @decide
    def join(self, command: Join) -> None: ...
    @evolve(by="student")
    def opened(self, event: Opened) -> None: ...


class Elsewhere(Decision, key="course"):
    @decide
    def join(self, command: Join) -> None: ...
    @evolve(by=())
    def wanted(self, event: Wanted) -> None: ...


class NotMine(Decision, key="course"):
    @decide
    def wanted(self, command: Wanted) -> None: ...


class NoDefault(Decision, key="course"):
    seats: int

    @decide
    def join(self, command: Join) -> None: ...


class Tagged(Aggregate, key="course"):
    @decide
    def open(self, command: Open) -> Opened: ...
    @evolve(by="course")
    def opened(self, event: Opened) -> None: ...


class Tell(Command, tags="course"):
    course: str


class Told(Event, tags="course"):
    other: str


@pytest.mark.parametrize(
    ("declared", "words"),
    [
        (NoKey, "key=…"),
        (NoField, "Open has no field 'student', by which NoField decides"),
        (NoBy, "say which events it means"),
        (NoTag, "Opened has no tag 'student', by which school.NoTag asks for it"),
        (Elsewhere, "rests only on events of its service"),
        (NotMine, "decides only its own commands"),
        (NoDefault, "seats needs a default"),
        (Tagged, "only a Decision evolves by tags"),
        (Tell, "Tell is a command: only events have tags"),
        (Told, "Told has no field 'course'"),
    ],
)
def test_what_cannot_work_is_refused(declared: type, words: str):
    with pytest.raises(DeclarationError, match=words):
        App("school").add(declared)


def test_a_name_is_of_one_part_of_the_app():
    app = App("school")
    app.add(Joining)
    with pytest.raises(DeclarationError, match="the name 'Joining' is taken"):
        app.add(Boundary("Joining", "course", dict, {}, []))


class Other(Decision, key="course"):
    @decide
    def join(self, command: Join) -> None: ...


class Late(Aggregate, key="course"):
    @decide
    def join(self, command: Join) -> None: ...


@pytest.mark.parametrize("other", [Other, Late])
@played
async def test_a_command_is_decided_once(other: type):
    with pytest.raises(DeclarationError, match="Join is decided twice"):
        async with Harness(school(other)):
            pass


@dataclass(frozen=True)
class Heard:
    course: str


def test_a_class_that_was_adopted_may_have_tags():
    app = App("school")
    app.adopt(Heard, kind="event", tags={"c": "course"})
    assert app.schema.of(Heard).tags_of(Heard("a")) == ("c:a",)


def test_an_operator_finds_its_commands():
    assert find_command(school(), "Join").payload is Join
