"""Handling: what a caller of `send` and `attempt` may rely on."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator

import pytest

from headwater import (
    Aggregate,
    App,
    Command,
    Committed,
    DatabaseError,
    Decider,
    DeclarationError,
    Event,
    KeyReused,
    Metadata,
    NotFound,
    Rejected,
    SchemaError,
    Unknown,
    decide,
    evolve,
)
from headwater.adapters.memory import MemoryDatabase
from headwater.database import Collision, Failed, WriteSet
from headwater.message import JSON, Draft
from headwater.store import Append
from headwater.testing.harness import Harness
from tests.flow.rig import any_set, failing_commits, log_of, played


def itself(one: object) -> object:
    return one


class Open(Command):
    account: str
    cents: int


class Take(Command):
    account: str
    cents: int


class TakeAll(Command):
    account: str
    how: str


class Break(Command):
    account: str
    where: str


class Opened(Event):
    account: str
    cents: int


class Taken(Event):
    account: str
    cents: int
    left: int


class Odd(Event):
    account: str
    where: str


class Begun(Event, version=2):
    account: str
    cents: int


class Foreign(Event, service="elsewhere", category="Thing"):
    account: str


class Account(Aggregate, key="account"):
    cents: int = 0
    seen: int = 0

    @decide
    def open(self, command: Open) -> Opened:
        return Opened(command.account, command.cents)

    @decide
    def take(self, command: Take) -> Taken | None:
        if command.cents == 0:
            return None
        if command.cents > self.cents:
            raise Rejected("not enough", left=self.cents)
        return Taken(command.account, command.cents, self.cents - command.cents)

    @decide
    def take_all(self, command: TakeAll) -> object:
        events = [Taken(command.account, 1, self.cents - 1 - n) for n in range(self.cents)]
        shapes = {
            "list": events,
            "tuple": tuple(events),
            "generator": iter(events),
            "map": map(itself, events),
        }
        return shapes[command.how] if command.how in shapes else self._yielded(events)

    def _yielded(self, events: list[Taken]) -> Iterator[Taken]:
        yield from events

    @decide
    def break_it(self, command: Break) -> object:
        if command.where == "decide":
            raise ZeroDivisionError("decide is broken")
        if command.where == "foreign":
            return Foreign(command.account)
        if command.where == "command":
            return Take(command.account, 1)
        if command.where == "nonsense":
            return "nonsense"
        return Odd(command.account, command.where)

    @evolve
    def opened(self, event: Opened | Begun) -> None:
        self.cents += event.cents
        self.seen += 1

    @evolve
    def taken(self, event: Taken) -> None:
        self.cents -= event.cents
        self.seen += 1

    @evolve
    def odd(self, event: Odd) -> None:
        self.seen += 1
        self.cents += 100
        if event.where == "evolve":
            raise ZeroDivisionError("evolve is broken")


def bank() -> App:
    app = App("bank")
    app.add(Account)
    return app


async def twin(world: Harness) -> App:
    """Another process of the service on the same data."""
    other = bank()
    other.clock = world.clock
    database = MemoryDatabase(world.clock, world.databases["bank"].file)
    await database.open()
    await other.connect(database, world.channel)
    return other


async def takings(world: Harness, app: App) -> list[tuple[int, int]]:
    """Each event's version and what its decision said is left."""
    events = [one for one in await log_of(world, app) if one.type == "bank.Taken"]
    return [(one.version, app.schema.decode(one.type, 1, one.data).left) for one in events]


# --- command keys ---


@played
async def test_the_same_key_gives_the_same_answer_and_is_done_once():
    app = bank()
    async with Harness(app) as world:
        first = await app.send(Open("a", 5), key="k")
        again = await app.send(Open("a", 5), key="k")
        assert (again.position, again.version, again.repeated) == (first.position, first.version, True)
        assert len(await log_of(world, app)) == 1


@played
async def test_the_same_key_is_known_after_a_restart():
    app = bank()
    async with Harness(app) as world:
        first = await app.send(Open("a", 5), key="k")
        await world.restart(app)
        assert (await app.send(Open("a", 5), key="k")).position == first.position


@pytest.mark.parametrize("other", [Open("a", 6), Open("b", 5), Take("a", 5), Take("a", 500), Break("a", "decide")])
@played
async def test_the_same_key_with_another_command_is_key_reused(other):
    app = bank()
    async with Harness(app):
        await app.send(Open("a", 5), key="k")
        with pytest.raises(KeyReused):
            await app.send(other, key="k")
        assert (await app.send(Open("a", 5), key="k")).repeated
        assert (await app.load(Account, "a")).cents == 5


@played
async def test_a_known_key_is_answered_as_first_though_the_state_now_refuses():
    app = bank()
    async with Harness(app):
        await app.send(Open("a", 5))
        first = await app.send(Take("a", 5), key="k")
        assert await app.attempt(Take("a", 5), key="k") == Committed(first.position, first.version, repeated=True)
        assert isinstance(await app.attempt(Take("a", 5), key="other"), Rejected)


@played
async def test_a_known_key_is_answered_as_first_though_decide_now_fails():
    app = App("bank")
    broken = []

    def take(state: int, command: Take) -> Taken:
        if broken:
            raise ZeroDivisionError
        return Taken(command.account, 1, 0)

    app.add(Decider("Account", "account", int, {Take: take}, {}))
    async with Harness(app):
        first = await app.send(Take("a", 1), key="k")
        broken.append(True)
        assert (await app.send(Take("a", 1), key="k")).position == first.position
        with pytest.raises(ZeroDivisionError):
            await app.send(Take("a", 1), key="new")


@played
async def test_a_rejection_does_not_use_up_the_key():
    app = bank()
    async with Harness(app):
        assert isinstance(await app.attempt(Take("a", 3), key="k"), Rejected)
        await app.send(Open("a", 5))
        assert not (await app.send(Take("a", 3), key="k")).repeated


@played
async def test_fifty_sends_of_one_key_at_once_are_done_once():
    app = bank()
    async with Harness(app) as world:
        answers = await asyncio.gather(*(app.send(Open("a", 5), key="k") for _ in range(50)))
        assert len({answer.position for answer in answers}) == 1
        assert sum(not answer.repeated for answer in answers) == 1
        assert len(await log_of(world, app)) == 1
        assert (await app.send(Take("a", 5))).version == 2


@played
async def test_keys_are_apart_by_tenant():
    app = bank()
    async with Harness(app) as world:
        for tenant in ("", "acme", "beta"):
            answer = await app.send(Open("a", 5), key="k", metadata=Metadata(tenant=tenant))
            assert (answer.version, answer.repeated) == (1, False)
        assert [one.stream for one in await log_of(world, app)] == [
            "bank.Account/a",
            "acme:bank.Account/a",
            "beta:bank.Account/a",
        ]
        await app.send(Take("a", 2), metadata=Metadata(tenant="acme"))
        assert (await app.load(Account, "a", tenant="acme")).cents == 3
        assert (await app.load(Account, "a", tenant="beta")).cents == 5


@pytest.mark.parametrize("tenant", ["a/b", "a:b"])
@played
async def test_a_tenant_that_cannot_name_a_stream_is_rejected(tenant):
    app = bank()
    async with Harness(app) as world:
        assert isinstance(await app.attempt(Open("a", 5), metadata=Metadata(tenant=tenant)), Rejected)
        assert await log_of(world, app) == []


# --- many at once ---


@played
async def test_fifty_at_once_on_one_aggregate_meet_no_conflict_and_each_sees_the_one_before():
    app = bank()
    async with Harness(app) as world:
        await app.send(Open("a", 50))
        answers = await asyncio.gather(*(app.send(Take("a", 1)) for _ in range(50)))
        assert [answer.version for answer in answers] == list(range(2, 52))
        assert await takings(world, app) == [(version, 51 - version) for version in range(2, 52)]
        assert isinstance(await app.attempt(Take("a", 1)), Rejected)


@played
async def test_of_a_hundred_at_once_as_many_stand_as_there_is_money_for():
    app = bank()
    async with Harness(app) as world:
        await app.send(Open("a", 30))
        answers = await asyncio.gather(*(app.attempt(Take("a", 1)) for _ in range(100)))
        assert sum(isinstance(answer, Committed) for answer in answers) == 30
        assert all(answer.details == {"left": 0} for answer in answers if isinstance(answer, Rejected))
        assert [left for _, left in await takings(world, app)] == list(range(29, -1, -1))


@played
async def test_decisions_side_by_side_share_no_commit_of_their_own():
    """They wait for one another's versions, not for one another's commits."""
    app = bank()
    async with Harness(app) as world:
        await app.send(Open("a", 50))
        database, open_at_once, most = world.databases["bank"], 0, 0
        commit = database.commit

        async def counted(writes):
            nonlocal open_at_once, most
            open_at_once += 1
            most = max(most, open_at_once)
            try:
                return await commit(writes)
            finally:
                open_at_once -= 1

        database.commit = counted
        await asyncio.gather(*(app.send(Take("a", 1)) for _ in range(20)))
        assert most == 20


@played
async def test_two_processes_that_send_at_once_never_lose_or_repeat_a_decision():
    app = bank()
    async with Harness(app) as world:
        other = await twin(world)
        await app.send(Open("a", 60))
        sends = [who.attempt(Take("a", 1)) for _ in range(40) for who in (app, other)]
        answers = await asyncio.gather(*sends)
        assert sum(isinstance(answer, Committed) for answer in answers) == 60
        assert await takings(world, app) == [(version, 61 - version) for version in range(2, 62)]
        await other.stop()


@played
async def test_what_was_decided_on_a_fallen_decision_falls_though_its_version_is_there():
    """Another process's event stands where the first decision's was expected: the second must not stand on it."""
    app = bank()
    async with Harness(app) as world:
        other = await twin(world)
        await app.send(Open("a", 10))
        database = world.databases["bank"]
        commit = database.commit
        gate = asyncio.Event()

        async def slow(writes):
            await gate.wait()
            return await commit(writes)

        database.commit = slow
        mine = [asyncio.ensure_future(app.attempt(Take("a", cents))) for cents in (4, 5)]
        await asyncio.sleep(0.01)
        await other.send(Take("a", 3))
        gate.set()
        answers = await asyncio.gather(*mine)
        lefts = [left for _, left in await takings(world, app)]
        assert lefts in ([7, 3], [7, 2]), answers
        assert sum(isinstance(answer, Rejected) for answer in answers) == 1
        assert (await app.load(Account, "a")).cents == lefts[-1]
        await other.stop()


@played
async def test_the_cache_is_checked_by_version_when_another_process_has_written():
    app = bank()
    async with Harness(app) as world:
        other = await twin(world)
        await app.send(Open("a", 10))
        assert (await other.send(Take("a", 4))).version == 2
        assert (await app.send(Take("a", 6))).version == 3
        assert isinstance(await other.attempt(Take("a", 1)), Rejected)
        await other.send(Open("a", 1))
        assert (await app.send(Take("a", 1))).version == 5, "a refusal on a stale cache is decided again"
        await other.stop()


@played
async def test_an_aggregate_that_is_in_use_is_not_evicted_by_a_large_batch(monkeypatch):
    monkeypatch.setattr("headwater.handling.WARM", 3)
    app = bank()
    async with Harness(app):
        await asyncio.gather(*(app.send(Open(str(n), 1)) for n in range(20)))
        await asyncio.gather(*(app.send(Take(str(n), 1)) for n in range(20)))
        assert [(await app.load(Account, str(n))).cents for n in range(20)] == [0] * 20


# --- rejections and failures rest on what is on disk ---


@played
async def test_a_rejection_never_rests_on_events_that_are_not_committed():
    app = bank()
    async with Harness(app) as world:
        await app.send(Open("a", 10))
        database = world.databases["bank"]
        takes = any_set(lambda write: any(draft.type == "bank.Taken" for one in write.appends for draft in one.drafts))
        with failing_commits(database, DatabaseError("the disk is gone"), takes):
            first, second = await asyncio.gather(
                app.attempt(Take("a", 10)), app.attempt(Take("a", 1)), return_exceptions=True
            )
        assert isinstance(first, DatabaseError)
        assert isinstance(second, Committed), "the first never happened, so there was money for the second"


@played
async def test_a_failure_of_decide_never_rests_on_events_that_are_not_committed():
    app = App("bank")

    def put(state: list[str], command: Open) -> Opened:
        if state:
            raise ZeroDivisionError("not twice")
        return Opened(command.account, 1)

    app.add(Decider("Account", "account", list, {Open: put}, {Opened: lambda state, event: [*state, "opened"]}))
    async with Harness(app) as world:
        with failing_commits(world.databases["bank"], DatabaseError("the disk is gone"), lambda writes: True):
            first, second = await asyncio.gather(
                app.attempt(Open("a", 1)), app.attempt(Open("a", 2)), return_exceptions=True
            )
        assert isinstance(first, DatabaseError)
        assert isinstance(second, Committed)
        with pytest.raises(ZeroDivisionError):
            await app.attempt(Open("a", 3))


@played
async def test_a_rejection_is_not_put_off_by_commits_that_go_on():
    app = bank()
    async with Harness(app):
        await app.send(Open("a", 1000))
        refused = asyncio.Event()

        async def spend() -> None:
            while not refused.is_set():
                await asyncio.gather(*(app.send(Take("a", 1)) for _ in range(3)))

        spending = [asyncio.ensure_future(spend()) for _ in range(2)]
        assert isinstance(await app.attempt(Take("a", 5000)), Rejected)
        refused.set()
        await asyncio.gather(*spending)


@pytest.mark.parametrize("after", [False, True])
@played
async def test_a_failing_commit_forgets_the_cache(after):
    app = bank()
    async with Harness(app) as world:
        await app.send(Open("a", 10))
        with (
            failing_commits(world.databases["bank"], DatabaseError("lost"), lambda writes: True, after=after),
            pytest.raises(DatabaseError),
        ):
            await app.send(Take("a", 4))
        left = (await app.load(Account, "a")).cents
        assert left == (6 if after else 10)
        assert isinstance(await app.attempt(Take("a", left + 1)), Rejected)
        assert isinstance(await app.attempt(Take("a", left)), Committed)


@played
async def test_a_commit_that_cannot_be_written_says_why_and_forgets_the_cache():
    app = bank()
    async with Harness(app) as world:
        await app.send(Open("a", 10))
        database = world.databases["bank"]
        commit = database.commit

        async def refuse(writes):
            del database.commit
            return [Failed(DatabaseError("full"))]

        database.commit = refuse
        with pytest.raises(DatabaseError, match="full"):
            await app.send(Take("a", 4))
        assert database.commit == commit
        assert (await app.send(Take("a", 10))).version == 2


@played
async def test_an_unknown_outcome_is_a_value_with_the_key_to_ask_by():
    app = bank()
    async with Harness(app) as world:
        database = world.databases["bank"]
        commit = database.commit

        async def lose(writes):
            del database.commit
            await commit(writes)
            return [Unknown(cause="the cable was cut")]

        database.commit = lose
        answer = await app.attempt(Open("a", 10))
        assert isinstance(answer, Unknown)
        assert answer.key
        assert (await app.send(Open("a", 10), key=answer.key)).repeated
        assert len(await log_of(world, app)) == 1


@played
async def test_a_caller_that_gives_up_leaves_a_cache_that_is_right():
    app = bank()
    async with Harness(app) as world:
        await app.send(Open("a", 10))
        sending = asyncio.ensure_future(app.send(Take("a", 4)))
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        sending.cancel()
        with pytest.raises(asyncio.CancelledError):
            await sending
        answers = await asyncio.gather(*(app.attempt(Take("a", 1)) for _ in range(10)))
        spent = sum(isinstance(answer, Committed) for answer in answers)
        assert (await app.load(Account, "a")).cents == 0
        assert spent in (6, 10)
        assert len({one.version for one in await log_of(world, app)}) == len(await log_of(world, app))


# --- what decide may give ---


@pytest.mark.parametrize("how", ["list", "tuple", "generator", "map", "yielded"])
@played
async def test_a_decision_may_give_several_events_in_any_shape(how):
    app = bank()
    async with Harness(app):
        await app.send(Open("a", 3))
        assert (await app.send(TakeAll("a", how))).version == 4
        assert (await app.load(Account, "a")).cents == 0
        assert (await app.send(Open("a", 1))).version == 5


@pytest.mark.parametrize("how", ["list", "tuple", "generator"])
@played
async def test_no_events_decided_is_committed_at_the_version_that_is(how):
    app = bank()
    async with Harness(app) as world:
        answer = await app.send(TakeAll("a", how), key="k")
        assert (answer.version, answer.repeated) == (0, False)
        assert (await app.send(TakeAll("a", how), key="k")).repeated
        await app.send(Open("a", 2))
        assert (await app.send(Take("a", 0))).version == 1
        assert len(await log_of(world, app)) == 1


@played
async def test_no_events_are_decided_on_the_newest_state_too():
    app = bank()
    async with Harness(app) as world:
        other = await twin(world)
        await app.send(Open("a", 2))
        await other.send(Take("a", 2))
        assert (await app.send(TakeAll("a", "list"))).version == 2, "no money is left to take"
        await other.stop()


@played
async def test_a_decide_that_raises_changes_nothing():
    app = bank()
    async with Harness(app) as world:
        await app.send(Open("a", 3))
        with pytest.raises(ZeroDivisionError, match="decide is broken"):
            await app.send(Break("a", "decide"), key="k")
        assert len(await log_of(world, app)) == 1
        assert (await app.send(Take("a", 3), key="k")).version == 2


@played
async def test_an_evolve_that_raises_on_what_was_decided_commits_nothing():
    app = bank()
    async with Harness(app) as world:
        await app.send(Open("a", 3))
        with pytest.raises(ZeroDivisionError, match="evolve is broken"):
            await app.send(Break("a", "evolve"))
        assert len(await log_of(world, app)) == 1
        assert isinstance(await app.attempt(Take("a", 4)), Rejected), "the state is as it was"
        assert (await app.send(Take("a", 3))).version == 2


@pytest.mark.parametrize(
    ("where", "error"),
    [
        ("foreign", DeclarationError),
        ("command", DeclarationError),
        ("nonsense", DeclarationError),
        ("\ud800", SchemaError),
    ],
)
@played
async def test_a_decision_that_is_no_event_of_its_own_service_commits_nothing(where, error):
    app = bank()
    async with Harness(app) as world:
        with pytest.raises(error):
            await app.send(Break("a", where))
        assert await log_of(world, app) == []


@played
async def test_a_command_that_nothing_decides_says_what_to_do():
    app = App("bank")
    async with Harness(app):
        with pytest.raises(DeclarationError, match="give an aggregate a @decide method for it and add it"):
            await app.send(Open("a", 1))


@played
async def test_a_command_without_a_key_value_is_rejected():
    app = bank()
    async with Harness(app):
        answer = await app.attempt(Open("", 1))
        assert isinstance(answer, Rejected)
        assert "account" in answer.reason


@played
async def test_an_aggregate_is_loaded_as_it_was():
    app = bank()
    async with Harness(app) as world:
        await app.send(Open("a", 3))
        early = world.clock.now()
        await world.advance(hours=1)
        await app.send(Take("a", 1))
        assert (await app.load(Account, "a", version=1)).cents == 3
        assert (await app.load(Account, "a", at=early)).cents == 3
        assert (await app.load(Account, "a")).cents == 2
        with pytest.raises(NotFound):
            await app.load(Account, "b")
        with pytest.raises(NotFound):
            await app.load(Account, "a", at=early - 1)
        assert [one.version async for one in app.history("bank.Account/a", after=1)] == [2]


@played
async def test_an_aggregate_is_folded_from_events_of_older_versions():
    app = bank()
    app.upcast("bank.Begun", 1)(lambda fields: {**fields, "cents": fields["cents"] * 100})
    async with Harness(app) as world:
        old = Draft("event", "old-1", "bank.Begun", 1, JSON, world.clock.now(), b'{"account":"a","cents":3}', b"{}")
        await world.databases["bank"].commit([WriteSet(appends=[Append("bank.Account/a", 0, [old])])])
        assert (await app.send(Take("a", 250))).version == 2
        assert (await app.load(Account, "a")).cents == 50


@played
async def test_an_append_with_nothing_still_expects_its_version():
    """What `test_no_events_are_decided_on_the_newest_state_too` rests on."""
    app = bank()
    async with Harness(app) as world:
        await app.send(Open("a", 3))
        [answer] = await world.databases["bank"].commit([WriteSet(appends=[Append("bank.Account/a", 0, [])])])
        assert isinstance(answer, Collision)
