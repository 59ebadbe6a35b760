"""What is no message, or not for us: kept as a dead letter or skipped, while everything else flows."""

from __future__ import annotations

import msgspec
import pytest

from headwater import App, Command, Event, Refused, Saga, react
from headwater.channel import Publication
from headwater.inbox import Reason
from headwater.testing.harness import Harness
from tests.flow.rig import log_of, payloads, played, publication, redrive
from tests.flow.shop import Bump, Bumped, Counter, Noted, Taker, Tally, shop

A, B = "shop.Counter/a", "shop.Counter/b"


def good(n: int = 1, key: str = "b") -> Publication:
    return publication(f"shop.Counter/{key}", n, "shop.Bumped", Bumped(key, n))


def spoilt(**headers: str | None) -> Publication:
    one = publication(A, 1, "shop.Bumped", Bumped("a", 1))
    kept = {name: value for name, value in {**one.headers, **headers}.items() if value is not None}
    return Publication(one.topic, one.key, kept, one.body)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("specversion", None),
        ("specversion", "0.3"),
        ("id", None),
        ("type", None),
        ("subject", None),
        ("subject", ""),
        ("kind", "gossip"),
        ("kind", "timer"),
        ("kind", "control"),
        ("streamversion", None),
        ("streamversion", "one"),
        ("streamversion", "0"),
        ("streamversion", "-1"),
        ("streamversion", "9" * 30),
        ("previous", "1"),
        ("typeversion", "x"),
        ("time", "yesterday"),
        ("subject", "order 17"),
        ("subject", "shop.Other/a"),
        ("subject", "shop.Counter>mail/a"),
    ],
)
@played
async def test_bad_headers_become_a_dead_letter_and_others_flow(name, value):
    taker = Taker()
    async with Harness(taker.app) as world:
        bad = spoilt(**{name: value})
        await world.channel.publish([good(1), bad, good(2)])
        await world.settle()
        await world.channel.publish([good(3)])
        await world.settle()
        assert taker.calls == [("b", 1), ("b", 2), ("b", 3)]
        [row] = await world.held(taker.app)
        assert (row.consumer, row.reason, row.raw, row.message.data) == ("mail.channel", Reason.DEAD, True, bad.body)
        assert row.headers == bad.headers
        assert row.cause
        await world.restart(taker.app)
        await world.settle()
        assert len(await world.held(taker.app)) == 1


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"nonsense",
        b"[1, 2]",
        b'{"key": "a"}',
        b'{"key": "a", "n": "one"}',
        b'{"key": "a", "n": 1, "n": 1}',
        b'{"key": "a", "n": 1, "say": "\\ud800"}',
        b"\xff\xfe",
        b'{"key": "a", "n": 1, "x": ' + b"[" * 100 + b"]" * 100 + b"}",
        b'{"key": "a", "n": NaN}',
    ],
)
@played
async def test_a_bad_body_is_a_dead_letter_of_each_consumer_and_parks_its_key(body):
    taker = Taker()
    async with Harness(taker.app) as world:
        await world.channel.publish([publication(A, 1, "shop.Bumped", body), good(1), good(2, "a"), good(2)])
        await world.advance(days=1)
        assert taker.calls == [("b", 1), ("b", 2)]
        assert (await taker.app.get(Tally, "b")).numbers == [1, 2]
        rows = await world.held(taker.app)
        assert [(row.consumer, row.reason, row.message.version) for row in rows] == [
            ("mail.note", Reason.DEAD, 1),
            ("mail.note", Reason.BEHIND, 2),
            ("mail.tally", Reason.DEAD, 1),
            ("mail.tally", Reason.BEHIND, 2),
        ]
        assert rows[0].message.data == body
        assert rows[0].cause.startswith("SchemaError")


@played
async def test_an_unknown_event_type_on_a_subscribed_topic_is_skipped():
    taker = Taker()
    async with Harness(taker.app) as world:
        await world.channel.publish(
            [
                good(1, "a"),
                publication(A, 2, "shop.Renamed", {"whatever": 1}),
                good(3, "a"),
                publication(B, 1, "shop.Gone", b"??"),
            ]
        )
        await world.settle()
        assert taker.calls == [("a", 1), ("a", 3)]
        assert await world.held(taker.app) == []


@played
async def test_a_version_of_a_type_that_is_newer_than_ours_is_a_dead_letter():
    taker = Taker(model=False)
    async with Harness(taker.app) as world:
        await world.channel.publish([publication(A, 1, "shop.Bumped", Bumped("a", 1), typeversion="2"), good(1)])
        await world.settle()
        [row] = await world.held(taker.app)
        assert "upgrade the app" in row.cause
        assert taker.calls == [("b", 1)]


@played
async def test_an_unknown_command_is_a_dead_letter_and_others_flow():
    app = shop()
    async with Harness(app) as world:
        stream = "web.form>shop/1"
        await world.channel.publish(
            [
                publication(stream, 1, "shop.Explode", {}, kind="command", topic="shop.commands"),
                publication("web.form>shop/2", 1, "shop.Bump", Bump("a"), kind="command", topic="shop.commands"),
                publication(stream, 2, "shop.Bump", Bump("b"), kind="command", topic="shop.commands"),
            ]
        )
        await world.settle()
        assert [one.stream for one in await log_of(world, app)] == ["shop.Counter/a"]
        rows = await world.held(app)
        assert [(row.consumer, row.reason) for row in rows] == [
            ("shop.commands", Reason.DEAD),
            ("shop.commands", Reason.BEHIND),
        ]
        assert "unknown message type 'shop.Explode'" in rows[0].cause


@played
async def test_a_command_that_nothing_decides_is_a_dead_letter_that_says_so():
    app = App("shop")

    class Other(Command):
        key: str

    app.add(Counter)
    async with Harness(app) as world:
        app.schema.add(Other)
        await world.channel.publish(
            [publication("web.form>shop/1", 1, "shop.Other", {"key": "a"}, kind="command", topic="shop.commands")]
        )
        await world.settle()
        [row] = await world.held(app)
        assert "nothing decides Other" in row.cause


class Sold(Event):
    key: str


class Pay(Command, service="bank"):
    key: str


class Sale(Saga, key="key"):
    refused: bool = False

    @react(starts=True)
    def sold(self, event: Sold) -> Pay:
        return Pay(event.key)

    @react
    def no(self, event: Refused) -> None:
        self.refused = True


@pytest.mark.parametrize("body", [b"nonsense", b"{}", b'{"type":"x","id":"y","reason":"z"}', b'{"type":1}'])
@played
async def test_a_reply_that_cannot_be_read_stops_nobody(body):
    app = App("shop")
    app.add(Sale)
    async with Harness(app) as world:
        bad = publication("bank.commands>shop/1", 1, "headwater.Refused", body, kind="reply", topic="shop.replies")
        reply = Refused("bank.Pay", "id", "no money", "shop.sale>bank/2")
        fine = publication("bank.commands>shop/2", 1, "headwater.Refused", reply, kind="reply", topic="shop.replies")
        await world.channel.publish([bad, fine])
        await world.settle()
        reasons = {(row.message.stream[-1], row.reason) for row in await world.held(app)}
        assert ("2", Reason.RETRY) in reasons, "there is no instance yet"
        assert reasons <= {("2", Reason.RETRY), ("1", Reason.DEAD)}


@played
async def test_a_malformed_delivery_comes_once_however_often_it_is_delivered():
    taker = Taker()
    async with Harness(taker.app) as world:
        await world.channel.publish([spoilt(id=None)])
        await world.settle()
        group = world.channel.broker.groups["mail"]
        group.cursors = dict.fromkeys(group.cursors, 0)
        await world.restart(taker.app)
        await world.settle()
        assert len(await world.held(taker.app)) == 1


@played
async def test_a_malformed_dead_letter_cannot_be_lost_by_a_failing_commit():
    from headwater.database import Failed
    from headwater.errors import DatabaseError
    from tests.flow.rig import any_set

    taker = Taker()
    async with Harness(taker.app) as world:
        database = world.databases["mail"]
        commit = database.commit

        async def refuse(writes):
            if any_set(lambda write: any(row.raw for row in write.holds))(writes):
                del database.commit
                return [Failed(DatabaseError("full"))]
            return await commit(writes)

        database.commit = refuse
        await world.channel.publish([spoilt(id=None), good(1)])
        with pytest.raises(DatabaseError):
            await world.settle()
        await world.settle()
        assert [row.raw for row in await world.held(taker.app)] == [True]
        assert taker.calls == [("b", 1)]


@played
async def test_a_bad_body_that_was_mended_by_an_upgrade_is_redriven():
    """A field that the app did not know to be optional: after the upgrade the same bytes are read."""
    taker = Taker(model=False)
    async with Harness(taker.app) as world:
        await world.channel.publish([publication(A, 1, "shop.Bumped", {"key": "a"}), good(2, "a")])
        await world.settle()
        [row] = await world.held(taker.app, Reason.DEAD)
        mended = msgspec.structs.replace(row, message=msgspec.structs.replace(row.message, data=b'{"key":"a","n":1}'))
        await redrive(world, taker.app, mended)
        await world.settle()
        assert [(one.key, one.n) for one in await payloads(world, taker.app, Noted)] == [("a", 1), ("a", 2)]


@played
async def test_twenty_bad_bodies_are_no_outage():
    taker = Taker(model=False)
    async with Harness(taker.app) as world:
        await world.channel.publish([publication(f"shop.Counter/x{n}", 1, "shop.Bumped", b"?") for n in range(30)])
        await world.settle()
        await world.channel.publish([good(1)])
        await world.settle()
        assert taker.calls == [("b", 1)]
        assert len(await world.held(taker.app, Reason.DEAD)) == 30
