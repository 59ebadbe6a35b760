"""An outage looks different from a bad message: nothing is parked, no attempt is counted, and it passes by itself."""

from __future__ import annotations

import pytest

from headwater import App, Retry
from headwater.consumer import Limits
from headwater.inbox import Reason
from headwater.testing.harness import Harness
from tests.flow.rig import in_order, payloads, played, publication
from tests.flow.shop import Bump, Bumped, Noted, Taker, shop

MANY = [f"k{n}" for n in range(60)]


async def bump(app: App, *keys: str) -> None:
    for key in keys:
        await app.send(Bump(key))


async def lag(world: Harness) -> int:
    return sum(one.messages for one in await world.channel.lag("mail") if one.topic == "shop.Counter")


@pytest.mark.parametrize("attempts", [1, 8])
@played
async def test_an_outage_parks_nothing_stops_fetching_and_resumes_by_itself(attempts):
    producer, taker = shop(), Taker(model=False, batch=25, retry=Retry(attempts=max(attempts, 2)))
    taker.outage = ConnectionError("the mail server is down")
    async with Harness(producer, taker.app) as world:
        await bump(producer, *MANY, *MANY)
        await world.settle()
        stopped = len(taker.calls)
        assert stopped <= 50
        assert await lag(world) >= 60, "its lag shows"
        for _ in range(20):
            await world.advance(seconds=30)
        assert len(taker.calls) - stopped <= 40, "one or two to see whether it is over"
        held = await world.held(taker.app)
        assert {row.reason for row in held} <= {Reason.RETRY, Reason.BEHIND}
        assert max(row.attempts for row in held) <= 1
        assert await lag(world) >= 25, "it did not fetch on into the held table"
        taker.mend()
        for _ in range(5):
            await world.advance(seconds=30)
        effects = [(one.key, one.n) for one in await payloads(world, taker.app, Noted)]
        assert len(effects) == 120
        assert in_order(effects)
        assert await world.held(taker.app) == []
        assert await lag(world) == 0


@played
async def test_an_outage_of_own_log_handlers_stops_their_feed_too():
    producer = shop(batch=25)
    calls: list[int] = []
    down = [True]

    @producer.on(Bumped)
    async def own(event: Bumped) -> None:
        calls.append(event.n)
        if down:
            raise ConnectionError

    async with Harness(producer) as world:
        await bump(producer, *MANY, *MANY)
        await world.advance(hours=1)
        position = await world.databases["shop"].checkpoint("shop.own")
        assert position < 60
        for _ in range(20):
            await world.advance(hours=1)
        assert await world.held(producer, Reason.DEAD) == []
        down.clear()
        for _ in range(5):
            await world.advance(minutes=5)
        assert await world.held(producer) == []
        assert await world.databases["shop"].checkpoint("shop.own") == 120


@played
async def test_one_bad_customer_among_good_ones_never_trips_it():
    producer, taker = shop(), Taker(model=False, retry=Retry(attempts=4))
    for n in range(1, 100):
        taker.fail("bad", n)
    async with Harness(producer, taker.app) as world:
        for n in range(40):
            await bump(producer, "bad", f"good{n}")
            await world.advance(seconds=20)
        assert [row.reason for row in await world.held(taker.app)] == [Reason.DEAD] + [Reason.BEHIND] * 39
        assert sum(key.startswith("good") for key, _ in taker.calls) == 40
        assert taker.calls.count(("bad", 1)) == 4


@played
async def test_many_bad_customers_in_one_batch_with_good_ones_never_trip_it():
    producer, taker = shop(), Taker(model=False, retry=Retry(attempts=2))
    for n in range(40):
        taker.fail(f"bad{n}", 1)
    async with Harness(producer, taker.app) as world:
        await bump(producer, *[f"bad{n}" for n in range(40)], "good")
        for _ in range(3):
            await world.advance(seconds=10)
        assert len(await world.held(taker.app, Reason.DEAD)) == 40
        assert ("good", 1) in taker.calls


@played
async def test_bad_messages_that_look_like_an_outage_do_not_stop_it_for_ever():
    producer, taker = shop(), Taker(model=False, batch=10, retry=Retry(attempts=3))
    for n in range(30):
        taker.fail(f"bad{n}", 1)
    async with Harness(producer, taker.app) as world:
        await bump(producer, *[f"bad{n}" for n in range(30)])
        await world.settle()
        await bump(producer, *[f"good{n}" for n in range(50)])
        for _ in range(40):
            await world.advance(seconds=30)
        assert sum(key.startswith("good") for key, _ in taker.calls) == 50
        assert {row.key.rpartition("/")[2] for row in await world.held(taker.app, Reason.DEAD)} == {
            f"bad{n}" for n in range(30)
        }


@played
async def test_an_outage_of_one_consumer_does_not_stop_its_neighbours():
    producer, taker = shop(), Taker(batch=25, model=False)
    seen: list[tuple[str, int]] = []

    @taker.app.on(Bumped, name="other")
    async def other(event: Bumped) -> None:
        seen.append((event.key, event.n))

    taker.outage = ConnectionError()
    async with Harness(producer, taker.app) as world:
        await bump(producer, *MANY, *MANY)
        await world.settle()
        assert len(seen) == 120
        rows = await world.held(taker.app)
        assert {row.consumer for row in rows} == {"mail.note"}
        assert len(rows) == 120, "taken into custody"
        assert max(row.attempts for row in rows) <= 1
        assert len(taker.calls) <= 50
        tried = len(taker.calls)
        world.clock.advance(30)
        await bump(producer, *[f"new{n}" for n in range(25)])
        await world.settle()
        assert len(taker.calls) - tried <= 2, "of a whole batch, one is tried to see whether it is over"
        assert len(seen) == 145
        taker.mend()
        for _ in range(10):
            await world.advance(seconds=30)
        effects = [(one.key, one.n) for one in await payloads(world, taker.app, Noted)]
        assert len(effects) == 145
        assert in_order(effects)


@played
async def test_what_is_new_is_tried_before_what_is_held_when_an_outage_may_be_over():
    taker = Taker(model=False)
    taker.outage = ConnectionError()
    async with Harness(taker.app) as world:
        for first in (0, 15):
            await world.channel.publish(
                [
                    publication(f"shop.Counter/k{n}", 1, "shop.Bumped", Bumped(f"k{n}", 1))
                    for n in range(first, first + 15)
                ]
            )
            await world.settle()
        tried = len(taker.calls)
        [plan] = [plan for plan in taker.app.wiring.plans if plan.consumer.name == "mail.note"]
        breaker = plan.consumer.failing.breaker
        world.clock.advance(breaker.until - world.clock.monotonic())
        await world.settle()
        assert len(taker.calls) == tried, "nothing is new, and what is held waits a little"
        await world.advance(seconds=0.5)
        assert len(taker.calls) == tried + 1


@played
async def test_attempts_from_before_an_outage_are_kept_and_go_on_after_it():
    producer, taker = shop(), Taker(model=False, retry=Retry(attempts=3, base=1.0))
    taker.fail("bad", 1)
    async with Harness(producer, taker.app) as world:
        await bump(producer, "bad")
        await world.settle()
        taker.outage = ConnectionError()
        await bump(producer, *MANY)
        for _ in range(30):
            await world.advance(seconds=30)
        assert await world.held(taker.app, Reason.DEAD) == []
        taker.outage = None
        for _ in range(10):
            await world.advance(seconds=30)
        [row] = await world.held(taker.app)
        assert (row.reason, row.attempts) == (Reason.DEAD, 3)


def limited(taker: Taker, **limits: int) -> None:
    import msgspec

    for plan in taker.app.wiring.plans:
        plan.consumer.options = msgspec.structs.replace(plan.consumer.options, limits=Limits(**limits))


@pytest.mark.parametrize("limits", [{"held_messages": 10}, {"held_bytes": 300}])
@played
async def test_a_consumer_that_holds_as_much_as_it_may_stops_fetching_until_it_holds_less(limits):
    producer, taker = shop(), Taker(model=False, batch=5, retry=Retry(attempts=1))
    taker.fail("a", 1)
    async with Harness(producer, taker.app) as world:
        limited(taker, **limits)
        for _ in range(8):
            await bump(producer, *"aaaab")
            await world.advance(seconds=2)
        held = len(await world.held(taker.app))
        assert 10 <= held <= 20
        assert await lag(world) >= 15
        taker.mend()
        from tests.flow.rig import redrive

        await redrive(world, taker.app, (await world.held(taker.app, Reason.DEAD))[0])
        for _ in range(8):
            await world.advance(seconds=2)
        assert await lag(world) == 0
        assert await world.held(taker.app) == []
        effects = [(one.key, one.n) for one in await payloads(world, taker.app, Noted)]
        assert len(effects) == 40
        assert in_order(effects)


@played
async def test_the_limit_holds_in_an_outage_too():
    """One consumer's breaker is open while its neighbour goes on: custody is bounded all the same."""
    producer, taker = shop(), Taker(model=False, batch=10)

    @taker.app.on(Bumped, name="other")
    async def other(event: Bumped) -> None:
        return

    taker.outage = ConnectionError()
    async with Harness(producer, taker.app) as world:
        limited(taker, held_messages=60)
        for round_ in range(20):
            await bump(producer, *[f"k{round_}-{n}" for n in range(20)])
            await world.settle()
            world.clock.advance(1.01)
        assert len(await world.held(taker.app)) <= 110


@played
async def test_a_channel_message_in_hand_when_the_breaker_opens_is_not_lost():
    taker = Taker(model=False, batch=20)
    taker.outage = ConnectionError()
    async with Harness(taker.app) as world:
        await world.channel.publish(
            [publication(f"shop.Counter/k{n}", 1, "shop.Bumped", Bumped(f"k{n}", 1)) for n in range(45)]
        )
        await world.settle()
        await world.restart(taker.app)
        taker.mend()
        for _ in range(10):
            await world.advance(seconds=30)
        assert len({key for key, _ in taker.calls}) == 45
        assert len(await payloads(world, taker.app, Noted)) == 45
