"""Hand-off 2 and transaction 3: nothing lost, every effect once, in order by key."""

from __future__ import annotations

import asyncio

import pytest

from headwater import App, ChannelError, Conflict, DatabaseError, Event, ReadModel, Retry, evolve
from headwater.adapters.memory import MemoryChannel, MemoryDatabase
from headwater.inbox import Reason
from headwater.testing.harness import Harness
from tests.flow.rig import Killed, failing_commits, in_order, killed, log_of, payloads, played, publication, settles
from tests.flow.shop import Bump, Bumped, Noted, Taker, Tally, shop

KEYS = ("a", "b", "c")


class Paid(Event, service="bank", category="Payment"):
    payment: str
    customer: str


class Spent(ReadModel, key="customer"):
    count: int = 0

    @evolve
    def paid(self, event: Paid) -> None:
        self.count += 1


async def bump(app: App, *keys: str) -> None:
    for key in keys:
        await app.send(Bump(key))


async def effects(world: Harness, taker: Taker) -> list[tuple[str, int]]:
    return [(one.key, one.n) for one in await payloads(world, taker.app, Noted)]


async def tallies(taker: Taker) -> dict[str, list[int]]:
    return {row.key: row.numbers for row in await taker.app.find(Tally)}


@played
async def test_every_event_reaches_every_consumer_once_and_in_order():
    producer, taker, other = shop(), Taker(), Taker("post")
    async with Harness(producer, taker.app, other.app) as world:
        await bump(producer, *KEYS * 5)
        await world.settle()
        for one in (taker, other):
            assert sorted(one.calls) == sorted((key, n) for key in KEYS for n in range(1, 6))
            assert in_order(one.calls)
            assert await tallies(one) == {key: [1, 2, 3, 4, 5] for key in KEYS}
        assert await world.held(taker.app) == []


@played
async def test_batches_of_any_size_give_the_same():
    for size in (1, 2, 3, 7):
        producer, taker = shop(batch=size), Taker(batch=size)
        async with Harness(producer, taker.app) as world:
            await bump(producer, *KEYS * 4)
            await world.settle()
            await bump(producer, *KEYS * 4)
            await world.settle()
            assert sorted(await effects(world, taker)) == sorted((key, n) for key in KEYS for n in range(1, 9))
            assert in_order(taker.calls)


@pytest.mark.parametrize("consumer", ["mail.note", "mail.tally"])
@pytest.mark.parametrize("after", [False, True])
@played
async def test_a_crash_at_the_commit_loses_and_doubles_nothing(consumer, after):
    producer, taker = shop(), Taker()
    async with Harness(producer, taker.app) as world:
        await bump(producer, *KEYS * 3)
        with failing_commits(world.databases["mail"], Killed(), settles(consumer), after=after):
            await killed(world, taker.app)
        await world.settle()
        assert sorted(await effects(world, taker)) == sorted((key, n) for key in KEYS for n in range(1, 4))
        assert await tallies(taker) == {key: [1, 2, 3] for key in KEYS}
        assert in_order(await effects(world, taker))


@played
async def test_a_crash_between_commit_and_acknowledge_redelivers_all_and_effects_nothing():
    producer, taker = shop(), Taker()
    async with Harness(producer, taker.app) as world:
        await bump(producer, *KEYS * 3)
        [subscription] = [
            one
            for one in taker.app.wiring.subscriptions
            if one.member == "harness" and one._topics[0] != "mail.control"
        ]

        async def die(deliveries):
            raise Killed

        subscription.acknowledge = die
        await killed(world, taker.app)
        calls = len(taker.calls)
        await bump(producer, "a")
        await world.settle()
        assert len(taker.calls) == calls + 1, "what has its mark is not run again"
        assert await tallies(taker) == {"a": [1, 2, 3, 4], "b": [1, 2, 3], "c": [1, 2, 3]}


@played
async def test_a_failing_acknowledge_redelivers_and_effects_nothing():
    producer, taker = shop(), Taker()
    async with Harness(producer, taker.app) as world:
        await bump(producer, *KEYS)
        [subscription] = [one for one in taker.app.wiring.subscriptions if one._topics[0] != "mail.control"]

        async def lose(deliveries):
            del subscription.acknowledge
            raise ChannelError("gone")

        subscription.acknowledge = lose
        with pytest.raises(ChannelError):
            await world.settle()
        await world.settle()
        assert sorted(await effects(world, taker)) == [("a", 1), ("b", 1), ("c", 1)]


@played
async def test_duplicates_are_dropped_however_late_and_however_often():
    producer, taker = shop(), Taker()
    async with Harness(producer, taker.app) as world:
        await bump(producer, *"aab")
        await world.settle()
        again = [publication("shop.Counter/a", n, "shop.Bumped", Bumped("a", n)) for n in (1, 2, 1, 2)]
        await world.channel.publish(again)
        await world.advance(days=400)
        await world.restart(taker.app)
        await world.channel.publish(again)
        await world.settle()
        await bump(producer, "a")
        await world.settle()
        assert await effects(world, taker) == [("a", 1), ("a", 2), ("b", 1), ("a", 3)]
        assert await tallies(taker) == {"a": [1, 2, 3], "b": [1]}


@played
async def test_a_duplicate_in_the_same_batch_is_dropped():
    taker = Taker()
    async with Harness(taker.app) as world:
        await world.channel.publish(
            [publication("shop.Counter/a", n, "shop.Bumped", Bumped("a", n)) for n in (1, 1, 2, 1, 2, 3)]
        )
        await world.settle()
        assert taker.calls == [("a", 1), ("a", 2), ("a", 3)]
        assert await tallies(taker) == {"a": [1, 2, 3]}


@played
async def test_a_wiped_inbox_takes_all_again():
    """Marks are what stands against duplicates: the same deliveries without them run again."""
    producer, taker = shop(), Taker(model=False)
    async with Harness(producer, taker.app) as world:
        await bump(producer, "a", "a")
        await world.settle()
        world.databases["mail"].file.tables.pop("marks")
        await world.channel.publish([publication("shop.Counter/a", n, "shop.Bumped", Bumped("a", n)) for n in (1, 2)])
        await world.settle()
        assert taker.calls == [("a", 1), ("a", 2)] * 2


@played
async def test_two_processes_that_take_the_same_batch_have_its_effect_once():
    """The channel gives the same messages to two groups of the same service: the marks decide."""
    producer, first, second = shop(), Taker(), Taker()
    async with Harness(producer, first.app) as world:
        second.app.clock = world.clock
        database = MemoryDatabase(world.clock, world.databases["mail"].file)
        await database.open()
        channel = Doubled(world.channel)
        wiring = await second.app.connect(database, channel)
        flows = [one.flow for one in await wiring.flows("other", lambda _: lambda: None) if one.name == "mail.channel"]
        for _ in range(5):
            await bump(producer, *KEYS * 2)
            busy = True
            while busy:
                mine = asyncio.ensure_future(world._round())
                busy = any(await asyncio.gather(*(flow.step() for flow in flows)))
                busy |= await mine
        assert sorted(await effects(world, first)) == sorted((key, n) for key in KEYS for n in range(1, 11))
        assert in_order(await effects(world, first))
        assert await tallies(first) == {key: list(range(1, 11)) for key in KEYS}
        assert len(first.calls) + len(second.calls) >= 30
        await wiring.leave()
        await second.app.stop()


class Doubled:
    """A channel on which a second member of a group is a group of its own."""

    def __init__(self, channel):
        self.channel = channel

    def __getattr__(self, name):
        return getattr(self.channel, name)

    async def subscribe(self, group, topics, member, start="beginning"):
        return await self.channel.subscribe(f"{group}-again", topics, member, start)


@played
async def test_two_members_that_fold_into_one_row_lose_nothing():
    """A row is named by a field, not by the stream: two members may fold into it at the same time."""

    def member() -> App:
        app = App("stats")
        app.add(Spent)
        return app

    one, two = member(), member()
    async with Harness(one) as world:
        two.clock = world.clock
        database = MemoryDatabase(world.clock, world.databases["stats"].file)
        await database.open()
        wiring = await two.connect(database, world.channel)
        flows = [one.flow for one in await wiring.flows("other", lambda _: lambda: None) if one.name == "stats.channel"]
        await world.channel.publish(
            [publication(f"bank.Payment/{n}", 1, "bank.Paid", Paid(str(n), "ada")) for n in range(100)]
        )
        busy = True
        while busy:
            mine = asyncio.ensure_future(world._round())
            busy = any(await asyncio.gather(*(flow.step() for flow in flows))) | await mine
        assert (await one.get(Spent, "ada")).count == 100
        await wiring.leave()
        await two.stop()


@played
async def test_one_consumer_that_cannot_commit_does_not_double_its_neighbours():
    producer, taker = shop(), Taker()
    async with Harness(producer, taker.app) as world:
        await bump(producer, *KEYS * 2)
        with (
            failing_commits(world.databases["mail"], DatabaseError("full"), settles("mail.tally"), times=3),
        ):
            for _ in range(6):
                try:
                    await world.settle()
                except DatabaseError:
                    continue
        await world.settle()
        assert sorted(await effects(world, taker)) == sorted((key, n) for key in KEYS for n in (1, 2))
        assert await tallies(taker) == {key: [1, 2] for key in KEYS}
        assert await world.held(taker.app, Reason.DEAD) == []


@played
async def test_a_group_that_starts_now_takes_what_comes_from_now_on():
    producer, old, new = shop(), Taker("mail"), Taker("post", start="now")
    async with Harness(producer, old.app) as world:
        await bump(producer, "a", "a", "b")
        await world.settle()
        new.app.clock = world.clock
        await world._start(new.app, type(world.databases["mail"])(world.clock))
        await bump(producer, "a", "b", "c")
        await world.settle()
        assert new.calls == [("a", 3), ("b", 2), ("c", 1)]
        assert await world.held(new.app) == []
        await bump(producer, "a")
        await world.settle()
        assert new.calls[-1] == ("a", 4)
        await world._end(new.app)


@played
async def test_a_group_that_starts_now_still_sees_gaps():
    taker = Taker(start="now")
    async with Harness(taker.app) as world:
        await world.channel.publish([publication("shop.Counter/a", 7, "shop.Bumped", Bumped("a", 7))])
        await world.settle()
        await world.channel.publish([publication("shop.Counter/a", 9, "shop.Bumped", Bumped("a", 9))])
        await world.settle()
        assert taker.calls == [("a", 7)]
        assert [row.reason for row in await world.held(taker.app)] == [Reason.GAP] * 2


@played
async def test_own_events_reach_own_handlers_from_the_log_and_never_come_back():
    producer, taker = shop(), Taker(model=False)
    seen: list[tuple[str, int]] = []

    @taker.app.on(Noted)
    async def noted(event: Noted) -> None:
        seen.append((event.key, event.n))

    async with Harness(producer, taker.app) as world:
        await bump(producer, *"aab")
        await world.settle()
        assert seen == [("a", 1), ("a", 2), ("b", 1)]
        assert "mail.note" not in {one.topic for one in await world.channel.lag() if one.group == "mail"}


@played
async def test_a_log_batch_that_another_process_has_taken_is_not_run_again_and_again():
    taker, twin = Taker(model=False), Taker(model=False)
    calls: list[str] = []
    for who, app in (("one", taker.app), ("two", twin.app)):

        @app.on(Noted, name="noted")
        async def noted(event: Noted, who: str = who) -> None:
            calls.append(who)

    async with Harness(taker.app) as world:
        twin.app.clock = world.clock
        database = MemoryDatabase(world.clock, world.databases["mail"].file)
        channel = MemoryChannel(world.clock)
        await database.open()
        await channel.open()
        wiring = await twin.app.connect(database, channel)
        wired = await wiring.flows("other", lambda _: lambda: None)
        stale = next(one.flow for one in wired if one.name == "mail.noted/log")
        assert not await stale.step()
        await world.channel.publish([publication("shop.Counter/a", 1, "shop.Bumped", Bumped("a", 1))])
        await world.settle()
        assert calls == ["one"]
        with pytest.raises(Conflict, match="another process"):
            await stale.step()
        assert calls == ["one", "two"], "once, and not fifty times"
        assert not await stale.step()
        await wiring.leave()
        await twin.app.stop()


@played
async def test_lanes_run_side_by_side_across_keys_and_in_order_within():
    producer, app = shop(), App("mail")
    running: set[str] = set()
    ended: list[tuple[str, int]] = []
    most = 0

    @app.on(Bumped)
    async def slow(event: Bumped) -> None:
        nonlocal most
        assert event.key not in running, "one key ran twice at a time"
        running.add(event.key)
        most = max(most, len(running))
        for _ in range(10 - event.n):
            await asyncio.sleep(0)
        running.remove(event.key)
        ended.append((event.key, event.n))

    async with Harness(producer, app) as world:
        await bump(producer, *KEYS * 3)
        await world.settle()
        assert await world.held(app) == []
    assert most == 3
    assert len(ended) == 9
    assert in_order(ended)


@played
async def test_plain_def_handlers_run_in_one_thread_of_their_own():
    import threading

    producer = shop()
    app = App("mail")
    seen: list[tuple[str, int, str]] = []

    @app.on(Bumped)
    def plain(event: Bumped) -> Noted:
        seen.append((event.key, event.n, threading.current_thread().name))
        if event.say == "bad":
            raise RuntimeError("bad")
        return Noted(event.key, event.n)

    async with Harness(producer, app) as world:
        await bump(producer, *KEYS * 2)
        await producer.send(Bump("a", "bad"))
        await bump(producer, *"ab")
        await world.settle()
        assert in_order([(key, n) for key, n, _ in seen])
        assert len({thread for *_, thread in seen}) == 1
        assert seen[0][2] != threading.main_thread().name
        assert [(row.key, row.message.version, row.reason) for row in await world.held(app)] == [
            ("shop.Counter/a", 3, Reason.RETRY),
            ("shop.Counter/a", 4, Reason.BEHIND),
        ]
        assert len(await payloads(world, app, Noted)) == 7


@played
async def test_the_log_of_a_consumer_is_whole_after_many_faults():
    """Commits fail, processes die and channels break at random, for many seeds; the effects are those of a quiet day."""
    import random

    for seed in range(15):
        chance = random.Random(seed)
        producer, taker = (
            shop(batch=chance.choice([1, 3, 50])),
            Taker(batch=chance.choice([1, 2, 50]), retry=Retry(attempts=100, base=0.001)),
        )
        async with Harness(producer, taker.app, seed=seed) as world:
            for _ in range(25):
                await bump(producer, *chance.choices(KEYS, k=3))
                database = world.databases["mail"]
                error = chance.choice([Killed(), DatabaseError("x"), None])
                if chance.random() < 0.3:
                    taker.fail(chance.choice(KEYS), chance.randrange(1, 30), times=chance.randrange(1, 3))
                if error is None:
                    await world.advance(seconds=chance.random())
                    continue
                after = chance.random() < 0.5
                skip = chance.randrange(4)
                count = [0]

                def hit(writes, count=count, skip=skip):
                    count[0] += 1
                    return count[0] > skip

                with failing_commits(database, error, hit, after=after):
                    try:
                        await world.settle()
                    except Killed:
                        await world.restart(taker.app)
                    except DatabaseError:
                        continue
            taker.mend()
            await world.advance(seconds=5)
            await world.advance(seconds=60)
            wanted = [(one.key, one.n) for one in await payloads(world, producer, Bumped)]
            assert sorted(await effects(world, taker)) == sorted(wanted), seed
            assert in_order(await effects(world, taker)), seed
            assert all(numbers == list(range(1, len(numbers) + 1)) for numbers in (await tallies(taker)).values()), seed
            assert await world.held(taker.app) == [], seed
            assert await log_of(world, producer)
