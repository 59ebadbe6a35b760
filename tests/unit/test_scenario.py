"""Given / when / then, and the harness: what is shown to hold does hold, and what does not is told."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from typing import Any

import pytest

from headwater import (
    DELETE,
    END,
    After,
    Aggregate,
    App,
    CancelTimer,
    Command,
    Compensate,
    ConfigurationError,
    DeclarationError,
    Event,
    ReadModel,
    Refused,
    Rejected,
    Retry,
    Saga,
    Undo,
    decide,
    evolve,
    react,
)
from headwater.inbox import Reason
from headwater.testing.harness import Harness
from headwater.testing.scenario import given


class Open(Command):
    account: str


class Take(Command):
    account: str
    cents: int


class Cheat(Command):
    account: str


class Opened(Event):
    account: str
    cents: int = 100


class Taken(Event):
    account: str
    cents: int


class Gone(Event):
    account: str


class Account(Aggregate, key="account"):
    cents: int = 0

    @decide
    def open(self, command: Open) -> list[Opened]:
        return [Opened(command.account)]

    @decide
    def take(self, command: Take) -> Taken | None:
        if command.cents > self.cents:
            raise Rejected("not enough", left=self.cents)
        return Taken(command.account, command.cents) if command.cents else None

    @decide
    def cheat(self, command: Cheat) -> None:
        self.cents += 1

    @evolve
    def opened(self, event: Opened) -> None:
        self.cents = event.cents

    @evolve
    def taken(self, event: Taken) -> None:
        self.cents -= event.cents


class Balance(ReadModel, key="account"):
    cents: int = 0
    seen: list[str] = []

    @evolve
    def opened(self, event: Opened) -> None:
        self.cents = event.cents
        self.seen.append("opened")

    @evolve
    def taken(self, event: Taken) -> None:
        self.cents -= event.cents

    @evolve
    def gone(self, event: Gone) -> object:
        return DELETE


class Late(Event):
    account: str


class Watch(Saga, key="account"):
    taken: int = 0

    @evolve
    def count(self, event: Taken) -> None:
        self.taken += 1

    @react(starts=True)
    def opened(self, event: Opened) -> Iterator[Any]:
        yield Undo(Take(event.account, 1))
        yield After(Late(event.account), hours=1)
        yield Open("other")

    @react
    def on_taken(self, event: Taken) -> Iterator[Any]:
        yield CancelTimer(Late)
        yield Undo(Take(event.account, 2))

    @react
    def refused(self, event: Refused) -> Compensate:
        return Compensate()

    @react
    def late(self, event: Late) -> list[object]:
        return [Open("late"), END]


def fails(words: str) -> Any:
    return pytest.raises(AssertionError, match=words)


# --- aggregates ---


def test_a_decision_is_shown_by_its_events_and_the_state_after_them():
    given(Account).when(Open("a")).then(Opened("a")).then_state(cents=100)
    given(Account, Opened("a", 5)).when(Take("a", 3)).then(Taken("a", 3)).then_state(cents=2)
    given(Account, Opened("a", 5), Taken("a", 1)).when(Take("a", 0)).then_nothing().then_state(cents=4)


def test_a_rejection_is_shown_by_its_reason_and_details():
    outcome = given(Account, Opened("a", 5)).when(Take("a", 9))
    outcome.then_rejected().then_rejected("not enough").then_rejected("not enough", left=5).then_state(cents=5)


def test_what_does_not_hold_of_a_decision_is_told():
    outcome = given(Account, Opened("a", 5)).when(Take("a", 3))
    with fails("(?s)expected .*got"):
        outcome.then(Taken("a", 4))
    with fails("(?s)expected .*got"):
        outcome.then()
    with fails("(?s)expected .*got"):
        outcome.then_nothing()
    with fails("(?s)expected .*got"):
        outcome.then(Taken("a", 3), Taken("a", 3))
    with fails("expected a rejection, got"):
        outcome.then_rejected()
    with fails("expected {'cents': 3}\n     got {'cents': 2}"):
        outcome.then_state(cents=3)
    with fails("no such field"):
        outcome.then_state(dollars=3)
    refused = given(Account, Opened("a", 5)).when(Take("a", 9))
    with fails("rejected: 'not enough'; expected"):
        refused.then(Taken("a", 9))
    with fails("rejected"):
        refused.then_nothing()
    with fails("expected the reason 'no', got 'not enough'"):
        refused.then_rejected("no")
    with fails("expected the details {'left': 4}, got {'left': 5}"):
        refused.then_rejected(left=4)


def test_a_decision_that_changes_the_state_is_told():
    with fails("changed the state; only @evolve may"):
        given(Account).when(Cheat("a"))


def test_what_it_does_not_take_says_so():
    with pytest.raises(DeclarationError, match="Account decides no Opened"):
        given(Account).when(Opened("a"))
    with pytest.raises(DeclarationError, match="Watch takes no Gone"):
        given(Watch).when(Gone("a"))
    with pytest.raises(DeclarationError, match=r"for Balance use then_rows\(\)"):
        given(Balance).when(Opened("a"))
    with pytest.raises(DeclarationError, match="Account is none"):
        given(Account).then_rows()


# --- read models ---


def test_the_rows_of_a_read_model_are_shown_in_any_order():
    history = [Opened("a", 5), Opened("b", 7), Taken("a", 2), Late("a")]
    given(Balance, *history).then_rows(
        Balance(account="b", cents=7, seen=["opened"]), Balance(account="a", cents=3, seen=["opened"])
    )
    given(Balance, *history, Gone("a")).then_rows(Balance(account="b", cents=7, seen=["opened"]))
    given(Balance).then_rows()


def test_rows_that_are_not_so_are_told():
    with fails("expected rows"):
        given(Balance, Opened("a", 5)).then_rows()
    with fails("expected rows"):
        given(Balance, Opened("a", 5)).then_rows(Balance(account="a", cents=6, seen=["opened"]))
    with fails("expected rows"):
        given(Balance).then_rows(Balance(account="a"))


# --- sagas ---


def test_a_reaction_is_shown_by_what_leaves():
    given(Watch).when(Opened("a")).then(After(Late("a"), hours=1), Open("other")).then_state(taken=0)
    given(Watch, Opened("a")).when(Taken("a", 1)).then(CancelTimer(Late)).then_state(taken=1)


def test_compensation_is_shown_by_the_commands_the_last_first_and_once():
    refused = Refused("x", "y", "z")
    given(Watch, Opened("a")).when(refused).then(Take("a", 1))
    given(Watch, Opened("a"), Taken("a", 5)).when(refused).then(Take("a", 2), Take("a", 1))
    given(Watch, Opened("a"), refused).when(refused).then_nothing()


def test_the_end_is_shown_and_what_comes_after_it_does_nothing():
    given(Watch, Opened("a")).when(Late("a")).then(Open("late")).then_ended()
    given(Watch, Opened("a"), Late("a")).when(Taken("a", 1)).then_nothing().then_ended().then_state(taken=0)
    with fails("the saga has not ended"):
        given(Watch).when(Opened("a")).then_ended()


def test_a_message_for_no_instance_is_told():
    with fails("would be held until one does"):
        given(Watch).when(Taken("a", 1))
    with fails("would be held until one does"):
        given(Watch, Taken("a", 1)).when(Opened("a"))


# --- the harness ---


class Ping(Event, service="left", category="beep"):
    key: str
    n: int


class Pong(Event, service="right", category="boop"):
    key: str
    n: int


class Start(Command, service="left"):
    key: str
    n: int


class Beep(Aggregate, key="key", category="beep"):
    @decide
    def start(self, command: Start) -> Ping:
        return Ping(command.key, command.n)


def left() -> App:
    app = App("left")
    app.add(Beep)
    return app


def test_services_come_to_rest_and_time_stands_still():
    app, right = left(), App("right")
    seen: list[int] = []

    @right.on(Ping)
    async def hear(event: Ping) -> None:
        seen.append(event.n)

    async def play() -> None:
        async with Harness(app, right) as world:
            began = world.clock.now()
            await app.send(Start("a", 1))
            assert seen == []
            await world.settle()
            assert seen == [1]
            assert world.clock.now() == began

    asyncio.run(play())


def test_the_same_seed_gives_the_same_ids_and_another_others():
    async def ids(seed: int) -> list[str]:
        app = left()
        async with Harness(app, seed=seed) as world:
            for n in range(5):
                await app.send(Start("a", n))
            return [one.id for one in await world.databases["left"].read(0, 10)]

    first, again, other = (asyncio.run(ids(seed)) for seed in (1, 1, 2))
    assert first == again
    assert first != other


def test_services_that_answer_each_other_for_ever_are_told(monkeypatch):
    monkeypatch.setattr("headwater.testing.harness.ROUNDS", 200)
    app = App("left")

    @app.on(Ping, name="beep")
    async def again(event: Ping) -> Ping:
        return Ping(event.key, event.n + 1)

    app.add(Other)

    async def play() -> None:
        async with Harness(app) as world:
            await app.send(Kick("a"))
            await world.settle()

    with pytest.raises(AssertionError, match="did not come to rest in 200 rounds: do two answer each other for ever"):
        asyncio.run(play())


class Kick(Command):
    key: str


class Other(Aggregate, key="key"):
    @decide
    def kick(self, command: Kick) -> Ping:
        return Ping(command.key, 0)


@pytest.mark.parametrize("how", [{"seconds": 90}, {"minutes": 1.5}, {"hours": 0.025}, {"days": 0.025 / 24}])
def test_time_passes_when_it_is_told_to(how):
    async def play() -> None:
        app = left()
        async with Harness(app) as world:
            began = world.clock.now()
            await world.advance(**how)
            assert world.clock.now() - began == 90_000_000

    asyncio.run(play())


def test_who_sleeps_moves_time_and_is_not_left_asleep():
    app, right = left(), App("right")
    order: list[tuple[str, float]] = []

    @right.on(Ping)
    async def slow(event: Ping) -> None:
        await right.clock.sleep(10 - event.n)
        order.append((event.key, right.clock.monotonic()))

    async def play() -> None:
        async with Harness(app, right) as world:
            for n, key in enumerate("abc"):
                await app.send(Start(key, n))
            await world.settle()
            assert order == [("c", 8.0), ("b", 9.0), ("a", 10.0)]
            await right.clock.sleep(5)
            assert world.clock.monotonic() == 15.0

    asyncio.run(play())


def test_a_restart_keeps_what_is_committed_and_forgets_what_is_in_hand():
    app, right = left(), App("right", retry=Retry(attempts=2))
    seen: list[int] = []

    @right.on(Ping)
    async def hear(event: Ping) -> Pong:
        seen.append(event.n)
        return Pong(event.key, event.n)

    async def play() -> None:
        async with Harness(app, right) as world:
            await app.send(Start("a", 1))
            await world.settle()
            await world.restart(app)
            await world.restart(right)
            await world.settle()
            await app.send(Start("a", 2))
            await world.settle()
            assert seen == [1, 2]
            assert await world.databases["left"].head() == 2
            await world.replace_channel()
            await world.settle()
            assert seen == [1, 2]

    asyncio.run(play())


def test_what_is_held_is_listed_by_reason():
    app, right = left(), App("right", retry=Retry(attempts=2, base=1.0))

    @right.on(Ping)
    async def bad(event: Ping) -> None:
        raise RuntimeError("bad")

    async def play() -> None:
        async with Harness(app, right) as world:
            await app.send(Start("a", 1))
            await app.send(Start("a", 2))
            await world.settle()
            assert [row.reason for row in await world.held(right)] == [Reason.RETRY, Reason.BEHIND]
            await world.advance(seconds=1)
            assert [row.reason for row in await world.held(right, Reason.DEAD)] == [Reason.DEAD]
            assert await world.held(app) == []

    asyncio.run(play())


def test_a_wrong_declaration_leaves_no_app_running():
    app, wrong = left(), App("wrong")
    wrong.add(Start)
    wrong.add(Kick)

    async def play() -> None:
        with pytest.raises(DeclarationError, match="nothing decides Kick"):
            async with Harness(app, wrong):
                raise AssertionError
        with pytest.raises(ConfigurationError, match="is not running"):
            assert app.wiring
        async with Harness(app) as world:
            await app.send(Start("a", 1))
            await world.settle()

    asyncio.run(play())


def test_an_error_of_a_service_reaches_the_test():
    app = left()

    async def play() -> None:
        async with Harness(app) as world:

            async def fail(*_: object, **__: object) -> None:
                raise ZeroDivisionError

            world.channel.publish = fail  # type: ignore[method-assign]
            await app.send(Start("a", 1))
            with pytest.raises(ZeroDivisionError):
                await world.settle()

    asyncio.run(play())
