"""What is declared wrongly is refused at once or at the start, with words that say what to do."""

from __future__ import annotations

import dataclasses
from typing import Any

import pytest

from headwater import (
    Aggregate,
    App,
    Command,
    Decider,
    DeclarationError,
    Event,
    Message,
    Once,
    ReadModel,
    Refused,
    Saga,
    Transaction,
    decide,
    evolve,
    react,
)
from headwater.testing.harness import Harness
from tests.flow.rig import payloads, played
from tests.flow.shop import Bump, Bumped, Counter, Noted, Tally, shop


class Do(Command):
    key: str


class Undone(Command):
    key: str


class Done(Event):
    key: str


class Homeless(Event, service="elsewhere"):
    key: str


class NoKey(Event):
    name: str


def refused(words: str, *declared: Any, app: App | None = None) -> None:
    with pytest.raises(DeclarationError, match=words):
        (app or App("here")).add(*declared)


@pytest.mark.parametrize("name", ["", "Here", "1st", "a.b", "a/b", "a>b", "a:b", "ä", "a" * 64, "here\n"])
def test_a_service_name_that_cannot_name_topics_is_refused(name):
    with pytest.raises(DeclarationError, match="cannot name a service; use lower-case letters"):
        App(name)


@pytest.mark.parametrize("what", [7, "Counter", None, [Counter], lambda: None])
def test_what_is_no_class_cannot_be_added(what):
    refused("is not a class, Decider or Boundary that an app can take", what)


def test_a_plain_class_is_adopted_not_added():
    @dataclasses.dataclass
    class Plain:
        key: str

    refused("subclass one, or adopt it: app.adopt", Plain)
    app = App("here")
    app.adopt(Plain, kind="event", stored="here.Plain")
    assert app.schema.named("here.Plain").payload is Plain
    with pytest.raises(DeclarationError, match="a message is an event or a command"):
        app.adopt(Plain, kind="query")  # type: ignore[arg-type]


# --- names ---


class Counts(Aggregate, key="key", category="Counter"):
    @decide
    def do(self, command: Do) -> Done:
        return Done(command.key)


class Tallies(ReadModel, key="key", table="tally"):
    @evolve
    def bumped(self, event: Bumped) -> None:
        return


class Tale(Saga, key="key", name="tally"):
    @react(starts=True)
    def bumped(self, event: Bumped) -> None:
        return


def test_names_that_clash_are_refused_and_say_how_to_give_another():
    app = shop()
    refused(r"the name 'Counter' is taken in shop; give this one another: `category=`", Counts, app=app)
    app.add(Tally)
    refused(r"the name 'tally' is taken in shop; give this one another: `table=`", Tallies, app=app)
    refused(r"the name 'tally' is taken in shop; give this one another: `name=`", Tale, app=app)
    for name in ("tally", "Counter", "relay", "commands", "channel", "control", "replies"):
        with pytest.raises(DeclarationError, match=f"the name '{name}' is taken in shop"):
            app.on(Bumped, name=name)(lambda event: None)


@pytest.mark.parametrize("name", ["a/b", "a>b", "a:b", "a b", "ä", "1st", "<lambda>", "a\n"])
def test_a_name_that_cannot_name_a_stream_is_refused(name):
    app = App("here")
    with pytest.raises(
        DeclarationError, match=r"cannot name a part of here; use letters, digits, _ - and \. \(`name=`\)"
    ):
        app.on(Done, name=name)(lambda event: None)
    if name != "<lambda>":

        class Odd(Aggregate, key="key", category=name):
            @decide
            def do(self, command: Do) -> None:
                return

        Odd.do.__annotations__["command"] = Do
        refused("cannot name a part of here", Odd, app=app)


def test_a_function_without_a_usable_name_asks_for_one():
    with pytest.raises(DeclarationError, match="cannot name a part of here"):
        App("here").on(Done)(lambda event: None)
    App("here").on(Done, name="done")(lambda event: None)


def test_two_classes_under_one_stored_name_are_refused():
    class Again(Event, stored="here.Done"):
        key: str

    app = App("here")
    app.add(Done)
    refused("two classes are stored as 'here.Done'.*give one `stored=`", Again, app=app)


# --- aggregates and deciders ---


class Keyless(Aggregate):
    @decide
    def do(self, command: Do) -> None:
        return


class WrongKey(Aggregate, key="name"):
    @decide
    def do(self, command: Do) -> None:
        return


class NoDefault(Aggregate, key="key"):
    n: int

    @decide
    def do(self, command: Do) -> None:
        return


class Twice(Aggregate, key="key"):
    @decide
    def one(self, command: Do) -> None:
        return

    @decide
    def two(self, command: Do) -> None:
        return


class DecidesEvents(Aggregate, key="key"):
    @decide
    def done(self, event: Done) -> None:
        return


class FoldsCommands(Aggregate, key="key"):
    @evolve
    def do(self, command: Do) -> None:
        return


class FoldsForeign(Aggregate, key="key"):
    @evolve
    def bumped(self, event: Bumped) -> None:
        return


class DecidesForeign(Aggregate, key="key"):
    @decide
    def do(self, command: Foreign) -> None:
        return


class Foreign(Command, service="elsewhere"):
    key: str


class Elsewhere(Event, category="Other"):
    key: str


class WrongCategory(Aggregate, key="key"):
    @evolve
    def wrong(self, event: Elsewhere) -> None:
        return


class Unannotated(Aggregate, key="key"):
    @decide
    def do(self, command) -> None:  # type: ignore[no-untyped-def]
        return


@pytest.mark.parametrize(
    ("declared", "words"),
    [
        (Keyless, r"class Keyless\(Aggregate, key=…\): name the command field that holds its key"),
        (WrongKey, "Do has no field 'name', the key of WrongKey"),
        (NoDefault, "NoDefault.n needs a default"),
        (Twice, "Twice has two methods for Do: one and two"),
        (DecidesEvents, "Done is a event of here; here.DecidesEvents decides only its own commands"),
        (FoldsCommands, "Do is a command of here; here.FoldsCommands folds only its own events"),
        (FoldsForeign, "Bumped is a event of shop; here.FoldsForeign folds only its own events"),
        (DecidesForeign, "Foreign is a command of elsewhere; here.DecidesForeign decides only its own commands"),
        (WrongCategory, "Elsewhere says category='Other', but here.WrongCategory writes it; they must agree"),
        (Unannotated, "annotate command with the message class it takes"),
    ],
)
def test_a_wrong_aggregate_is_refused(declared, words):
    refused(words, declared)


@played
async def test_a_command_decided_twice_is_refused_at_the_start():
    app = App("here")
    app.add(
        Decider("One", "key", dict, {Do: lambda state, command: None}, {}),
        Decider("Two", "key", dict, {Do: lambda state, command: None}, {}),
    )
    with pytest.raises(DeclarationError, match="Do is decided twice; a command has one decider"):
        async with Harness(app):
            raise AssertionError


@played
async def test_a_command_with_neither_owner_nor_decider_is_refused_at_the_start():
    words = r"nothing decides Undone: give an aggregate a @decide method for it and add it, or say whose it is"
    added, returned, listed, saga = App("here"), App("here"), App("here"), App("here")
    added.add(Undone)

    @returned.on(Done)
    async def one(event: Done) -> Undone:
        return Undone(event.key)

    @listed.on(Done)
    async def several(event: Done) -> list[Undone | None] | None:
        return None

    class Tale(Saga, key="key"):
        @react(starts=True)
        def done(self, event: Done) -> Undone:
            return Undone(event.key)

    Tale.done.__annotations__.update({"event": Done, "return": Undone})
    saga.add(Tale)
    for app in (added, returned, listed, saga):
        with pytest.raises(DeclarationError, match=words):
            async with Harness(app):
                raise AssertionError
    fine = App("here")

    @fine.on(Done)
    async def elsewhere(event: Done) -> Foreign:
        return Foreign(event.key)

    async with Harness(fine):
        pass


# --- read models ---


class KeylessModel(ReadModel):
    @evolve
    def done(self, event: Done) -> None:
        return


class EmptyModel(ReadModel, key="key"):
    n: int = 0


class WrongKeyModel(ReadModel, key="name"):
    @evolve
    def done(self, event: Done) -> None:
        return


class JsonKey(Event):
    key: list[str]


class JsonKeyModel(ReadModel, key="key"):
    @evolve
    def done(self, event: JsonKey) -> None:
        return


class IntKey(Event):
    key: int


class TwoKeyTypes(ReadModel, key="key"):
    @evolve
    def done(self, event: IntKey | Done) -> None:
        return


class BadColumn(ReadModel, key="key"):
    Size: int = 0

    @evolve
    def done(self, event: Done) -> None:
        return


class BadTable(ReadModel, key="key", table="my table"):
    @evolve
    def done(self, event: Done) -> None:
        return


class CommandModel(ReadModel, key="key"):
    @evolve
    def do(self, command: Do) -> None:
        return


class ForeignInline(ReadModel, key="key", inline=True):
    @evolve
    def bumped(self, event: Bumped) -> None:
        return


class Unresolved(ReadModel, key="key"):
    n: Nowhere = 0  # type: ignore[name-defined]  # noqa: F821

    @evolve
    def done(self, event: Done) -> None:
        return


@pytest.mark.parametrize(
    ("declared", "words"),
    [
        (KeylessModel, r"class KeylessModel\(ReadModel, key=…\): name the event field that holds its key"),
        (EmptyModel, "EmptyModel has no @evolve method: it would stay empty"),
        (WrongKeyModel, "Done has no field 'name', the key of WrongKeyModel"),
        (JsonKeyModel, "disagree on the type of 'key', or it is not a plain value"),
        (TwoKeyTypes, "disagree on the type of 'key'"),
        (BadColumn, "'Size' cannot name a table or column; use lower-case letters, digits and _"),
        (BadTable, "'my table' cannot name a table or column"),
        (CommandModel, "Do is a command; an aggregate or Decider decides commands"),
        (ForeignInline, "is inline, but an event of another service is never in this service's commit"),
        (Unresolved, "annotation cannot be resolved"),
    ],
)
def test_a_wrong_read_model_is_refused(declared, words):
    refused(words, declared)


# --- sagas ---


class KeylessSaga(Saga):
    @react(starts=True)
    def done(self, event: Done) -> None:
        return


class NeverStarts(Saga, key="key"):
    @react
    def done(self, event: Done) -> None:
        return


class WrongKeySaga(Saga, key="key"):
    @react(starts=True)
    def done(self, event: Done) -> None:
        return

    @react
    def other(self, event: NoKey) -> None:
        return


class CommandSaga(Saga, key="key"):
    @react(starts=True)
    def do(self, command: Do) -> None:
        return


class RefusedSaga(Saga, key="key"):
    @react(starts=True)
    def done(self, event: Done) -> None:
        return

    @react
    def refused(self, event: Refused) -> None:
        return


@pytest.mark.parametrize(
    ("declared", "words"),
    [
        (KeylessSaga, r"class KeylessSaga\(Saga, key=…\): name the field of its events that holds its key"),
        (NeverStarts, r"NeverStarts never starts: mark one reaction with @react\(starts=True\)"),
        (WrongKeySaga, "NoKey has no field 'key', the key of WrongKeySaga"),
        (CommandSaga, "Do is a command; an aggregate or Decider decides commands"),
    ],
)
def test_a_wrong_saga_is_refused(declared, words):
    refused(words, declared)


def test_a_saga_may_take_refusals_though_they_have_no_key_of_its_own():
    App("here").add(RefusedSaga)


# --- handlers ---


async def commanded(command: Do) -> None:
    return


async def nothing() -> None:
    return


async def unannotated(event) -> None:  # type: ignore[no-untyped-def]
    return


async def more(event: Done, other: int) -> None:
    return


async def unresolved(event: Done, other: Nowhere) -> None:  # type: ignore[name-defined]  # noqa: F821
    return


async def both(event: Done, transaction: Transaction, once: Once) -> None:
    return


def plain_once(event: Done, once: Once) -> None:
    return


async def homeless(event: Homeless) -> None:
    return


@pytest.mark.parametrize(
    ("function", "words"),
    [
        (commanded, "commanded: Do is a command; an aggregate or Decider decides commands"),
        (nothing, "nothing must take a message as its argument"),
        (unannotated, "annotate event with the message class it takes"),
        (more, "more: other must be annotated as Message, Transaction or Once, or as"),
        (unresolved, "unresolved: .*cannot be resolved"),
        (both, "an outside call must not wait inside a transaction: use two handlers"),
        (plain_once, "asks for Once, which is awaited: declare it with `async def`"),
    ],
)
@pytest.mark.parametrize("given", [True, False])
def test_a_wrong_handler_is_refused(function, words, given):
    app = App("here")
    messages = {commanded: [Do]}.get(function, [Done]) if given else []
    if function is unannotated and given:
        app.on(*messages)(function)
        return
    with pytest.raises(DeclarationError, match=words):
        app.on(*messages)(function)


@played
async def test_an_event_of_another_service_without_a_category_is_refused_at_the_start():
    app = App("here")
    app.on(Homeless)(homeless)
    words = r"say whose fact it is: class Homeless\(Event, service='elsewhere', category=…\)"
    with pytest.raises(DeclarationError, match=words):
        async with Harness(app):
            raise AssertionError


@played
async def test_a_transactional_handler_is_refused_where_there_is_no_sql():
    app = App("here")

    @app.on(Done)
    async def done(event: Done, transaction: Transaction) -> None:
        return

    with pytest.raises(
        DeclarationError, match="done asks for a transaction, and this store has no SQL; use sqlite:///… or"
    ):
        async with Harness(app):
            raise AssertionError


@pytest.mark.parametrize(
    "shape", ["one", "list", "tuple", "generator", "async generator", "none", "async", "async list"]
)
@played
async def test_a_handler_may_give_its_messages_in_any_shape(shape):
    producer, app = shop(), App("mail")

    def plain(event: Bumped) -> object:
        made = [Noted(event.key, n) for n in (1, 2)]
        return {"one": made[0], "list": made, "tuple": tuple(made), "none": None}[shape]

    def generator(event: Bumped) -> Any:
        yield Noted(event.key, 1)
        yield Noted(event.key, 2)

    async def agenerator(event: Bumped) -> Any:
        yield Noted(event.key, 1)
        yield Noted(event.key, 2)

    async def one(event: Bumped) -> Noted:
        return Noted(event.key, 1)

    async def several(event: Bumped, about: Message) -> list[Noted]:
        return [Noted(event.key, 1), Noted(event.key, 2)]

    functions: dict[str, Any] = {
        "generator": generator,
        "async generator": agenerator,
        "async": one,
        "async list": several,
    }
    app.on(Bumped, name="shaped")(functions.get(shape, plain))
    async with Harness(producer, app) as world:
        await producer.send(Bump("a"))
        await world.settle()
        wanted = {"none": 0, "one": 1, "async": 1}.get(shape, 2)
        assert len(await payloads(world, app, Noted)) == wanted
        assert await world.held(app) == []
