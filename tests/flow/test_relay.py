"""Hand-off 1: everything that leaves the log is published, in order, once it can be; what cannot leave is kept in sight."""

from __future__ import annotations

import msgspec
import pytest

from headwater import After, App, ChannelError, DatabaseError, Event, Retry, SchemaError
from headwater.channel import ChannelCapabilities
from headwater.database import WriteSet
from headwater.inbox import Reason, Release
from headwater.lease import Fence
from headwater.relay import Relay
from headwater.tail import Tail
from headwater.testing.harness import Harness
from tests.flow.rig import failing_commits, in_order, log_of, payloads, played, redrive
from tests.flow.shop import Bump, Bumped, Noted, Taker, Tally, shop


class Own(Event):
    key: str


async def bump(app: App, *keys: str, say: str = "") -> None:
    for key in keys:
        await app.send(Bump(key, say))


def sent(world: Harness, topic: str = "shop.Counter") -> list[tuple[str, int]]:
    """What lies on a topic, in order of publication."""
    kept = [one.delivery for place, all_ in world.channel.broker._places.items() if place[0] == topic for one in all_]
    kept.sort(key=lambda one: one.position)
    return [(one.headers["subject"].rpartition("/")[2], int(one.headers["streamversion"])) for one in kept]


class Faulty:
    """Makes publishing fail, before or after it has happened."""

    def __init__(self, world: Harness, *, after: bool = False) -> None:
        self.world = world
        self.down = True
        self.calls = 0
        publish = world.channel.publish

        async def failing(publications, **options):
            self.calls += 1
            if self.down and not after:
                raise ChannelError("the broker is down")
            answer = await publish(publications, **options)
            if self.down:
                raise ChannelError("the answer was lost")
            return answer

        world.channel.publish = failing


def limit(world: Harness, size: int) -> None:
    """Have the channel take less than it did when what is published next was committed."""
    for app in world.apps:
        app.wiring.outbox.room = lambda: 10**9
    world.channel.capabilities = ChannelCapabilities(delay=True, producer_position=True, durable=False, max_bytes=size)


async def settle_through(world: Harness, error: type[Exception] = ChannelError, most: int = 20) -> None:
    """Settle, however often a flow fails."""
    for _ in range(most):
        try:
            await world.settle()
            return
        except error:
            continue


@pytest.mark.parametrize("after", [True, False])
@played
async def test_a_channel_that_is_down_is_waited_for_and_then_gets_all_in_order_once_as_seen_by_consumers(after):
    producer, taker = shop(), Taker()
    async with Harness(producer, taker.app) as world:
        await bump(producer, *"ab")
        await world.settle()
        faulty = Faulty(world, after=after)
        for _ in range(5):
            await bump(producer, *"abc")
            with pytest.raises(ChannelError):
                await world.settle()
        faulty.down = False
        await world.settle()
        assert sorted(taker.calls) == sorted(
            [("a", n) for n in range(1, 7)] + [("b", n) for n in range(1, 7)] + [("c", n) for n in range(1, 6)]
        )
        assert in_order(taker.calls)
        assert (await taker.app.get(Tally, "a")).numbers == list(range(1, 7))
        if not after:
            assert len(sent(world)) == 17, "nothing is published twice where nothing was published"
        assert await world.held(producer) == []


@played
async def test_messages_go_in_the_order_of_the_log_over_many_batches(monkeypatch):
    monkeypatch.setattr("headwater.relay.relay.BATCH", 7)
    producer = shop()
    async with Harness(producer) as world:
        for _ in range(5):
            await bump(producer, *"abcde" * 3)
        await world.settle()
        log = [(one.stream.rpartition("/")[2], one.version) for one in await log_of(world, producer)]
        assert sent(world) == log


@played
async def test_its_place_survives_a_restart():
    producer = shop()
    async with Harness(producer) as world:
        await bump(producer, *"aab")
        await world.settle()
        await world.restart(producer)
        await bump(producer, "a")
        await world.settle()
        assert sent(world) == [("a", 1), ("a", 2), ("b", 1), ("a", 3)]


@played
async def test_a_wiped_channel_is_filled_again_from_the_log_and_consumers_see_no_effect_twice():
    producer, taker = shop(), Taker()
    async with Harness(producer, taker.app) as world:
        await bump(producer, *"aabb")
        await world.settle()
        await world.replace_channel()
        await bump(producer, *"ab")
        await world.settle()
        assert sorted(sent(world)) == sorted((key, n) for key in "ab" for n in (1, 2, 3))
        assert sorted(taker.calls) == sorted((key, n) for key in "ab" for n in (1, 2, 3))
        assert [(one.key, one.n) for one in await payloads(world, taker.app, Noted)] == taker.calls
        assert (await taker.app.get(Tally, "a")).numbers == [1, 2, 3]


@pytest.mark.parametrize("how", ["size", "channel"])
@played
async def test_an_oversize_message_is_a_dead_letter_of_the_relay_its_key_parked_and_others_flow(how):
    producer, taker = shop(), Taker(model=False)
    async with Harness(producer, taker.app) as world:
        await bump(producer, *"ab")
        await world.settle()
        if how == "size":
            limit(world, 2000)
        else:
            refuse(world, "x" * 3000)
        await bump(producer, "a", say="x" * 3000)
        await world.settle()
        await bump(producer, *"abc")
        await bump(producer, "a")
        await world.settle()
        assert [call for call in taker.calls if call[0] == "a"] == [("a", 1)]
        assert [call for call in taker.calls if call[0] != "a"] == [("b", 1), ("b", 2), ("c", 1)]
        rows = await world.held(producer)
        assert [(row.consumer, row.message.version, row.reason) for row in rows] == [
            ("shop.relay", 2, Reason.DEAD),
            ("shop.relay", 3, Reason.BEHIND),
            ("shop.relay", 4, Reason.BEHIND),
        ]
        assert "bytes" in rows[0].cause or "too long" in rows[0].cause
        await world.restart(producer)
        await bump(producer, *"ab")
        await world.settle()
        assert [row.reason for row in await world.held(producer)] == [Reason.DEAD] + [Reason.BEHIND] * 3
        limit(world, 10**6)
        world.channel._refusal = type(world.channel)._refusal.__get__(world.channel)
        await redrive(world, producer, (await world.held(producer, Reason.DEAD))[0])
        await world.settle()
        assert [call for call in taker.calls if call[0] == "a"] == [("a", n) for n in range(1, 6)]
        assert await world.held(producer) == []
        await bump(producer, "a")
        await world.settle()
        assert taker.calls[-1] == ("a", 6)


def refuse(world: Harness, text: str) -> None:
    """The channel itself refuses what has a text in it."""
    refusal = world.channel._refusal

    def look(publication):
        return "it is too long" if text.encode() in publication.body else refusal(publication)

    world.channel._refusal = look


@played
async def test_what_was_published_beside_a_refused_message_of_its_key_waits_for_it_at_its_consumers():
    producer, taker = shop(), Taker(model=False)
    async with Harness(producer, taker.app) as world:
        refuse(world, "x" * 50)
        await bump(producer, "a")
        await bump(producer, "a", say="x" * 50)
        await bump(producer, *"ab")
        await world.settle()
        assert taker.calls == [("a", 1), ("b", 1)]
        for _ in range(3):
            await world.advance(seconds=5)
        assert taker.calls == [("a", 1), ("b", 1)]
        world.channel._refusal = type(world.channel)._refusal.__get__(world.channel)
        await redrive(world, producer, (await world.held(producer, Reason.DEAD))[0])
        await world.settle()
        await bump(producer, "a")
        await world.settle()
        assert [call for call in taker.calls if call[0] == "a"] == [("a", n) for n in range(1, 5)]
        await world.advance(minutes=5)
        assert await world.held(taker.app) == []


@played
async def test_a_redriven_message_that_is_refused_again_is_dead_again():
    producer = shop()
    async with Harness(producer) as world:
        limit(world, 2000)
        refuse(world, "x" * 3000)
        await bump(producer, "a", say="x" * 3000)
        await bump(producer, *"ab")
        await world.settle()
        await redrive(world, producer, (await world.held(producer, Reason.DEAD))[0])
        await world.settle()
        assert [(row.message.version, row.reason, row.attempts) for row in await world.held(producer)] == [
            (1, Reason.DEAD, 1),
            (2, Reason.BEHIND, 0),
        ]
        assert sent(world) == [("b", 1)]


@played
async def test_a_second_dead_letter_of_a_key_is_not_published_with_the_first():
    producer = shop()
    async with Harness(producer) as world:
        refuse(world, "x" * 50)
        for say in ("x" * 50, "", "x" * 50, ""):
            await bump(producer, "a", say=say)
        await world.settle()
        assert [row.message.version for row in await world.held(producer, Reason.DEAD)] == [1, 3]
        world.channel._refusal = type(world.channel)._refusal.__get__(world.channel)
        await redrive(world, producer, (await world.held(producer, Reason.DEAD))[0])
        await world.settle()
        assert sorted(sent(world)) == [("a", 1), ("a", 2), ("a", 4)]
        assert [(row.message.version, row.reason) for row in await world.held(producer)] == [(3, Reason.DEAD)]


@played
async def test_a_discarded_message_frees_its_key():
    producer = shop()
    async with Harness(producer) as world:
        limit(world, 2000)
        await bump(producer, "a", say="x" * 3000)
        await bump(producer, "a")
        await world.settle()
        await world.databases["shop"].commit([WriteSet(releases=[Release("shop.relay", "shop.Counter/a", 1)])])
        await bump(producer, "a")
        await world.settle()
        assert sent(world) == [("a", 2), ("a", 3)]
        assert await world.held(producer) == []


@pytest.mark.parametrize("answered", [True, False])
@played
async def test_a_message_that_cannot_be_kept_aside_is_not_lost(answered):
    producer = shop()
    async with Harness(producer) as world:
        limit(world, 2000)
        await bump(producer, "b")
        await bump(producer, "a", say="x" * 3000)
        await bump(producer, "b")
        holds = lambda writes: any(write.holds for write in writes)  # noqa: E731
        with failing_commits(world.databases["shop"], DatabaseError("full"), holds, answered=answered):
            with pytest.raises(DatabaseError):
                await world.settle()
            await world.settle()
        assert [row.reason for row in await world.held(producer)] == [Reason.DEAD]
        assert sorted(set(sent(world))) == [("b", 1), ("b", 2)]


@played
async def test_what_was_kept_aside_before_a_crash_is_not_freed_by_reading_it_again():
    """The rows are committed, the publish fails: the same messages are read again."""
    producer = shop()
    async with Harness(producer) as world:
        limit(world, 2000)
        faulty = Faulty(world)
        await bump(producer, "a", say="x" * 3000)
        await bump(producer, *"ab")
        for _ in range(3):
            with pytest.raises(ChannelError):
                await world.settle()
            await world.restart(producer)
            world.clock.advance(1)
        faulty.down = False
        await world.settle()
        assert (await world.held(producer))[0].since == world.clock.now() - 3_000_000, "its row is as it was"
        assert [(row.message.version, row.reason) for row in await world.held(producer)] == [
            (1, Reason.DEAD),
            (2, Reason.BEHIND),
        ]
        assert sent(world) == [("b", 1)]


@played
async def test_a_relay_of_an_older_epoch_publishes_nothing():
    producer = shop()
    async with Harness(producer) as world:
        database = world.databases["shop"]

        def relay(epoch: int) -> Relay:
            return Relay("shop", database, Tail(database), world.channel, world.clock, lambda: Fence("relay", epoch))

        old, new = relay(1), relay(2)
        world._flows["shop"] = []
        await bump(producer, "a")
        assert await old.step()
        await bump(producer, "a")
        assert await new.step()
        await bump(producer, "a")
        with pytest.raises(ChannelError, match="taken over"):
            await old.step()
        assert await new.step()
        assert sent(world) == [("a", 1), ("a", 2), ("a", 3)]


@played
async def test_a_channel_that_keeps_no_position_has_it_kept_in_the_log():
    producer, taker = shop(), Taker(model=False)
    async with Harness(producer, taker.app) as world:
        world.channel.capabilities = ChannelCapabilities(
            delay=True, producer_position=False, durable=False, max_bytes=10**6
        )

        async def none(name: str) -> None:
            return None

        world.channel.producer_position = none
        await bump(producer, *"ab")
        await world.settle()
        assert await world.databases["shop"].checkpoint("shop.relay") == 2
        await world.restart(producer)
        await bump(producer, "a")
        await world.settle()
        assert sent(world) == [("a", 1), ("b", 1), ("a", 2)]
        crash = lambda writes: any(one.name == "shop.relay" for write in writes for one in write.checkpoints)  # noqa: E731
        await bump(producer, "b")
        with failing_commits(world.databases["shop"], DatabaseError("full"), crash, answered=True):
            with pytest.raises(DatabaseError):
                await world.settle()
            await world.settle()
        assert taker.calls == [("a", 1), ("b", 1), ("a", 2), ("b", 2)]
        assert await world.databases["shop"].checkpoint("shop.relay") == 4


@played
async def test_what_stays_in_the_service_is_not_published():
    producer = shop()

    @producer.on(Bumped, Own, name="self")
    async def itself(event: Bumped | Own) -> list[object]:
        if isinstance(event, Bumped) and event.n == 1:
            return [Bump(event.key), After(Own(event.key), seconds=1)]
        return []

    async with Harness(producer) as world:
        await bump(producer, "a")
        await world.advance(seconds=1)
        assert {one.kind for one in await log_of(world, producer)} == {"event", "command", "timer"}
        assert {place[0] for place in world.channel.broker._places} == {"shop.Counter"}


@played
async def test_a_long_run_of_messages_that_stay_moves_its_place_on(monkeypatch):
    monkeypatch.setattr("headwater.relay.relay.LOCAL", 20)
    producer = shop()

    @producer.on(Bumped, name="more")
    async def more(event: Bumped) -> list[Bump]:
        return [Bump("-") for _ in range(30)] if event.key == "a" else []

    async with Harness(producer) as world:
        world._flows["shop"] = [
            flow for flow in world._flows["shop"] if getattr(flow, "name", "") != "shop.commands/log"
        ]
        await bump(producer, "a")
        await world.settle()
        assert await world.databases["shop"].head() == 31
        assert await world.channel.producer_position("shop") == 31


# --- a message larger than the channel takes is refused where it is wanted ---


def narrow(world: Harness, size: int = 4000) -> None:
    world.channel.capabilities = msgspec.structs.replace(world.channel.capabilities, max_bytes=size)


@played
async def test_a_command_whose_event_the_channel_would_not_take_is_refused_and_nothing_is_written():
    producer, taker = shop(), Taker(model=False)
    async with Harness(producer, taker.app) as world:
        narrow(world)
        await bump(producer, "a")
        with pytest.raises(
            SchemaError, match=r"shop\.Bumped: 3,9\d\d bytes is more than the channel takes, which is 2,976;"
        ):
            await bump(producer, "a", say="x" * 3900)
        await bump(producer, "a", say="x" * 2000)
        await world.settle()
        assert taker.calls == [("a", 1), ("a", 2)]
        assert await world.held(producer) == []


@played
async def test_a_handler_whose_message_the_channel_would_not_take_has_failed():
    producer, app = shop(), App("mail", retry=Retry(attempts=1))

    @app.on(Bumped, name="note")
    async def note(event: Bumped) -> Noted:
        return Noted("x" * 3900 if event.n == 2 else event.key, event.n)

    async with Harness(producer, app) as world:
        narrow(world)
        await bump(producer, *"aab")
        await world.settle()
        [dead] = await world.held(app, Reason.DEAD)
        assert (dead.consumer, dead.message.version) == ("mail.note", 2)
        assert "store the large part elsewhere" in dead.cause
        assert [one.n for one in await payloads(world, app, Noted)] == [1, 1]


@played
async def test_what_stays_in_the_service_may_be_larger_than_the_channel_takes():
    producer, app = shop(), App("mail")
    seen: list[str] = []

    @app.on(Bumped, Own, name="note")
    async def note(event: Bumped | Own) -> After | None:
        if isinstance(event, Own):
            seen.append(event.key)
            return None
        return After(Own("x" * 3900), seconds=1)

    async with Harness(producer, app) as world:
        narrow(world)
        await bump(producer, "a")
        await world.settle()
        await world.advance(seconds=1)
        assert seen == ["x" * 3900]
