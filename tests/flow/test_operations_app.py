"""Operations on an app and its log: events, aggregates, commands. Other tests borrow the app."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

import pytest

from headwater import (
    Aggregate,
    App,
    Command,
    Committed,
    Event,
    NotFound,
    Once,
    ReadModel,
    Rejected,
    SchemaError,
    decide,
    evolve,
)
from headwater.operations import (
    Filter,
    aggregate_state,
    find_event,
    list_events,
    read_command,
    send_command,
    tail_events,
)
from headwater.operations.events import to_detail
from headwater.testing.harness import Harness


class Open(Command):
    account_id: str
    owner: str = ""


class Withdraw(Command):
    account_id: str
    cents: int


class Ship(Command, service="shipping"):
    account_id: str


class Opened(Event):
    account_id: str
    owner: str


class Withdrawn(Event):
    account_id: str
    cents: int


class Account(Aggregate, key="account_id"):
    owner: str = ""
    cents: int = 0

    @decide
    def open(self, command: Open) -> Opened:
        return Opened(command.account_id, command.owner)

    @decide
    def withdraw(self, command: Withdraw) -> Withdrawn:
        if command.cents > 1_000:
            raise Rejected("too much", most=1_000)
        return Withdrawn(command.account_id, command.cents)

    @evolve
    def opened(self, event: Opened) -> None:
        self.owner = event.owner

    @evolve
    def withdrawn(self, event: Withdrawn) -> None:
        self.cents -= event.cents


class Statement(ReadModel, key="account_id"):
    cents: int = 0

    @evolve
    def withdrawn(self, event: Withdrawn) -> None:
        self.cents += event.cents


class World:
    """What the handlers of the app meet: accounts that fail, and the outside effects that were tried."""

    def __init__(self) -> None:
        self.failing: set[str] = set()
        self.handled: list[tuple[str, int]] = []
        self.charged: list[str] = []
        self.uncertain = False


def make_app(world: World | None = None, **options: Any) -> App:
    meets = world or World()
    app = App("bank", **options)
    app.add(Account, Statement, Ship)

    @app.on(Withdrawn)
    async def receipt(event: Withdrawn) -> None:
        if event.account_id in meets.failing:
            raise SchemaError(f"no receipt for {event.account_id}")
        meets.handled.append((event.account_id, event.cents))

    @app.on(Opened)
    async def charge(event: Opened, once: Once) -> None:
        async def call(key: str) -> str:
            meets.charged.append(event.account_id)
            if meets.uncertain:
                raise ConnectionError("lost")
            return "receipt 7"

        meets.handled.append((str(await once("fee", call)), 0))

    return app


app = make_app()


def in_harness(test: Callable[[Harness, App], Awaitable[None]], world: World | None = None) -> None:
    async def run() -> None:
        one = make_app(world)
        async with Harness(one) as harness:
            await test(harness, one)

    asyncio.run(run())


async def fill(app: App) -> None:
    await app.send(Open("a", "Ada"))
    for cents in (1, 2, 3):
        await app.send(Withdraw("a", cents))
        await app.send(Withdraw("b", cents))


def test_lists_the_last_events_or_the_first_after_a_position() -> None:
    async def test(harness: Harness, app: App) -> None:
        await fill(app)
        database = harness.databases["bank"]

        async def positions(wanted: Filter, **options: Any) -> list[int]:
            return [one.position for one in await list_events(database, wanted, **options)]

        assert await positions(Filter(), limit=3) == [5, 6, 7]
        assert await positions(Filter(), limit=3, after=2) == [3, 4, 5]
        assert await positions(Filter(), after=7) == []
        assert await positions(Filter(stream="bank.Account/b"), limit=2) == [5, 7]
        assert await positions(Filter(stream="bank.Account/b"), limit=1, after=3) == [5]
        assert await positions(Filter(type="Opened")) == [1]
        assert await positions(Filter(type="bank.Withdrawn"), limit=2) == [6, 7]
        assert await positions(Filter(category="Account", type="Withdrawn"), limit=2, after=0) == [2, 3]
        assert await positions(Filter(category="bank.Nothing")) == []

    in_harness(test)


def test_finds_an_event_by_position_place_or_id() -> None:
    async def test(harness: Harness, app: App) -> None:
        await fill(app)
        database = harness.databases["bank"]
        first = await find_event(database, "1")
        assert await find_event(database, "bank.Account/a@1") == first == await find_event(database, first.id)
        assert to_detail(first).data == {"account_id": "a", "owner": "Ada"}
        for reference in ("0", "8", "bank.Account/a@9", "bank.Account/z@1", "0193a5b2-7c1d-7e3f-8a4b-5c6d7e8f9a0b"):
            with pytest.raises(NotFound, match="events list"):
                await find_event(database, reference)

    in_harness(test)


def test_follows_what_is_committed() -> None:
    async def test(harness: Harness, app: App) -> None:
        await fill(app)
        following = tail_events(harness.databases["bank"], Filter(type="Withdrawn"))
        coming = asyncio.ensure_future(anext(following))
        await harness.settle()
        assert not coming.done()
        await app.send(Open("c"))
        await app.send(Withdraw("c", 5))
        assert (await coming).stream == "bank.Account/c"
        await following.aclose()

        from_start = tail_events(harness.databases["bank"], Filter(), after=0)
        assert [(await anext(from_start)).position for _ in range(9)] == list(range(1, 10))
        await from_start.aclose()

    in_harness(test)


def test_shows_an_aggregate_at_a_version_or_a_time() -> None:
    async def test(harness: Harness, app: App) -> None:
        await app.send(Open("a", "Ada"))
        harness.clock.advance(60)
        between = harness.clock.now()
        harness.clock.advance(60)
        await app.send(Withdraw("a", 30))
        database = harness.databases["bank"]
        now = await aggregate_state(app, database, "Account", "a")
        assert (now.stream, now.version, now.state) == ("bank.Account/a", 2, {"owner": "Ada", "cents": -30})
        assert [(one.version, one.type, one.data) for one in now.history] == [
            (1, "bank.Opened", {"account_id": "a", "owner": "Ada"}),
            (2, "bank.Withdrawn", {"account_id": "a", "cents": 30}),
        ]
        for options in ({"version": 1}, {"at": between}):
            then = await aggregate_state(app, database, "bank.Account", "a", **options)
            assert (then.version, then.state, len(then.history)) == (1, {"owner": "Ada", "cents": 0}, 1)

    in_harness(test)


@pytest.mark.parametrize(
    ("arguments", "options", "said"),
    [
        (("Account", "z"), {}, "no events"),
        (("Account", "a"), {"at": 1}, "no events by then"),
        (("Account", "a"), {"version": 9}, "it is at 4"),
        (("Acount", "a"), {}, "it has: bank.Account"),
    ],
)
def test_says_which_aggregate_is_missing(arguments: tuple[str, str], options: dict[str, int], said: str) -> None:
    async def test(harness: Harness, app: App) -> None:
        await fill(app)
        with pytest.raises(NotFound, match=said):
            await aggregate_state(app, harness.databases["bank"], *arguments, **options)

    in_harness(test)


def test_sends_a_command_by_stored_name_or_class_name() -> None:
    async def test(harness: Harness, app: App) -> None:
        assert read_command(app, "bank.Withdraw", b'{"account_id": "a", "cents": 3}') == Withdraw("a", 3)
        command = read_command(app, "Withdraw", b'{"account_id": "a", "cents": 3}')
        first = await send_command(app, command, "k", actor="root")
        again = await send_command(app, command, "k", actor="root")
        assert isinstance(first, Committed)
        assert again == Committed(first.position, first.version, repeated=True)
        event = await find_event(harness.databases["bank"], str(first.position))
        assert (event.metadata.actor, event.metadata.correlation_id) == ("root", "k")
        refused = await send_command(app, Withdraw("a", 2_000), "k2")
        assert isinstance(refused, Rejected)

    in_harness(test)


@pytest.mark.parametrize("name", ["Nope", "Opened", "bank.Opened", "Account", ""])
def test_an_unknown_command_is_not_found(name: str) -> None:
    with pytest.raises(NotFound, match=r"it knows: bank\.Open, bank\.Withdraw, shipping\.Ship"):
        read_command(app, name, b"{}")


def test_the_command_of_another_service_is_sent_with_its_app() -> None:
    with pytest.raises(NotFound, match="use the app of shipping"):
        read_command(app, "Ship", b'{"account_id": "a"}')


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"\xff\xfe",
        b"[1]",
        b'"text"',
        b'{"account_id": "a"}',
        b'{"account_id": "a", "cents": "3"}',
        b'{"account_id": "a", "cents": 3, "cent": 4}',
        b'{"account_id": "a", "cents": 3, "cents": 4}',
        b'{"account_id": "a", "cents": NaN}',
        b'{"account_id": "\\ud800", "cents": 3}',
        b'{"account_id": ' + b"[" * 100 + b"]" * 100 + b', "cents": 3}',
        b'{"account_id": "' + b"x" * 2 * 1024 * 1024 + b'", "cents": 3}',
    ],
)
def test_strict_checks_refuse_what_is_not_the_command(data: bytes) -> None:
    with pytest.raises(SchemaError):
        read_command(app, "Withdraw", data)
