"""A message that takes its process with it is found out, alone, and parked; innocent ones never come nearer to that."""

from __future__ import annotations

import asyncio

import pytest

from headwater import App
from headwater.consumer import Limits
from headwater.consumer.feed import RUNNING
from headwater.inbox import Reason
from headwater.testing.harness import Harness
from tests.flow.rig import Killed, failing_commits, in_order, log_of, payloads, played, publication, settles
from tests.flow.shop import Bump, Bumped, Noted, Taker, Tally, shop


async def bump(app: App, *keys: str) -> None:
    for key in keys:
        await app.send(Bump(key))


async def keep_alive(world: Harness, app: App, most: int = 60) -> int:
    """Start the service again whenever it dies, until it is at rest; how often it died."""
    for deaths in range(most):
        try:
            await world.settle()
        except Killed:
            await world.restart(app)
        else:
            return deaths
    raise AssertionError("it dies for ever")


async def count_notes(world: Harness) -> list[object]:
    """Grows by one with each commit that notes a batch of the channel."""
    noted: list[object] = []
    commit = world.databases["mail"].commit

    async def counted(writes):
        noted.extend(write for write in writes if write.note and write.note.feed == "mail.channel/harness")
        return await commit(writes)

    world.databases["mail"].commit = counted
    return noted


async def effects(world: Harness, taker: Taker) -> list[tuple[str, int]]:
    return [(one.key, one.n) for one in await payloads(world, taker.app, Noted)]


@pytest.mark.parametrize("batch", [1, 3, 50])
@pytest.mark.parametrize("model", [False, True])
@played
async def test_a_message_that_kills_its_process_is_found_and_parked_and_all_others_are_done(batch, model):
    producer, taker = shop(), Taker(model=model, batch=batch)
    taker.fail("b", 2, Killed())
    async with Harness(producer, taker.app) as world:
        await bump(producer, *"abcabcabcabc")
        deaths = await keep_alive(world, taker.app)
        assert deaths <= 8
        rows = await world.held(taker.app)
        assert [(row.key[-1], row.message.version, row.reason, row.crashes, row.attempts) for row in rows] == [
            ("b", 2, Reason.DEAD, 5, 0),
            ("b", 3, Reason.BEHIND, 0, 0),
            ("b", 4, Reason.BEHIND, 0, 0),
        ]
        assert "5 times" in rows[0].cause
        await world.restart(taker.app)
        await world.settle()
        assert (await world.held(taker.app))[0].crashes == 5, "a start alone charges nobody"
        done = await effects(world, taker)
        assert sorted(done) == sorted([("b", 1)] + [(key, n) for key in "ac" for n in range(1, 5)])
        assert in_order(done)


@played
async def test_the_order_of_its_key_is_kept_while_it_is_being_found():
    producer, taker = shop(), Taker(model=False)
    taker.fail("a", 1, Killed(), times=3)
    async with Harness(producer, taker.app) as world:
        await bump(producer, *"aaabbb")
        await keep_alive(world, taker.app)
        assert in_order(await effects(world, taker))
        assert len(await effects(world, taker)) == 6
        assert await world.held(taker.app) == []


@played
async def test_innocent_messages_are_never_charged_however_often_the_process_dies():
    """The process is killed from outside, again and again, with whole batches in hand."""
    producer, taker = shop(), Taker(model=False, batch=4)
    charged: list[object] = []

    def dies(writes):
        charged.extend(row for write in writes for row in write.holds if row.crashes)
        noted = world.databases["mail"].file.tables.get("notes", {}).get("mail.channel/harness", ())
        return settles("mail.note")(writes) and [stream for stream, _ in noted] == [RUNNING]

    deaths = 0
    async with Harness(producer, taker.app) as world:
        for _ in range(30):
            await bump(producer, *"abcd")
            with failing_commits(world.databases["mail"], Killed(), dies):
                try:
                    await world.settle()
                except Killed:
                    deaths += 1
                    await world.restart(taker.app)
        await world.settle()
        assert deaths >= 10
        assert await world.held(taker.app) == []
        assert charged == []
        assert sorted(await effects(world, taker)) == sorted((key, n) for key in "abcd" for n in range(1, 31))


@played
async def test_a_process_that_dies_with_one_message_in_hand_again_and_again_parks_only_that_one():
    producer, taker = shop(), Taker(model=False)
    taker.fail("a", 1, Killed(), times=4)
    async with Harness(producer, taker.app) as world:
        await bump(producer, "a")
        assert await keep_alive(world, taker.app) == 4
        assert await world.held(taker.app) == []
        assert await effects(world, taker) == [("a", 1)]


@played
async def test_the_limit_of_crashes_is_the_consumers_own():
    import msgspec

    producer, taker = shop(), Taker(model=False)
    taker.fail("a", 1, Killed())

    def limit() -> None:
        for plan in taker.app.wiring.plans:
            plan.consumer.failing.crashes = 2
            plan.consumer.options = msgspec.structs.replace(plan.consumer.options, limits=Limits(crashes=2))

    async with Harness(producer, taker.app) as world:
        await bump(producer, "a")
        for _ in range(3):  # the first death only makes it a suspect
            limit()
            with pytest.raises(Killed):
                await world.settle()
            await world.restart(taker.app)
        limit()
        await world.settle()
        [row] = await world.held(taker.app)
        assert (row.reason, row.crashes) == (Reason.DEAD, 2)


@played
async def test_crashes_and_failed_attempts_are_counted_apart():
    producer, taker = shop(), Taker(model=False)
    taker.fail("a", 1, RuntimeError("bad"), times=2)
    async with Harness(producer, taker.app) as world:
        await bump(producer, "a")
        await world.settle()
        await world.advance(seconds=1)
        taker.fail("a", 1, Killed(), times=3)
        world.clock.advance(1)
        await keep_alive(world, taker.app)
        taker.fail("a", 1, RuntimeError("bad"), times=1)
        taker.mend()
        await world.advance(seconds=1)
        assert await effects(world, taker) == [("a", 1)]
        assert taker.attempts == [1, 2, 3, 3, 3, 3]


@played
async def test_a_crash_among_held_messages_runs_them_one_at_a_time():
    producer, taker = shop(), Taker(model=False)
    taker.fail("a", 1, times=1)
    taker.fail("a", 3, Killed())
    async with Harness(producer, taker.app) as world:
        await bump(producer, *"aaaab")
        await world.settle()
        world.clock.advance(1)
        await keep_alive(world, taker.app)
        rows = await world.held(taker.app)
        assert [(row.message.version, row.reason, row.crashes) for row in rows] == [
            (3, Reason.DEAD, 5),
            (4, Reason.BEHIND, 0),
        ]
        assert in_order([call for call in await effects(world, taker) if call[0] == "a"])


@pytest.mark.parametrize("order", [(2, 1), (3, 2, 1), (3, 1, 2)])
@pytest.mark.parametrize("times", [1, 4, 99])
@played
async def test_a_message_behind_a_gap_that_kills_its_process_is_taken_once_all_the_same(order, times):
    """It waited for a message before it: that it was charged must not make its redelivery new."""
    taker = Taker()
    last = max(order)
    taker.fail("a", last, Killed(), times=times)
    everything = [publication("shop.Counter/a", n, "shop.Bumped", Bumped("a", n)) for n in range(1, last + 1)]
    async with Harness(taker.app) as world:
        for n in order:
            await world.channel.publish([everything[n - 1]])
            await keep_alive(world, taker.app)
        await world.channel.publish(everything)
        await keep_alive(world, taker.app)
        done = [n for _, n in await effects(world, taker)]
        assert done == list(range(1, last + 1 if times < 5 else last))
        assert (await taker.app.get(Tally, "a")).numbers == list(range(1, last + 1))
        assert [row.reason for row in await world.held(taker.app)] == ([Reason.DEAD] if times == 99 else [])


@played
async def test_a_message_that_nobody_wants_in_front_of_a_gap_is_passed_though_the_process_dies():
    taker = Taker()
    taker.fail("a", 3, Killed(), times=2)
    parts = [
        publication("shop.Counter/a", 1, "shop.Other", {}),
        publication("shop.Counter/a", 2, "shop.Other", {}),
        publication("shop.Counter/a", 3, "shop.Bumped", Bumped("a", 3)),
    ]
    async with Harness(taker.app) as world:
        for n in (2, 1, 0):
            await world.channel.publish([parts[n]])
            await keep_alive(world, taker.app)
        await world.channel.publish(parts)
        await keep_alive(world, taker.app)
        assert await effects(world, taker) == [("a", 3)]
        assert (await taker.app.get(Tally, "a")).numbers == [3]


@played
async def test_a_handler_of_one_consumer_that_kills_the_process_is_found_though_its_neighbour_is_done():
    """The neighbour commits first, and the note with it, while this one is still running."""
    producer = shop()
    app = App("mail")
    quick: list[int] = []
    slow: list[int] = []

    @app.on(Bumped)
    async def a_quick(event: Bumped) -> None:
        quick.append(event.n)

    @app.on(Bumped)
    async def z_slow(event: Bumped) -> None:
        for _ in range(40):
            await asyncio.sleep(0)
        slow.append(event.n)
        if event.n == 3:
            raise Killed

    async with Harness(producer, app) as world:
        await bump(producer, *"aaaab")
        assert await keep_alive(world, app) <= 8
        rows = await world.held(app)
        assert [(row.consumer, row.message.version, row.reason) for row in rows] == [
            ("mail.z_slow", 3, Reason.DEAD),
            ("mail.z_slow", 4, Reason.BEHIND),
        ]
        assert quick == [1, 2, 3, 4, 1]


@played
async def test_the_log_feed_finds_it_too():
    producer = shop(batch=3)
    seen: list[tuple[str, int]] = []

    @producer.on(Bumped)
    async def own(event: Bumped) -> None:
        if (event.key, event.n) == ("b", 2):
            raise Killed
        seen.append((event.key, event.n))

    async with Harness(producer) as world:
        await bump(producer, *"abcabcabc")
        assert await keep_alive(world, producer) <= 8
        assert [(row.key[-1], row.message.version, row.reason) for row in await world.held(producer)] == [
            ("b", 2, Reason.DEAD),
            ("b", 3, Reason.BEHIND),
        ]
        assert {("a", 3), ("c", 3), ("b", 1)} <= set(seen)


@played
async def test_after_a_crash_it_is_as_fast_as_before_once_what_was_in_hand_is_done():
    producer, taker = shop(), Taker(model=False, batch=4)
    async with Harness(producer, taker.app) as world:
        await bump(producer, *"abcd")
        with failing_commits(world.databases["mail"], Killed(), settles("mail.note")), pytest.raises(Killed):
            await world.settle()
        await world.restart(taker.app)
        await world.settle()
        await bump(producer, *"abcd" * 15)
        commits = await count_notes(world)
        await world.settle()
        assert len(commits) == 0
        assert len(await effects(world, taker)) == 64


async def stop(world: Harness, app: App) -> None:
    """As a process stops that is told to."""
    for flow in world._flows[app.name]:
        await flow.end()


@played
async def test_after_a_stop_nothing_is_in_doubt():
    producer, taker = shop(), Taker(model=False, batch=4)
    async with Harness(producer, taker.app) as world:
        await bump(producer, *"abcd")
        await world.settle()
        await stop(world, taker.app)
        await world.restart(taker.app)
        await bump(producer, *"abcd" * 5)
        commits = await count_notes(world)
        await world.settle()
        assert len(commits) == 1, "it runs again"


@pytest.mark.parametrize("model", [False, True])
@played
async def test_what_comes_again_since_its_acknowledgement_was_lost_is_not_in_doubt(model):
    """The one that kills is found behind many messages that were done before."""
    producer, taker = shop(), Taker(model=model, batch=2)
    taker.fail("e", 1, Killed())
    async with Harness(producer, taker.app) as world:
        await bump(producer, *"abcd" * 5)
        await world.settle()
        old = await log_of(world, producer)
        again = [publication(one.stream, one.version, one.type, one.data, previous=one.previous) for one in old]
        await world.channel.publish(again)
        await bump(producer, *"efg")
        assert await keep_alive(world, taker.app) <= 6
        assert [(row.key[-1], row.crashes) for row in await world.held(taker.app)] == [("e", 5)]
        assert len(await effects(world, taker)) == 22


@played
async def test_what_was_noted_but_goes_to_another_member_hinders_nobody():
    producer, taker = shop(), Taker(model=False, batch=4)
    async with Harness(producer, taker.app) as world:
        notes = world.databases["mail"].file.tables.setdefault("notes", {})
        notes["mail.channel/harness"] = [("shop.Counter/elsewhere", n) for n in range(1, 4)]
        await world.restart(taker.app)
        await bump(producer, *"abcd" * 4)
        commits = await count_notes(world)
        await world.settle()
        assert len(await effects(world, taker)) == 16
        assert len(commits) == 1


@played
async def test_a_noted_message_that_is_done_already_is_not_charged():
    taker = Taker(model=False)
    async with Harness(taker.app) as world:
        one = publication("shop.Counter/a", 1, "shop.Bumped", Bumped("a", 1))
        await world.channel.publish([one])
        await world.settle()
        world.databases["mail"].file.tables["notes"]["mail.channel/harness"] = [("shop.Counter/a", 1)]
        await world.restart(taker.app)
        await world.channel.publish([one])
        await world.settle()
        assert await world.held(taker.app) == []
        assert taker.calls == [("a", 1)]


@played
async def test_two_members_note_apart():
    """A member that is alive is not taken for one that died: its note is under its own name."""
    from headwater.adapters.memory import MemoryDatabase

    producer, taker, twin = shop(), Taker(model=False), Taker(model=False)
    async with Harness(producer, taker.app) as world:
        twin.app.clock = world.clock
        database = MemoryDatabase(world.clock, world.databases["mail"].file)
        await database.open()
        wiring = await twin.app.connect(database, world.channel)
        flows = [one.flow for one in await wiring.flows("other", lambda _: lambda: None) if one.name == "mail.channel"]
        busy = asyncio.Event()

        def stuck() -> None:
            busy.set()

        taker.faults = {(key, 1): stuck for key in "abcdefgh"}
        await bump(producer, *"abcdefgh")
        notes = world.databases["mail"].file.tables.setdefault("notes", {})
        for _ in range(10):
            await world._round()
            for flow in flows:
                await flow.step()
        assert {"mail.channel/harness", "mail.channel/other"} <= set(notes)
        assert await world.held(taker.app) == []
        await wiring.leave()
        await twin.app.stop()
