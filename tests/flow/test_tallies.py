"""A lost last message shows: producers tell what they have published, and what has not come is asked for, with no human."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import msgspec
import pytest

from headwater import App, DeclarationError, Event, operations
from headwater.channel import GroupLag, Publication
from headwater.consumer.tallying import HELD
from headwater.inbox import Reason
from headwater.tally import MOST, stream_of_tallies, topic_of_tallies
from headwater.testing.harness import Harness
from headwater.wire import from_headers
from tests.flow.rig import Lossy, in_order, payloads, played, publication, redrive
from tests.flow.shop import Bump, Bumped, Noted, Taker, Tally, shop

TOPIC = "shop.Counter"
CHAIN = stream_of_tallies("shop", TOPIC)
A, B = "shop.Counter/a", "shop.Counter/b"


async def bump(app: App, *keys: str) -> None:
    for key in keys:
        await app.send(Bump(key))


async def passing(world: Harness, seconds: int) -> None:
    """Let time pass, second by second."""
    for _ in range(seconds):
        await world.advance(seconds=1)


def is_tally(one: Publication) -> bool:
    return one.headers["type"] == "headwater.Tally"


def tallies(channel: Lossy, group: str = "") -> list[tuple[int, int, dict[str, list[int]]]]:
    """The tallies that were published: from where up to where in the log, and of which streams."""
    return [
        (said.previous, said.version, msgspec.json.decode(one.body)["streams"])
        for one in channel.sent
        if is_tally(one) and (one.topic, one.group) == (TOPIC, group)
        for said in [from_headers(one.headers, one.body, 0)]
    ]


def asked(channel: Lossy) -> list[str]:
    return [one.key for one in channel.sent if one.topic == "shop.control"]


def tally(prior: int, position: int, streams: dict[str, Any], **headers: str) -> Publication:
    """A tally as a producer would publish it."""
    body = msgspec.json.encode({"streams": streams})
    return publication(CHAIN, position, "headwater.Tally", body, previous=prior, kind="control", topic=TOPIC, **headers)


def bumped(stream: str, n: int) -> Publication:
    return publication(stream, n, "shop.Bumped", Bumped(stream.rpartition("/")[2], n))


# --- what is lost comes back ---


@pytest.mark.parametrize("batch", [1, 50])
@played
async def test_the_last_message_of_a_stream_comes_back_with_no_later_one(batch):
    producer, taker = shop(), Taker(batch=batch)
    async with Harness(producer, taker.app) as world:
        channel = Lossy(world)
        channel.lose = [(A, 2), (B, 1)]
        await bump(producer, *"aab")
        await world.settle()
        assert taker.calls == [("a", 1)]
        await world.advance(seconds=2)
        assert tallies(channel) == [(0, 3, {A: [0, 2], B: [0, 1]})]
        assert {(row.consumer, row.key, row.reason) for row in await world.held(taker.app)} == {
            ("mail.note", CHAIN, Reason.TALLY),
            ("mail.tally", CHAIN, Reason.TALLY),
        }
        await world.advance(seconds=4.9)
        assert asked(channel) == []
        await world.advance(seconds=1)
        assert sorted(asked(channel)) == [A, B]
        assert sorted(taker.calls) == [("a", 1), ("a", 2), ("b", 1)]
        assert (await taker.app.get(Tally, "a")).numbers == [1, 2]
        assert len(await payloads(world, taker.app, Noted)) == 3
        await world.advance(minutes=1)
        assert await world.held(taker.app) == []
        assert len(asked(channel)) == 2


@played
async def test_the_last_messages_of_a_thousand_streams_come_back():
    producer, taker = shop(), Taker()
    keys = [f"k{n}" for n in range(MOST + 200)]
    async with Harness(producer, taker.app) as world:
        channel = Lossy(world)
        channel.lose = [(f"shop.Counter/{key}", 2) for key in keys]
        await bump(producer, *keys, *keys)
        await passing(world, 12)
        assert channel.lost == len(keys)
        assert in_order(taker.calls)
        assert len(taker.calls) == 2 * len(keys)
        assert all(len(streams) <= MOST for _, _, streams in tallies(channel))
        await world.advance(minutes=1)
        assert await world.held(taker.app) == []


@played
async def test_a_command_that_is_the_last_of_its_stream_comes_back():
    asking, shopping = App("mail"), shop()

    class Wish(Event, service="wishes", category="wish"):
        key: str

    @asking.on(Wish, name="wish")
    async def wish(event: Wish) -> Bump:
        return Bump(event.key)

    async with Harness(asking, shopping) as world:
        channel = Lossy(world)
        channel.lose = [("mail.wish>shop/a", 1)]
        await world.channel.publish([publication("wishes.wish/a", 1, "wishes.Wish", Wish("a"))])
        await world.settle()
        assert channel.lost == 1
        assert await payloads(world, shopping, Bumped) == []
        await passing(world, 8)
        assert await payloads(world, shopping, Bumped) == [Bumped("a", 1)]


@played
async def test_a_lost_tally_shows_by_the_next_one_and_its_span_is_told_again():
    producer, taker = shop(), Taker(model=False)
    async with Harness(producer, taker.app) as world:
        channel = Lossy(world)
        channel.lose = [(A, 1)]
        await bump(producer, "a")
        channel.drop = is_tally
        await world.advance(seconds=2)
        assert channel.lost == 2
        channel.drop = lambda _: False
        await bump(producer, "b")
        await world.advance(seconds=2)
        assert tallies(channel) == [(1, 2, {B: [0, 1]})]
        await world.advance(seconds=5)
        assert asked(channel)[0] == CHAIN
        assert tallies(channel, "mail") == [(0, 2, {A: [0, 1], B: [0, 1]})]
        await world.advance(seconds=6)
        assert sorted(taker.calls) == [("a", 1), ("b", 1)]
        await world.advance(minutes=10)
        assert await world.held(taker.app) == []


@played
async def test_where_all_is_lost_and_nothing_new_comes_the_last_tally_is_said_again_until_it_arrives():
    producer, taker = shop(), Taker(model=False)
    async with Harness(producer, taker.app) as world:
        channel = Lossy(world)
        channel.drop = lambda _: True
        await bump(producer, *"ab")
        await world.advance(seconds=2)
        await world.advance(seconds=5)
        assert channel.lost == 4
        channel.drop = lambda _: False
        await world.advance(seconds=30)
        assert tallies(channel) == [(0, 2, {A: [0, 1], B: [0, 1]})]
        await world.advance(seconds=5)
        assert sorted(taker.calls) == [("a", 1), ("b", 1)]


@played
async def test_a_tally_is_said_again_less_and_less_often():
    producer = shop()
    async with Harness(producer) as world:
        channel = Lossy(world)
        await bump(producer, "a")
        await passing(world, 60 * 20)
        assert 6 <= len(tallies(channel)) <= 8


@pytest.mark.parametrize("restarted", ["producer", "taker"])
@played
async def test_what_is_lost_comes_back_though_the_one_or_the_other_ends_in_between(restarted):
    producer, taker = shop(), Taker(model=False)
    async with Harness(producer, taker.app) as world:
        channel = Lossy(world)
        channel.lose = [(A, 2)]
        await bump(producer, *"aa")
        await world.settle()
        if restarted == "producer":
            channel.drop = is_tally
            await world.restart(producer)
            channel.drop = lambda _: False
        await world.advance(seconds=2)
        assert taker.calls == [("a", 1)]
        assert await world.held(taker.app, Reason.TALLY)
        if restarted == "taker":
            await world.restart(taker.app)
        await world.advance(seconds=5)
        assert taker.calls == [("a", 1), ("a", 2)]


@played
async def test_a_topic_that_the_app_does_not_declare_is_told_of_again_after_a_restart():
    """A saga that does not say what it returns: which commands it sends shows only when it does."""

    class Wish(Event, service="wishes", category="wish"):
        key: str

    asking, shopping = App("mail"), shop()

    @asking.on(Wish, name="wish")
    async def wish(event: Wish) -> Any:
        return Bump(event.key)

    async with Harness(asking, shopping) as world:
        channel = Lossy(world)
        await world.channel.publish([publication("wishes.wish/a", 1, "wishes.Wish", Wish("a"))])
        await passing(world, 15)
        channel.drop = lambda one: one.topic == "shop.commands"
        await world.channel.publish([publication("wishes.wish/b", 1, "wishes.Wish", Wish("b"))])
        await passing(world, 1)
        await world.restart(asking)
        await passing(world, 30)
        channel.drop = lambda _: False
        assert len(await payloads(world, shopping, Bumped)) == 1
        await passing(world, 130)
        assert len(await payloads(world, shopping, Bumped)) == 2


@played
async def test_a_wiped_topic_is_filled_again_with_no_human():
    producer, taker = shop(), Taker()
    async with Harness(producer, taker.app) as world:
        await world._end(taker.app)
        await bump(producer, *"aabbc")
        await world.advance(seconds=3)
        for place, kept in world.channel.broker._places.items():
            if place[0] == TOPIC:
                kept.clear()
        await world._start(taker.app, world.databases["mail"])
        for _ in range(20):
            await world.advance(seconds=3)
        assert sorted(taker.calls) == [("a", 1), ("a", 2), ("b", 1), ("b", 2), ("c", 1)]
        assert in_order(taker.calls)


@played
async def test_a_new_handler_of_an_old_group_gets_what_was_published_before_it_came():
    producer, taker = shop(), Taker(model=False)
    async with Harness(producer, taker.app) as world:
        await bump(producer, *"aab")
        await world.advance(seconds=3)
        late: list[tuple[str, int]] = []
        await world._end(taker.app)

        @taker.app.on(Bumped, name="late")
        async def take(event: Bumped) -> None:
            late.append((event.key, event.n))

        await world._start(taker.app, world.databases["mail"])
        await bump(producer, "c")
        await passing(world, 20)
        assert sorted(late) == [("a", 1), ("a", 2), ("b", 1), ("c", 1)]
        assert sorted(taker.calls) == sorted(late), "the other handler has had them"


# --- and what is not lost is not asked for ---


@played
async def test_where_nothing_is_lost_nothing_is_asked_for_and_nothing_held():
    producer, taker = shop(), Taker()
    async with Harness(producer, taker.app) as world:
        channel = Lossy(world)
        for _ in range(20):
            await bump(producer, *"abc")
            await world.advance(seconds=1)
            assert await world.held(taker.app) == []
        await world.advance(minutes=10)
        assert asked(channel) == []
        assert tallies(channel)[0][0] == 0
        spans = list(dict.fromkeys((prior, position) for prior, position, _ in tallies(channel)))
        assert [prior for prior, _ in spans] == [0, *(position for _, position in spans[:-1])], "a chain"


@played
async def test_a_tally_before_its_messages_asks_for_nothing_if_they_come_in_time():
    taker = Taker(model=False)
    async with Harness(shop(), taker.app) as world:
        channel = Lossy(world)
        await world.channel.publish([tally(0, 3, {A: (0, 2), B: (0, 1)})])
        await world.settle()
        assert len(await world.held(taker.app, Reason.TALLY)) == 1
        await world.channel.publish([bumped(A, 1), bumped(B, 1), bumped(A, 2)])
        await world.advance(seconds=1)
        assert await world.held(taker.app) == []
        await world.advance(minutes=10)
        assert asked(channel) == []


@played
async def test_tallies_may_come_twice_and_in_any_order():
    from itertools import permutations

    told = [tally(0, 1, {A: (0, 1)}), tally(1, 2, {A: (1, 2)}), tally(2, 3, {B: (0, 1)})]
    for order in permutations(range(3)):
        producer, taker = shop(), Taker(model=False)
        async with Harness(producer, taker.app) as world:
            channel = Lossy(world)
            channel.drop = lambda one: one.topic == TOPIC and not one.group
            await bump(producer, *"aab")
            await world.settle()
            for n in order:
                await channel._publish([told[n], told[n]])
                await world.settle()
            for _ in range(30):
                await world.advance(seconds=1)
            assert sorted(taker.calls) == [("a", 1), ("a", 2), ("b", 1)], order
            assert await world.held(taker.app) == []


@played
async def test_a_consumer_of_other_types_on_the_topic_misses_nothing():
    class Emptied(Event, service="shop", category="Counter"):
        key: str

    producer, app = shop(), App("mail")

    @app.on(Emptied)
    async def emptied(event: Emptied) -> None:
        raise AssertionError(event)

    async with Harness(producer, app) as world:
        channel = Lossy(world)
        await bump(producer, *"aab")
        await world.advance(minutes=2)
        assert tallies(channel)
        assert asked(channel) == []
        assert await world.held(app) == []


@played
async def test_a_group_that_starts_now_asks_for_nothing_from_before_and_for_all_from_then_on():
    producer, taker = shop(), Taker(model=False, start="now")
    async with Harness(producer) as world:
        await bump(producer, *"aab")
        await world.advance(seconds=3)
        taker.app.clock = world.clock
        world.apps = (producer, taker.app)
        await world._start(taker.app, type(world.databases["shop"])(world.clock))
        channel = Lossy(world)
        await passing(world, 60)
        assert (taker.calls, asked(channel)) == ([], [])
        channel.lose = [(A, 3), ("shop.Counter/d", 1)]
        await bump(producer, *"ad")
        await passing(world, 60)
        assert sorted(taker.calls) == [("a", 3), ("d", 1)]
        assert sorted(asked(channel)) == [A, "shop.Counter/d"]


@played
async def test_what_is_dead_or_waits_for_a_retry_is_in_custody_and_not_asked_for():
    producer, taker = shop(), Taker(model=False)
    taker.fail("a", 1)
    async with Harness(producer, taker.app) as world:
        channel = Lossy(world)
        await bump(producer, *"aab")
        for _ in range(200):
            await world.advance(minutes=1)
        assert [row.reason for row in await world.held(taker.app)] == [Reason.DEAD, Reason.BEHIND]
        assert asked(channel) == []


@played
async def test_what_the_channel_refuses_is_not_told_until_it_is_published():
    producer, taker = shop(), Taker(model=False)
    async with Harness(producer, taker.app) as world:
        channel = Lossy(world)
        refusal = world.channel._refusal
        world.channel._refusal = lambda one: "too long" if one.key == A else ""
        await bump(producer, *"aab")
        await world.advance(seconds=2)
        assert tallies(channel) == [(0, 3, {B: [0, 1]})]
        await world.restart(producer)
        await world.advance(seconds=2)
        assert tallies(channel)[-1] == (0, 3, {B: [0, 1]})
        world.channel._refusal = refusal
        for dead in await world.held(producer, Reason.DEAD):
            await redrive(world, producer, dead)
        channel.lose = [(A, 2)]
        await world.settle()
        await bump(producer, "b")
        await world.advance(seconds=2)
        assert tallies(channel)[-1][2] == {A: [0, 2], B: [1, 2]}
        await world.advance(seconds=5)
        assert taker.calls == [("b", 1), ("a", 1), ("b", 2), ("a", 2)]


@played
async def test_a_group_that_has_not_come_so_far_asks_for_nothing():
    producer, taker = shop(), Taker(model=False)
    async with Harness(producer, taker.app) as world:
        channel = Lossy(world)
        behind = [GroupLag("mail", TOPIC, 7, world.clock.now() - 1)]

        async def lag(group: str | None = None) -> Sequence[GroupLag]:
            assert group == "mail"
            return behind

        world.channel.lag = lag
        channel.lose = [(A, 1)]
        await bump(producer, "a")
        await passing(world, 120)
        assert asked(channel) == []
        behind[:] = [GroupLag("mail", TOPIC, 7, world.clock.now())]
        await passing(world, 6)
        assert (taker.calls, asked(channel)) == ([("a", 1)], [A])


@played
async def test_where_a_channel_cannot_tell_how_old_its_backlog_is_it_is_waited_for_a_minute():
    producer, taker = shop(), Taker(model=False)
    async with Harness(producer, taker.app) as world:
        channel = Lossy(world)

        async def lag(group: str | None = None) -> Sequence[GroupLag]:
            return [GroupLag("mail", TOPIC, 7, None)]

        world.channel.lag = lag
        channel.lose = [(A, 1)]
        await bump(producer, "a")
        await passing(world, 60)
        assert taker.calls == []
        await passing(world, 10)
        assert taker.calls == [("a", 1)]


@played
async def test_what_never_comes_is_asked_for_less_and_less_often():
    taker = Taker(model=False)
    async with Harness(taker.app) as world:
        channel = Lossy(world)
        await world.channel.publish([tally(0, 3, {A: (0, 2)})])
        await passing(world, 60 * 30)
        assert 8 <= len(asked(channel)) <= 14
        assert len(await world.held(taker.app)) == 1


@played
async def test_an_operator_sees_what_is_told_and_has_not_come_and_may_give_it_up():
    taker = Taker(model=False)
    async with Harness(taker.app) as world:
        await world.channel.publish([tally(0, 3, {A: (0, 2)})])
        await world.settle()
        database = world.databases["mail"]
        [row] = await operations.list_held(database, reasons=[Reason.TALLY])
        shown = await operations.show_held(database, operations.id_of(row))
        assert (shown.reason, shown.data) == ("tally", {"streams": {A: [0, 2]}})
        assert "asked to publish them again" in shown.advice
        with pytest.raises(operations.NotPossible, match="is asked for"):
            await operations.redrive(database, world.clock, operations.id_of(row))
        await operations.discard(database, operations.id_of(row))
        assert await world.held(taker.app) == []


@played
async def test_few_tallies_of_a_chain_are_held_and_the_rest_is_told_again():
    producer, taker = shop(), Taker(model=False)
    async with Harness(producer, taker.app) as world:
        channel = Lossy(world)
        channel.drop = lambda one: one.topic == TOPIC and not is_tally(one)
        keys = [f"k{n}" for n in range(4 * HELD)]
        for key in keys:
            await bump(producer, key)
            await world.advance(seconds=2)
            assert len(await world.held(taker.app)) <= HELD + 1
        channel.drop = lambda _: False
        await passing(world, 400)
        assert sorted(taker.calls) == sorted((key, 1) for key in keys)
        assert await world.held(taker.app) == []


@pytest.mark.parametrize(
    "broken",
    [
        {"body": b"nonsense"},
        {"body": b"{}"},
        {"body": b'{"streams":{"shop.Counter/a":[3]}}'},
        {"body": b'{"streams":{"shop.Counter/a":[3,3]}}'},
        {"body": b'{"streams":{"shop.Counter/a":[-1,3]}}'},
        {"body": b'{"streams":{"shop.Counter/a":[0,99999999999999999999]}}'},
        {"body": b'{"streams":{"bank.Account/a":[0,3]}}'},
        {"body": b'{"streams":{"shop.Counter/\\u0000":[0,3]}}'},
        {"body": b'{"streams":{"shop.Counter/\\ud800":[0,3]}}'},
        {"subject": "shop.relay/shop.Other"},
        {"subject": "shop.Counter/a"},
        {"type": "headwater.Republish"},
    ],
    ids=lambda broken: str(next(iter(broken.values())))[:40],
)
@played
async def test_what_is_no_tally_is_a_dead_letter_and_stops_nothing(broken):
    taker = Taker(model=False)
    async with Harness(taker.app) as world:
        one = tally(0, 3, {A: (0, 2)})
        headers = one.headers | {name: value for name, value in broken.items() if name != "body"}
        bad = msgspec.structs.replace(one, headers=headers, body=broken.get("body", one.body))
        await world.channel.publish([bad, bumped(A, 1)])
        await world.settle()
        assert [(row.reason, row.raw) for row in await world.held(taker.app)] == [(Reason.DEAD, True)]
        assert taker.calls == [("a", 1)]


def test_the_stream_of_a_chain_is_nobody_elses():
    with pytest.raises(DeclarationError, match="'relay' is taken in shop"):
        shop().on(name="relay")(Taker().note)
    assert topic_of_tallies(CHAIN) == TOPIC
    assert topic_of_tallies("shop.relays/x") == topic_of_tallies("relay/x") == topic_of_tallies("a.relay>b/x") == ""
