"""Commands between services, and of a service to itself: done once, refused by a reply, in order, on the newest state."""

from __future__ import annotations

import asyncio
from decimal import Decimal

import pytest

from headwater import Aggregate, App, Command, DatabaseError, Event, ReadModel, Refused, Rejected, Retry, decide, evolve
from headwater.inbox import Reason
from headwater.testing.harness import Harness
from tests.flow.rig import Killed, failing_commits, log_of, payloads, played, publication, settles


class Pay(Command, service="bank"):
    account: str
    cents: int
    how: str = ""


class Fill(Command, service="bank"):
    account: str
    cents: int


class Paid(Event, service="bank", category="Account"):
    account: str
    cents: int
    left: int


class Filled(Event, service="bank", category="Account"):
    account: str
    cents: int


class Ordered(Event, service="web", category="form"):
    account: str
    cents: int
    how: str = ""


class Account(Aggregate, key="account"):
    cents: int = 0

    @decide
    def fill(self, command: Fill) -> Filled:
        return Filled(command.account, command.cents)

    @decide
    def pay(self, command: Pay) -> Paid | None:
        if command.how == "break":
            raise ZeroDivisionError("broken")
        if command.how == "nothing":
            return None
        if command.cents > self.cents:
            raise Rejected("no money", left=self.cents, at=Decimal("1.5"), what={1, 2} if command.how else None)
        return Paid(command.account, command.cents, self.cents - command.cents)

    @evolve
    def filled(self, event: Filled) -> None:
        self.cents += event.cents

    @evolve
    def paid(self, event: Paid) -> None:
        self.cents -= event.cents
        if event.cents == 13:
            raise ZeroDivisionError("evolve is broken")


def bank(**options: object) -> App:
    app = App("bank", **options)  # type: ignore[arg-type]
    app.add(Account)
    return app


class Buyer:
    """A service with a handler that sends `Pay` for each order, and hears of refusals."""

    def __init__(self, name: str = "buyer", **options: object) -> None:
        self.app = App(name, **options)  # type: ignore[arg-type]
        self.refused: list[Refused] = []

        @self.app.on(Ordered, Refused, name="buy")
        async def buy(event: Ordered | Refused) -> Pay | None:
            if isinstance(event, Refused):
                self.refused.append(event)
                return None
            return Pay(event.account, event.cents, event.how)


def order(n: int, account: str, cents: int, how: str = "", *, form: str = "") -> object:
    return publication(f"web.form/{form or account}", n, "web.Ordered", Ordered(account, cents, how))


async def paid(world: Harness, app: App) -> list[tuple[str, int, int]]:
    return [(one.account, one.cents, one.left) for one in await payloads(world, app, Paid)]


@played
async def test_a_command_of_another_service_is_done_once_and_in_order():
    app, buyer = bank(), Buyer()
    async with Harness(app, buyer.app) as world:
        await app.send(Fill("a", 10))
        await world.channel.publish([order(n, "a", n) for n in (1, 2, 3)])
        await world.settle()
        assert await paid(world, app) == [("a", 1, 9), ("a", 2, 7), ("a", 3, 4)]
        again = [one for place in world.channel.broker._places.values() for one in place]
        await world.channel.publish(
            [
                publication(
                    one.delivery.headers["subject"],
                    int(one.delivery.headers["streamversion"]),
                    "bank.Pay",
                    one.delivery.body,
                    kind="command",
                    topic="bank.commands",
                )
                for one in again
                if one.delivery.topic == "bank.commands"
            ]
        )
        await world.settle()
        assert len(await paid(world, app)) == 3


@played
async def test_a_refusal_settles_the_command_and_goes_back_to_its_sender_alone():
    app, buyer, other = bank(), Buyer(), Buyer("other")
    heard: list[str] = []

    @buyer.app.on(Refused, name="elsewhere")
    async def elsewhere(event: Refused) -> None:
        heard.append(event.type)

    async with Harness(app, buyer.app, other.app) as world:
        await app.send(Fill("a", 10))
        await world.channel.publish([order(1, "a", 8), order(2, "a", 8)])
        for one in (buyer, other):
            assert one.refused == []
        await world.settle()
        assert len(await paid(world, app)) == 1
        refusals = buyer.refused + other.refused
        assert len(refusals) == 3
        assert {(one.type, one.reason) for one in refusals} == {("bank.Pay", "no money")}
        assert {one.stream.partition(">")[0] for one in buyer.refused} <= {"buyer.buy"}
        assert {one.stream.partition(">")[0] for one in other.refused} == {"other.buy"}
        assert heard == []
        assert await world.held(app) == []


@played
async def test_the_details_of_a_refusal_are_plain_values_whatever_they_were():
    app, buyer = bank(), Buyer()
    async with Harness(app, buyer.app) as world:
        await world.channel.publish([order(1, "a", 8, "odd")])
        await world.settle()
        [refused] = buyer.refused
        assert refused.details["left"] == 0
        assert refused.details["at"] == "1.5"
        assert sorted(refused.details["what"]) == [1, 2]
        assert await world.held(app) == []


@played
async def test_a_command_without_a_key_value_is_refused_like_any_other():
    app, buyer = bank(), Buyer()
    async with Harness(app, buyer.app) as world:
        await world.channel.publish([order(1, "", 8, form="x"), order(2, "a", 8, form="x")])
        await world.settle()
        assert ["is empty" in one.reason for one in buyer.refused] == [True, False]
        assert await world.held(app) == []


@played
async def test_a_decide_that_raises_holds_its_sender_and_others_flow():
    app, buyer = bank(retry=Retry(attempts=2)), Buyer()
    async with Harness(app, buyer.app) as world:
        await app.send(Fill("a", 10))
        await world.channel.publish(
            [order(1, "a", 1, "break", form="x"), order(2, "a", 2, form="x"), order(1, "a", 3, form="y")]
        )
        for _ in range(3):
            await world.advance(seconds=5)
        assert await paid(world, app) == [("a", 3, 7)]
        assert [(row.key, row.message.version, row.reason) for row in await world.held(app)] == [
            ("buyer.buy>bank/x", 1, Reason.DEAD),
            ("buyer.buy>bank/x", 2, Reason.BEHIND),
        ]


@played
async def test_commands_of_two_senders_on_one_aggregate_see_each_other():
    app, one, two = bank(), Buyer("one"), Buyer("two")
    async with Harness(app, one.app, two.app) as world:
        await app.send(Fill("a", 10))
        await world.channel.publish([order(n, "a", 3) for n in range(1, 5)])
        await world.settle()
        assert [left for _, _, left in await paid(world, app)] == [7, 4, 1]
        assert len(one.refused) + len(two.refused) == 5


@played
async def test_a_command_that_decides_nothing_is_done():
    app, buyer = bank(), Buyer()
    async with Harness(app, buyer.app) as world:
        await world.channel.publish([order(1, "a", 1, "nothing"), order(2, "a", 1)])
        await world.settle()
        assert await log_of(world, app) != []
        assert len(buyer.refused) == 1
        assert await world.held(app) == []


@played
async def test_what_breaks_an_aggregate_does_not_charge_the_next_command_for_it():
    app, buyer, other = bank(retry=Retry(attempts=2)), Buyer(), Buyer("other")
    async with Harness(app, buyer.app, other.app) as world:
        await app.send(Fill("a", 100))
        await world.settle()
        await world._end(other.app)
        await world.channel.publish(
            [order(1, "a", 13, form="x"), order(1, "a", 2, form="y"), order(1, "a", 3, form="z")]
        )
        await world.settle()
        attempts = {row.key: row.attempts for row in await world.held(app)}
        assert sum(attempts.values()) == 1, attempts
        for _ in range(4):
            await world.advance(seconds=5)
        assert sorted(cents for _, cents, _ in await paid(world, app)) == [2, 3]
        [row] = await world.held(app)
        assert (row.reason, row.attempts) == (Reason.DEAD, 2)
        await world._start(other.app, world.databases["other"])


@played
async def test_a_refusal_never_rests_on_a_state_that_another_process_has_changed():
    """The worker's cache is stale: a refusal is decided again, as a decision is."""
    from headwater.adapters.memory import MemoryDatabase

    app, buyer, twin = bank(), Buyer(), bank()
    async with Harness(app, buyer.app) as world:
        await app.send(Fill("a", 1))
        await world.channel.publish([order(1, "a", 1)])
        await world.settle()
        twin.clock = world.clock
        database = MemoryDatabase(world.clock, world.databases["bank"].file)
        await database.open()
        await twin.connect(database, world.channel)
        await twin.send(Fill("a", 50))
        await world.channel.publish([order(2, "a", 50)])
        await world.settle()
        assert await paid(world, app) == [("a", 1, 0), ("a", 50, 0)]
        assert buyer.refused == []
        await twin.stop()


@played
async def test_a_refusal_never_rests_on_a_callers_events_that_are_not_committed():
    app, buyer = bank(), Buyer()
    async with Harness(app, buyer.app) as world:
        await app.send(Fill("a", 10))
        await world.channel.publish([order(1, "a", 1)])
        await world.settle()
        database = world.databases["bank"]
        commit = database.commit
        gate = asyncio.Event()

        async def stuck(writes):
            if any(write.key for write in writes):
                await gate.wait()
                raise DatabaseError("lost")
            return await commit(writes)

        database.commit = stuck
        taking = asyncio.ensure_future(app.attempt(Pay("a", 9)))
        await asyncio.sleep(0.01)
        await world.channel.publish([order(2, "a", 9)])
        await world.settle()
        gate.set()
        with pytest.raises(DatabaseError):
            await taking
        assert buyer.refused == []
        assert await paid(world, app) == [("a", 1, 9), ("a", 9, 0)]


@played
async def test_a_callers_decision_never_rests_on_a_batch_that_falls():
    """Another process's event stands where the batch's was expected."""
    from headwater.adapters.memory import MemoryDatabase

    app, buyer, twin = bank(), Buyer(), bank()
    async with Harness(app, buyer.app) as world:
        twin.clock = world.clock
        database = MemoryDatabase(world.clock, world.databases["bank"].file)
        await database.open()
        await twin.connect(database, world.channel)
        await app.send(Fill("a", 10))
        commit = world.databases["bank"].commit
        gate = asyncio.Event()

        async def slow(writes):
            if any(append.drafts for write in writes for append in write.appends):
                await gate.wait()
            return await commit(writes)

        world.databases["bank"].commit = slow
        await world.channel.publish([order(1, "a", 4)])
        settling = asyncio.ensure_future(world.settle())
        await asyncio.sleep(0.01)
        sending = asyncio.ensure_future(app.attempt(Pay("a", 5)))
        await asyncio.sleep(0.01)
        await twin.send(Pay("a", 3))
        gate.set()
        await asyncio.gather(settling, sending)
        await world.settle()
        left = 10
        for _, cents, said in await paid(world, app):
            left -= cents
            assert said == left
        assert len(await paid(world, app)) == 2
        await twin.stop()


@played
async def test_commands_and_callers_of_one_aggregate_at_once_never_conflict_for_good():
    app, buyer = bank(batch=5), Buyer()
    async with Harness(app, buyer.app) as world:
        await app.send(Fill("a", 60))
        await world.channel.publish([order(1, "a", 1, form=str(n)) for n in range(40)])
        sends = [asyncio.ensure_future(app.attempt(Pay("a", 1))) for _ in range(40)]
        await asyncio.gather(world.settle(), *sends)
        await world.settle()
        lefts = [left for _, _, left in await paid(world, app)]
        assert lefts == list(range(59, -1, -1))
        refused = sum(isinstance(one.result(), Rejected) for one in sends) + len(buyer.refused)
        assert refused == 20
        assert await world.held(app) == []


@pytest.mark.parametrize("after", [False, True])
@played
async def test_a_crash_at_the_commit_does_no_command_twice(after):
    app, buyer = bank(), Buyer()
    async with Harness(app, buyer.app) as world:
        await app.send(Fill("a", 10))
        await world.channel.publish([order(n, "a", 4) for n in (1, 2, 3)])
        with failing_commits(world.databases["bank"], Killed(), settles("bank.commands"), after=after):
            with pytest.raises(Killed):
                await world.settle()
            await world.restart(app)
        await world.settle()
        assert [left for _, _, left in await paid(world, app)] == [6, 2]
        assert len(buyer.refused) == 1


@played
async def test_a_large_batch_of_aggregates_is_decided_though_the_cache_is_small(monkeypatch):
    monkeypatch.setattr("headwater.handling.WARM", 3)
    app, buyer = bank(), Buyer()
    async with Harness(app, buyer.app) as world:
        for n in range(12):
            await app.send(Fill(str(n), 5))
        for first in (1, 2):
            await world.channel.publish([order(first, str(n), 1) for n in range(12)])
            await world.settle()
        assert len(await paid(world, app)) == 24
        await world.channel.publish([order(3, "9", 1), order(1, "new", 0)])
        await world.settle()
        assert len(await paid(world, app)) == 26, "the oldest of the cache is not dropped while it is needed"
        assert await world.held(app) == []


# --- to itself ---


class Wish(Event):
    account: str
    cents: int


class Count(ReadModel, key="account", inline=True):
    times: int = 0

    @evolve
    def paid(self, event: Paid) -> None:
        if event.cents == 7:
            raise ValueError("seven is bad")
        self.times += 1


@played
async def test_a_service_sends_commands_to_itself_through_its_own_log():
    app = bank()
    refused: list[str] = []

    @app.on(Filled, Refused, name="spend")
    async def spend(event: Filled | Refused) -> list[Pay]:
        if isinstance(event, Refused):
            refused.append(event.reason)
            return []
        return [Pay(event.account, event.cents), Pay(event.account, 1)]

    async with Harness(app) as world:
        await app.send(Fill("a", 5))
        await app.send(Fill("b", 7))
        await world.settle()
        assert await paid(world, app) == [("a", 5, 0), ("b", 7, 0)]
        assert refused == ["no money", "no money"]
        assert not [lag for lag in await world.channel.lag() if "commands" in lag.topic and lag.messages]
        assert {one.kind for one in await log_of(world, app)} == {"event", "command", "reply"}


@played
async def test_a_command_whose_event_an_inline_read_model_cannot_fold_holds_only_its_sender():
    app, buyer = bank(retry=Retry(attempts=2)), Buyer()
    app.add(Count)
    async with Harness(app, buyer.app) as world:
        for account in "abc":
            await app.send(Fill(account, 20))
        with pytest.raises(DatabaseError, match="seven is bad"):
            await app.send(Pay("a", 7))
        await world.channel.publish([order(1, "a", 1), order(1, "b", 7), order(1, "c", 3), order(2, "b", 2)])
        for _ in range(4):
            await world.advance(seconds=5)
        assert sorted(await paid(world, app)) == [("a", 1, 19), ("c", 3, 17)]
        assert [(row.message.version, row.reason) for row in await world.held(app)] == [
            (1, Reason.DEAD),
            (2, Reason.BEHIND),
        ]
        assert (await app.get(Count, "a")).times == 1
        assert await app.get(Count, "b") is None
