"""Timers: a message later, once; cancelled or moved it never comes at the old time."""

from __future__ import annotations

import pytest

from headwater import After, Aggregate, App, CancelTimer, Command, DatabaseError, Event, Message, Metadata, decide
from headwater.inbox import Reason
from headwater.testing.harness import Harness
from tests.flow.rig import Killed, any_set, failing_commits, log_of, payloads, played, publication
from tests.flow.shop import Bump, Bumped, shop


class Rang(Event):
    key: str
    n: int


class Unheard(Event):
    key: str


class Wake(Command, service="bed"):
    key: str


class Woken(Event, service="bed", category="Bed"):
    key: str


class Bed(Aggregate, key="key"):
    @decide
    def wake(self, command: Wake) -> Woken:
        return Woken(command.key)


class Clock:
    """A handler that does with timers what an event says."""

    def __init__(self, name: str = "mail") -> None:
        self.app = App(name)
        self.rang: list[tuple[str, int, int]] = []
        self.says: dict[str, list[object]] = {}

        @self.app.on(Bumped, Rang, name="clock")
        async def clock(event: Bumped | Rang, about: Message) -> list[object]:
            if isinstance(event, Rang):
                self.rang.append((event.key, event.n, about.time))
                return []
            return self.says.get(event.say, [After(Rang(event.key, event.n), seconds=10)])


async def say(world: Harness, app: App, *words: str, key: str = "a") -> None:
    for word in words:
        await app.send(Bump(key, word))


def seconds(world: Harness, clock: Clock) -> list[tuple[str, int]]:
    return [(key, n) for key, n, _ in clock.rang]


@played
async def test_a_timer_fires_once_at_its_time_and_says_when():
    producer, clock = shop(), Clock()
    async with Harness(producer, clock.app) as world:
        await say(world, producer, "")
        await world.advance(seconds=9.9)
        assert clock.rang == []
        await world.advance(seconds=0.1)
        assert clock.rang == [("a", 1, world.clock.now())]
        await world.advance(days=10)
        assert len(clock.rang) == 1
        [one] = [one for one in await log_of(world, clock.app) if one.kind == "timer"]
        assert one.metadata.causation_id


@played
async def test_setting_it_again_moves_it():
    producer, clock = shop(), Clock()
    async with Harness(producer, clock.app) as world:
        await say(world, producer, "")
        await world.advance(seconds=6)
        await say(world, producer, "")
        await world.advance(seconds=6)
        assert clock.rang == []
        await world.advance(seconds=4)
        assert seconds(world, clock) == [("a", 2)]
        await world.advance(days=1)
        assert len(clock.rang) == 1


@played
async def test_timers_under_names_are_apart():
    producer, clock = shop(), Clock()
    clock.says = {
        "one": [After(Rang("a", 1), seconds=5, name="one"), After(Rang("a", 2), seconds=6, name="two")],
        "stop": [CancelTimer("one"), CancelTimer("three")],
    }
    async with Harness(producer, clock.app) as world:
        await say(world, producer, "one", "stop")
        await world.advance(minutes=1)
        assert seconds(world, clock) == [("a", 2)]


@pytest.mark.parametrize(
    ("words", "rings"),
    [
        (["set", "cancel"], 0),
        (["cancel", "set"], 1),
        (["set", "cancel", "set"], 1),
        (["set", "set", "cancel"], 0),
        (["both"], 0),
        (["other way"], 1),
        (["set", "other way"], 1),
        (["set", "both"], 0),
    ],
)
@pytest.mark.parametrize("together", [True, False])
@played
async def test_setting_and_cancelling_count_in_their_order_in_one_batch_or_in_several(words, rings, together):
    producer, clock = shop(), Clock()
    after = After(Rang("a", 1), seconds=5)
    clock.says = {
        "set": [after],
        "cancel": [CancelTimer(Rang)],
        "both": [after, CancelTimer(Rang)],
        "other way": [CancelTimer(Rang), after],
    }
    async with Harness(producer, clock.app) as world:
        for word in words:
            await say(world, producer, word)
            if not together:
                await world.settle()
        await world.advance(minutes=1)
        assert len(clock.rang) == rings


@played
async def test_timers_of_other_keys_consumers_and_tenants_are_apart():
    producer, clock, other = shop(), Clock(), Clock("post")
    clock.says["stop"] = [CancelTimer(Rang)]
    async with Harness(producer, clock.app, other.app) as world:
        for tenant in ("", "acme", "beta"):
            await producer.send(Bump("a"), metadata=Metadata(tenant=tenant))
        await producer.send(Bump("b"))
        await producer.send(Bump("a", "stop"), metadata=Metadata(tenant="acme"))
        await world.settle()
        await world.advance(minutes=1)
        assert sorted(seconds(world, clock)) == [("a", 1), ("a", 1), ("b", 1)]
        assert len(other.rang) == 4
        tenants = {one.metadata.tenant for one in await log_of(world, clock.app) if one.kind == "timer"}
        assert tenants == {"", "beta"}


@played
async def test_a_command_may_leave_later_and_is_cancelled_like_any_timer():
    producer, clock, bed = shop(), Clock(), App("bed")
    bed.add(Bed)
    clock.says = {"wake": [After(Wake("a"), seconds=5)], "sleep": [CancelTimer(Wake)]}
    async with Harness(producer, clock.app, bed) as world:
        await say(world, producer, "wake")
        await world.advance(seconds=4)
        assert await payloads(world, bed, Woken) == []
        await world.advance(seconds=1)
        assert await payloads(world, bed, Woken) == [Woken("a")]
        await say(world, producer, "wake", "sleep")
        await world.advance(minutes=1)
        assert len(await payloads(world, bed, Woken)) == 1


@played
async def test_timers_survive_a_restart():
    producer, clock = shop(), Clock()
    async with Harness(producer, clock.app) as world:
        await say(world, producer, "")
        await world.settle()
        await world.restart(clock.app)
        await world.advance(seconds=10)
        await world.restart(clock.app)
        await world.settle()
        assert len(clock.rang) == 1


@pytest.mark.parametrize("after", [True, False])
@played
async def test_a_crash_while_it_fires_neither_loses_nor_doubles_it(after):
    producer, clock = shop(), Clock()
    async with Harness(producer, clock.app) as world:
        await say(world, producer, "")
        await world.settle()
        world.clock.advance(10)
        fires = any_set(lambda write: any(cancel.must for cancel in write.cancels))
        with failing_commits(world.databases["mail"], Killed(), fires, after=after), pytest.raises(Killed):
            await world.settle()
        await world.restart(clock.app)
        await world.settle()
        assert len(clock.rang) == 1


@played
async def test_a_timer_that_cannot_be_fired_now_is_fired_later():
    producer, clock = shop(), Clock()
    async with Harness(producer, clock.app) as world:
        await say(world, producer, "")
        await world.settle()
        world.clock.advance(10)
        fires = any_set(lambda write: any(cancel.must for cancel in write.cancels))
        with failing_commits(world.databases["mail"], DatabaseError("full"), fires, answered=True):
            with pytest.raises(DatabaseError):
                await world.settle()
            await world.settle()
        assert len(clock.rang) == 1


@played
async def test_two_schedulers_fire_a_timer_once():
    from headwater.adapters.memory import MemoryDatabase
    from headwater.scheduler import Scheduler

    producer, clock = shop(), Clock()
    async with Harness(producer, clock.app) as world:
        await say(world, producer, "", "", key="a")
        await world.settle()
        world.clock.advance(20)
        database = MemoryDatabase(world.clock, world.databases["mail"].file)
        await database.open()
        twin = Scheduler(database, world.clock, lambda: None)
        due = await database.timers_due(world.clock.now(), 10)
        await world.settle()

        async def stale(now: int, limit: int) -> object:
            return due

        database.timers_due = stale
        assert await twin.step() is True
        await world.settle()
        assert len(clock.rang) == 1


@played
async def test_a_timer_that_was_moved_while_it_was_being_fired_stays_moved():
    from headwater.adapters.memory import MemoryDatabase
    from headwater.scheduler import Scheduler

    producer, clock = shop(), Clock()
    async with Harness(producer, clock.app) as world:
        await say(world, producer, "")
        await world.settle()
        database = MemoryDatabase(world.clock, world.databases["mail"].file)
        await database.open()
        due = await database.timers_due(world.clock.now() + 10**9, 10)
        await world.advance(seconds=5)
        await say(world, producer, "")
        await world.settle()

        async def stale(now: int, limit: int) -> object:
            return due

        database.timers_due = stale
        await Scheduler(database, world.clock, lambda: None).step()
        await world.settle()
        assert clock.rang == []
        await world.advance(seconds=10)
        assert seconds(world, clock) == [("a", 2)]


@played
async def test_many_timers_fire_in_the_order_of_their_times():
    producer, clock = shop(), Clock()
    async with Harness(producer, clock.app) as world:
        for n in range(20):
            clock.says[str(n)] = [After(Rang("a", n), seconds=20 - n, name=str(n))]
            await say(world, producer, str(n))
        await world.advance(minutes=1)
        assert seconds(world, clock) == [("a", n) for n in range(19, -1, -1)]


@played
async def test_a_timer_with_a_message_that_its_consumer_does_not_take_is_refused():
    producer, clock = shop(), Clock()
    clock.says["odd"] = [After(Unheard("a"), seconds=1)]
    async with Harness(producer, clock.app) as world:
        await say(world, producer, "odd")
        await world.settle()
        [row] = await world.held(clock.app)
        assert row.reason is Reason.DEAD
        assert "which it does not take" in row.cause


@pytest.mark.parametrize(
    "unit",
    [{"days": 1}, {"hours": 24}, {"minutes": 1440}, {"seconds": 86400}, {"hours": 23.5, "minutes": 29, "seconds": 60}],
)
@played
async def test_delays_may_be_given_in_any_unit(unit):
    assert After(Rang("a", 1), **unit).microseconds == 86_400_000_000


@played
async def test_a_delay_that_is_over_fires_at_once():
    producer, clock = shop(), Clock()
    clock.says["now"] = [After(Rang("a", 1)), After(Rang("a", 2), seconds=-5, name="past")]
    async with Harness(producer, clock.app) as world:
        await say(world, producer, "now")
        await world.settle()
        assert sorted(seconds(world, clock)) == [("a", 1), ("a", 2)]


@played
async def test_a_failing_timer_message_is_retried_and_holds_only_its_own_stream():
    producer = shop()
    app = App("mail")
    rang: list[int] = []
    bad = [2]

    @app.on(Bumped, Rang, name="clock")
    async def clock(event: Bumped | Rang) -> list[object]:
        if isinstance(event, Bumped):
            return [After(Rang(event.key, event.n), seconds=1, name=str(event.n))]
        rang.append(event.n)
        if bad and event.n == 1:
            bad[0] -= 1
            if bad[0] <= 0:
                bad.clear()
            raise RuntimeError("bad")
        return []

    async with Harness(producer, app) as world:
        await world.channel.publish([publication("shop.Counter/a", n, "shop.Bumped", Bumped("a", n)) for n in (1, 2)])
        await world.advance(seconds=1)
        assert rang == [1]
        for _ in range(5):
            await world.advance(seconds=1)
        assert rang == [1, 1, 1, 2]
