"""Topics of messages that are not ours: plain JSON and CloudEvents become events, each takes effect once, keys keep their order."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Any

import msgspec
import pytest

from headwater import App, ConfigurationError, DeclarationError, Event, Message, ReadModel, Retry, evolve
from headwater.channel import Publication
from headwater.inbox import Reason
from headwater.message import stream_key
from headwater.testing.harness import Harness
from tests.flow.rig import Killed, failing_commits, killed, log_of, payloads, played, settles
from tests.flow.shop import Bumped

TOPIC = "LegacyOrders"


class Ordered(Event, service="legacy", category="orders"):
    order_id: str
    cents: int


class Noted(Event):
    order_id: str
    cents: int


class Spent(ReadModel, key="order_id"):
    cents: int = 0

    @evolve
    def ordered(self, event: Ordered) -> None:
        self.cents += event.cents


class Hearer:
    """A service that takes orders of a system that is not ours."""

    def __init__(self, **options: Any) -> None:
        self.app = App("mail", retry=Retry(attempts=3, base=1, cap=1))
        self.app.add(Spent, Noted)
        self.app.listen(TOPIC, Ordered, **{"key": "order_id", **options})
        self.app.on(name="note")(self.note)
        self.messages: list[Message] = []
        self.bad: set[int] = set()

    async def note(self, event: Ordered, message: Message) -> Noted:
        self.messages.append(message)
        if event.cents in self.bad:
            raise RuntimeError(f"{event.cents} is bad")
        return Noted(event.order_id, event.cents)


def plain(order_id: Any, cents: int, key: str = "", **fields: Any) -> Publication:
    body = json.dumps({"order_id": order_id, "cents": cents, **fields}).encode()
    return Publication(TOPIC, key or str(order_id), {}, body)


def cloud_event(order_id: str, cents: int, **headers: str) -> Publication:
    attributes = {
        "specversion": "1.0",
        "id": f"{order_id}-{cents}",
        "source": "/tills/7",
        "type": "com.example.ordered",
        "time": "2026-01-02T03:04:05Z",
        **headers,
    }
    return msgspec.structs.replace(plain(order_id, cents), headers=attributes)


async def noted(world: Harness, app: App) -> list[tuple[str, int]]:
    return [(one.order_id, one.cents) for one in await payloads(world, app, Noted)]


@played
async def test_plain_json_is_handled_folded_and_kept_in_the_order_of_its_key():
    hearer = Hearer()
    async with Harness(hearer.app) as world:
        await world.channel.publish([plain("a", 1), plain("b", 2, extra=[1]), plain("a", 3), plain(7, 4)])
        await world.settle()
        assert sorted(await noted(world, hearer.app)) == [("a", 1), ("a", 3), ("b", 2)]
        assert (await hearer.app.get(Spent, "a")).cents == 4
        assert stream_key(hearer.messages[0].stream) in {"a", "b"}
        assert {one.stream for one in await log_of(world, hearer.app)} == {"mail.note/a", "mail.note/b"}
        assert all(one.id.startswith(f"{TOPIC}/") for one in hearer.messages)
        dead = await world.held(hearer.app, Reason.DEAD)
        assert {row.consumer for row in dead} == {"mail.note", "mail.spent"}, "7 is a key, and no order_id of the type"


@played
async def test_a_cloud_event_without_our_attributes_keeps_its_id_and_time():
    hearer = Hearer()
    async with Harness(hearer.app) as world:
        await world.channel.publish([cloud_event("a", 1, traceparent="00-1", correlationid="c7")])
        await world.settle()
        [message] = hearer.messages
        assert (message.id, message.time) == ("/tills/7#a-1", 1_767_323_045_000_000)
        assert (message.metadata.traceparent, message.metadata.correlation_id) == ("00-1", "c7")
        [effect] = await log_of(world, hearer.app)
        assert effect.metadata.causation_id == "/tills/7#a-1"


@pytest.mark.parametrize("header", ["datacontenttype", "content-type"])
@played
async def test_a_cloud_event_in_structured_mode_is_taken_out_of_its_envelope(header):
    hearer = Hearer()
    envelope = {"specversion": "1.0", "id": "e1", "source": "/s", "type": "t", "data": {"order_id": "a", "cents": 5}}
    headers = {header: "application/cloudevents+json; charset=utf-8"}
    async with Harness(hearer.app) as world:
        await world.channel.publish([Publication(TOPIC, "", headers, json.dumps(envelope).encode())])
        await world.settle()
        assert await noted(world, hearer.app) == [("a", 5)]
        assert hearer.messages[0].id == "/s#e1"


@played
async def test_only_the_type_that_is_named_is_taken():
    hearer = Hearer(named="com.example.ordered")
    async with Harness(hearer.app) as world:
        await world.channel.publish([cloud_event("a", 1), cloud_event("a", 2, type="com.example.paid"), plain("a", 3)])
        await world.settle()
        assert await noted(world, hearer.app) == [("a", 1)]
        assert await world.held(hearer.app) == []
        [lag] = [lag for lag in await world.channel.lag("mail") if lag.topic == TOPIC]
        assert lag.messages == 0


@played
async def test_what_comes_again_after_a_crash_takes_effect_once():
    hearer = Hearer()
    async with Harness(hearer.app) as world:
        await world.channel.publish([plain("a", n) for n in range(1, 6)])
        with failing_commits(world.databases["mail"], Killed(), settles("mail.note"), after=True):
            await killed(world, hearer.app)
        await world.settle()
        assert await noted(world, hearer.app) == [("a", n) for n in range(1, 6)]
        assert (await hearer.app.get(Spent, "a")).cents == 15
        for cursors in (group.cursors for group in world.channel.broker.groups.values()):
            cursors.update(dict.fromkeys(cursors, 0))
        await world.restart(hearer.app)
        await world.settle()
        assert await noted(world, hearer.app) == [("a", n) for n in range(1, 6)], "a group that was set back"


@played
async def test_one_that_fails_holds_its_key_and_others_flow():
    hearer = Hearer()
    hearer.bad = {2}
    async with Harness(hearer.app) as world:
        await world.channel.publish(
            [plain(key, cents, key="same") for key, cents in [("a", 1), ("a", 2), ("b", 4), ("a", 3)]]
        )
        await world.settle()
        assert await noted(world, hearer.app) == [("a", 1), ("b", 4)]
        hearer.bad = set()
        await world.advance(seconds=2)
        assert await noted(world, hearer.app) == [("a", 1), ("b", 4), ("a", 2), ("a", 3)]
        assert await world.held(hearer.app) == []


@pytest.mark.parametrize(
    "body",
    [
        b"nonsense",
        b"[]",
        b"{}",
        b'{"order_id":null,"cents":1}',
        b'{"order_id":true,"cents":1}',
        b'{"order_id":1.5,"cents":1}',
        b'{"order_id":"","cents":1}',
        b'{"order_id":"\\u0000","cents":1}',
        b"\xff",
        b"",
    ],
)
@played
async def test_what_has_no_key_is_a_dead_letter_of_the_channel(body):
    hearer = Hearer()
    async with Harness(hearer.app) as world:
        await world.channel.publish([Publication(TOPIC, "k", {}, body), plain("a", 1)])
        await world.settle()
        [row] = await world.held(hearer.app)
        assert (row.consumer, row.reason, row.raw) == ("mail.channel", Reason.DEAD, True)
        assert await noted(world, hearer.app) == [("a", 1)]


@played
async def test_what_says_to_be_structured_and_is_not_is_a_dead_letter():
    hearer = Hearer()
    async with Harness(hearer.app) as world:
        headers = {"datacontenttype": "application/cloudevents+json"}
        await world.channel.publish([Publication(TOPIC, "k", headers, b'{"order_id":"a","cents":1}')])
        await world.settle()
        [row] = await world.held(hearer.app)
        assert (row.consumer, "though it says so" in row.cause) == ("mail.channel", True)


@played
async def test_without_a_field_the_key_is_that_of_the_channel_or_the_partition():
    hearer = Hearer(key="")
    async with Harness(hearer.app) as world:
        await world.channel.publish([plain("a", 1, key="till-7"), msgspec.structs.replace(plain("b", 2), key="")])
        await world.settle()
        assert {stream_key(one.stream) for one in hearer.messages} >= {"till-7"}
        assert len({stream_key(one.stream) for one in hearer.messages}) == 2


def queue(world: Harness) -> None:
    world.channel.capabilities = msgspec.structs.replace(world.channel.capabilities, history=False)


@played
async def test_a_channel_whose_messages_have_no_position_is_refused_until_that_is_accepted():
    hearer, accepting = Hearer(), Hearer(once=False)
    with pytest.raises(ConfigurationError, match=r"LegacyOrders: on this channel .* once=False"):
        world = Harness(hearer.app)
        queue(world)
        async with world:
            pass
    world = Harness(accepting.app)
    queue(world)
    async with world:
        accepting.bad = {2}
        await world.channel.publish([cloud_event("a", 1), cloud_event("a", 2), cloud_event("a", 2), plain("a", 3)])
        await world.settle()
        assert sorted(await noted(world, accepting.app)) == [("a", 1), ("a", 3)]
        assert len(await world.held(accepting.app)) == 1, "a copy of what is held is none more"
        accepting.bad = set()
        await world.advance(seconds=2)
        assert sorted(await noted(world, accepting.app)) == [("a", 1), ("a", 2), ("a", 3)]
        assert await world.held(accepting.app) == []
        marks = world.databases["mail"].file.tables.get("marks", {})
        assert [stream for _, stream in marks if stream.startswith("legacy.")] == []


@dataclass
class Adopted:
    order_id: str
    cents: int


@played
async def test_a_class_that_is_adopted_may_be_what_a_topic_is_listened_to_with():
    app = App("mail")
    app.adopt(Adopted, kind="event", service="legacy", category="orders")
    app.listen(TOPIC, Adopted, key="order_id")
    seen: list[Adopted] = []

    @app.on(Adopted)
    async def see(event: Adopted) -> None:
        seen.append(event)

    async with Harness(app) as world:
        await world.channel.publish([plain("a", 1)])
        await world.settle()
        assert seen == [Adopted("a", 1)]


def test_the_topic_is_a_route_and_nobody_is_asked_for_repairs_of_it():
    routes = {one.topic: one.groups for one in Hearer().app.routes()}
    assert routes[TOPIC] == ("mail",)
    assert f"{TOPIC}.control" not in routes
    assert "legacy.control" not in routes
    assert "legacy.orders" not in routes


class Own(Event):
    order_id: str


class Vague(Event, service="legacy"):
    order_id: str


class AlsoOrdered(Event, service="legacy", category="LegacyOrders"):
    order_id: str


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        ((TOPIC, Own, {}), "must be an event of whoever states it"),
        ((TOPIC, Vague, {}), "must be an event of whoever states it"),
        (("", Ordered, {}), "has no name"),
        ((TOPIC, Ordered, {"key": "nothing"}), "no field 'nothing'"),
    ],
)
def test_what_cannot_be_listened_to_is_refused(arguments, says):
    topic, event, options = arguments
    with pytest.raises(DeclarationError, match=says):
        App("mail").listen(topic, event, **options)


def test_a_topic_is_listened_to_once():
    app = Hearer().app
    with pytest.raises(DeclarationError, match="listened to already"):
        app.listen(TOPIC, Bumped)


def test_a_topic_is_ours_or_not():
    app = App("mail")
    app.listen("legacy.LegacyOrders", Ordered)

    @app.on(AlsoOrdered)
    async def see(event: AlsoOrdered) -> None:
        raise AssertionError(event)

    with pytest.raises(DeclarationError, match="is listened to, so legacy"):
        app.routes()
