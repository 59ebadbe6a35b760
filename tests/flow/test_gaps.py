"""No silent gap: what is missing is noticed, asked for over the channel, republished and taken in order, with no human."""

from __future__ import annotations

from unittest import mock

import pytest

from headwater import After, App, ChannelError, Command, Event
from headwater.channel import Publication
from headwater.inbox import Reason
from headwater.testing.harness import Harness
from tests.flow.rig import Lossy, in_order, payloads, played, publication
from tests.flow.shop import Bump, Bumped, Noted, Taker, Tally, shop

A = "shop.Counter/a"


async def bump(app: App, *keys: str) -> None:
    for key in keys:
        await app.send(Bump(key))


async def effects(world: Harness, taker: Taker) -> list[tuple[str, int]]:
    return [(one.key, one.n) for one in await payloads(world, taker.app, Noted)]


@pytest.mark.parametrize("batch", [1, 3, 50])
@played
async def test_a_gap_holds_its_key_is_asked_for_and_is_filled_in_order(batch):
    producer, taker = shop(), Taker(batch=batch)
    async with Harness(producer, taker.app) as world:
        channel = Lossy(world)
        channel.lose = [(A, 2), (A, 3)]
        await bump(producer, *"aaaaab")
        await world.settle()
        assert taker.calls == [("a", 1), ("b", 1)]
        assert [(row.consumer, row.message.version, row.reason) for row in await world.held(taker.app)] == [
            (consumer, version, Reason.GAP) for consumer in ("mail.note", "mail.tally") for version in (4, 5)
        ]
        await world.advance(seconds=3.9)
        assert not [one for one in channel.sent if one.topic == "shop.control"]
        await world.advance(seconds=1.1)
        assert [one.topic for one in channel.sent].count("shop.control") == 1
        assert in_order(taker.calls)
        assert sorted(await effects(world, taker)) == [("a", n) for n in range(1, 6)] + [("b", 1)]
        assert (await taker.app.get(Tally, "a")).numbers == [1, 2, 3, 4, 5]
        await world.advance(seconds=1)
        assert await world.held(taker.app) == []
        await bump(producer, "a")
        await world.settle()
        assert taker.calls[-1] == ("a", 6)


@played
async def test_a_gap_is_asked_for_again_for_as_long_as_it_is_there():
    producer, taker = shop(), Taker(model=False)
    async with Harness(producer, taker.app) as world:
        channel = Lossy(world)
        channel.lose = [(A, 1)] * 4
        await bump(producer, *"aa")
        for _ in range(4):
            await world.advance(seconds=5)
        assert channel.lost == 4
        assert taker.calls == [("a", 1), ("a", 2)]


@played
async def test_a_request_that_was_lost_is_sent_again():
    producer, taker = shop(), Taker(model=False)
    async with Harness(producer, taker.app) as world:
        channel = Lossy(world)
        channel.lose = [(A, 1)]
        channel.deaf = {"shop.control"}
        await bump(producer, *"aa")
        await world.advance(seconds=6)
        channel.deaf = set()
        await world.advance(seconds=4)
        assert taker.calls == []
        await world.advance(seconds=1)
        assert taker.calls == [("a", 1), ("a", 2)]


@played
async def test_a_request_waits_for_a_producer_that_is_down():
    producer, taker = shop(), Taker(model=False)
    async with Harness(producer, taker.app) as world:
        channel = Lossy(world)
        channel.lose = [(A, 1)]
        await bump(producer, *"aa")
        await world.settle()
        await world._end(producer)
        await world.advance(seconds=6)
        assert taker.calls == []
        await world._start(producer, type(world.databases["shop"])(world.clock, world.databases["shop"].file))
        await world.settle()
        assert taker.calls == [("a", 1), ("a", 2)]


@played
async def test_a_request_whose_acknowledgement_failed_is_answered_again_and_settled():
    producer, taker = shop(), Taker(model=False)
    async with Harness(producer, taker.app) as world:
        channel = Lossy(world)
        channel.lose = [(A, 1)]
        control = producer.wiring.subscriptions[-1]
        await bump(producer, *"aa")
        with (
            mock.patch.object(control, "acknowledge", side_effect=ChannelError("away")),
            pytest.raises(ChannelError, match="away"),
        ):
            await world.advance(seconds=5)
        await world.advance(seconds=1)
        assert taker.calls == [("a", 1), ("a", 2)]
        assert [one.messages for one in await world.channel.lag("shop.control")] == [0]


@played
async def test_a_repair_is_addressed_to_the_group_that_asked():
    producer, taker, other = shop(), Taker(model=False), Taker("post", model=False)
    async with Harness(producer, taker.app, other.app) as world:
        channel = Lossy(world)
        channel.lose = [(A, 2)]
        await bump(producer, *"aaa")
        await world.settle()
        channel.sent.clear()
        await world.advance(seconds=6)
        again = [(one.group, int(one.headers["streamversion"])) for one in channel.sent if one.key == A and one.group]
        assert sorted(again) == [("mail", 2), ("mail", 3), ("post", 2), ("post", 3)]
        assert taker.calls == other.calls == [("a", 1), ("a", 2), ("a", 3)]


@played
async def test_a_message_lost_for_one_group_alone_is_repaired_for_it_alone():
    producer, taker, other = shop(), Taker(model=False), Taker("post", model=False)
    async with Harness(producer, taker.app, other.app) as world:
        await bump(producer, *"aaa")
        await world.settle()
        world.databases["mail"].file.tables["marks"]["mail.note", A] = 1
        channel = Lossy(world)
        await bump(producer, "a")
        await world.settle()
        await world.advance(seconds=5)
        again = [one for one in channel.sent if one.group]
        assert {one.group for one in again} == {"mail"}
        assert [int(one.headers["streamversion"]) for one in again] == [2, 3, 4]
        assert taker.calls[-3:] == [("a", 2), ("a", 3), ("a", 4)]
        assert len(other.calls) == 4


@played
async def test_duplicates_of_what_is_held_behind_a_gap_change_nothing():
    taker = Taker(model=False)
    async with Harness(taker.app) as world:
        three = publication(A, 3, "shop.Bumped", Bumped("a", 3))
        for _ in range(3):
            await world.channel.publish([three, three])
            await world.settle()
        assert len(await world.held(taker.app)) == 1
        await world.channel.publish([publication(A, n, "shop.Bumped", Bumped("a", n)) for n in (2, 1, 3, 1, 2)])
        await world.channel.publish([publication(A, n, "shop.Bumped", Bumped("a", n)) for n in (4, 2)])
        await world.settle()
        assert taker.calls == [("a", 1), ("a", 2), ("a", 3), ("a", 4)]
        assert await world.held(taker.app) == []


@played
async def test_redelivery_of_what_is_behind_a_gap_does_not_put_off_the_asking():
    taker = Taker(model=False)
    async with Harness(shop(), taker.app) as world:
        channel = Lossy(world)
        for _ in range(3):
            await world.channel.publish([publication(A, 3, "shop.Bumped", Bumped("a", 3))])
            await world.advance(seconds=2)
        assert [one.topic for one in channel.sent].count("shop.control") == 1


@played
async def test_several_gaps_of_one_key_are_filled_one_after_the_other():
    taker = Taker(model=False)
    async with Harness(taker.app) as world:
        for batch in ([2, 5], [8], [4], [1], [7], [3], [6]):
            await world.channel.publish([publication(A, n, "shop.Bumped", Bumped("a", n)) for n in batch])
            await world.settle()
        assert taker.calls == [("a", n) for n in range(1, 9)]
        assert await world.held(taker.app) == []


@played
async def test_every_order_of_arrival_gives_the_same():
    from itertools import permutations

    for order in permutations(range(1, 6)):
        taker = Taker()
        async with Harness(taker.app) as world:
            for n in order:
                await world.channel.publish([publication(A, n, "shop.Bumped", Bumped("a", n))])
                await world.settle()
            assert taker.calls == [("a", n) for n in range(1, 6)], order
            assert (await taker.app.get(Tally, "a")).numbers == [1, 2, 3, 4, 5]
            assert await world.held(taker.app) == []


@played
async def test_what_fails_after_a_gap_is_filled_holds_what_is_behind_it():
    taker = Taker(model=False)
    taker.fail("a", 2, times=1)
    async with Harness(taker.app) as world:
        for n in (3, 4, 2, 1):
            await world.channel.publish([publication(A, n, "shop.Bumped", Bumped("a", n))])
            await world.settle()
        assert taker.calls == [("a", 1), ("a", 2)]
        await world.advance(seconds=1)
        assert taker.calls == [("a", 1), ("a", 2), ("a", 2), ("a", 3), ("a", 4)]
        assert await world.held(taker.app) == []


@played
async def test_a_gap_in_front_of_a_retry_is_filled_in_order():
    taker = Taker(model=False)
    taker.fail("a", 1, times=2)
    async with Harness(taker.app) as world:
        await world.channel.publish([publication(A, n, "shop.Bumped", Bumped("a", n)) for n in (1, 3)])
        await world.settle()
        await world.advance(seconds=0.01)
        await world.channel.publish([publication(A, n, "shop.Bumped", Bumped("a", n)) for n in (2, 4)])
        for _ in range(6):
            await world.advance(seconds=1)
        effects_seen = [(one.key, one.n) for one in await payloads(world, taker.app, Noted)]
        assert effects_seen == [("a", n) for n in range(1, 5)]
        assert await world.held(taker.app) == []


@played
async def test_a_gap_that_is_the_last_of_its_batch_or_between_batches_is_seen():
    for batch in (1, 2, 3):
        producer, taker = shop(), Taker(model=False, batch=batch)
        async with Harness(producer, taker.app) as world:
            channel = Lossy(world)
            channel.lose = [(A, 3)]
            await bump(producer, *"aaaa")
            await world.advance(seconds=5)
            await world.settle()
            assert taker.calls == [("a", n) for n in range(1, 5)], batch


@played
async def test_asking_goes_on_after_a_restart_of_either_side():
    producer, taker = shop(), Taker(model=False)
    async with Harness(producer, taker.app) as world:
        channel = Lossy(world)
        channel.lose = [(A, 1)]
        await bump(producer, *"aa")
        await world.advance(seconds=3)
        await world.restart(taker.app)
        await world.restart(producer)
        await world.advance(seconds=2)
        assert taker.calls == [("a", 1), ("a", 2)]


@played
async def test_a_service_answers_only_for_its_own_streams_and_only_requests():
    import msgspec

    from headwater.repair import Republish

    producer, taker = shop(), Taker(model=False)
    async with Harness(producer, taker.app) as world:
        await bump(producer, "a")
        await world.settle()
        channel = Lossy(world)
        bodies = [
            b"nonsense",
            b"{}",
            b'{"stream":"shop.Counter/a","after":"x","group":"mail"}',
            b'{"stream":"shop.Counter/a","after":0,"group":"mail","group":"post"}',
            msgspec.json.encode(Republish("other.Counter/a", 0, "mail")),
            msgspec.json.encode(Republish("nowhere", 0, "mail")),
            msgspec.json.encode(Republish("shop.Counter/a", 99, "mail")),
            msgspec.json.encode(Republish("shop.Counter/none", 0, "mail")),
            msgspec.json.encode(Republish("shop.Counter/a", -5, "mail")),
            b"\xff",
        ]
        for body in bodies:
            await world.channel.publish(
                [Publication("shop.control", "x", {"subject": "x", "streamversion": "1"}, body)]
            )
        await world.settle()
        again = [one for one in channel.sent if one.topic != "shop.control"]
        assert again == []
        assert taker.calls == [("a", 1)]


@played
async def test_a_long_stream_is_republished_in_pages():
    producer, taker = shop(), Taker(model=False)
    async with Harness(producer, taker.app) as world:
        channel = Lossy(world)
        channel.lose = [(A, n) for n in range(1, 1205)]
        await bump(producer, *"a" * 1205)
        await world.advance(seconds=5)
        await world.settle()
        assert taker.calls == [("a", n) for n in range(1, 1206)]


# --- streams that feed a topic have no gaps of their own ---


class Ping(Event):
    key: str
    n: int


class Later(Event):
    key: str
    n: int


class Heard(Event, service="mail", category="talk", stored="mail.Ping"):
    key: str
    n: int


class Do(Command, service="post"):
    key: str
    n: int


@played
async def test_timers_commands_and_events_of_one_consumer_leave_no_gaps_in_its_streams():
    producer = shop()
    app, hearer = App("mail"), App("ear")
    heard: list[int] = []
    later: list[int] = []

    @app.on(Bumped, Later, name="talk")
    async def talk(event: Bumped | Later) -> list[object]:
        if isinstance(event, Later):
            later.append(event.n)
            return [Ping(event.key, 100 + event.n)]
        return [
            After(Later(event.key, event.n), seconds=event.n, name=f"later-{event.n}"),
            Do(event.key, event.n),
            Ping(event.key, event.n),
        ]

    @hearer.on(Heard)
    async def hear(event: Heard) -> None:
        heard.append(event.n)

    async with Harness(producer, app, hearer) as world:
        for _ in range(4):
            await bump(producer, "a")
            await world.advance(seconds=1)
        for _ in range(6):
            await world.advance(seconds=1)
        assert sorted(later) == [1, 2, 3, 4]
        assert sorted(heard) == [1, 2, 3, 4, 101, 102, 103, 104]
        assert await world.held(hearer) == []
        assert await world.held(app) == []
