"""What becomes of messages that fail: order per key, retries under virtual time, dead letters, redrive."""

from __future__ import annotations

import msgspec
import pytest

from headwater import App, ChannelError, Conflict, Event, Message, ReadModel, Retry, SchemaError, Uncertain, evolve
from headwater.database import WriteSet
from headwater.inbox import Reason, Release
from headwater.testing.harness import Harness
from tests.flow.rig import SECONDS, in_order, payloads, played, publication, redrive, types_in
from tests.flow.shop import Bump, Bumped, Noted, Taker, shop

A, B = "shop.Counter/a", "shop.Counter/b"


async def bump(app: App, *keys: str) -> None:
    for key in keys:
        await app.send(Bump(key))


async def lines(world: Harness, app: App) -> list[tuple[str, int, Reason]]:
    return [(row.key.rpartition("/")[2], row.message.version, row.reason) for row in await world.held(app)]


@played
async def test_a_failing_message_holds_its_key_and_others_flow():
    producer, taker = shop(), Taker(model=False)
    taker.fail("a", 2)
    async with Harness(producer, taker.app) as world:
        await bump(producer, *"abababab")
        await world.settle()
        assert [call for call in taker.calls if call[0] == "b"] == [("b", n) for n in range(1, 5)]
        assert [call for call in taker.calls if call[0] == "a"] == [("a", 1), ("a", 2)]
        assert await lines(world, taker.app) == [
            ("a", 2, Reason.RETRY),
            ("a", 3, Reason.BEHIND),
            ("a", 4, Reason.BEHIND),
        ]
        await bump(producer, *"ab")
        await world.settle()
        assert (await lines(world, taker.app))[-1] == ("a", 5, Reason.BEHIND), "later batches wait behind it too"


@pytest.mark.parametrize("batch", [1, 2, 50])
@played
async def test_order_per_key_is_kept_through_retries(batch):
    producer, taker = shop(), Taker(model=False, batch=batch)
    for n in (1, 2, 5):
        taker.fail("a", n, times=2)
    async with Harness(producer, taker.app) as world:
        for _ in range(6):
            await bump(producer, "a", "b")
            await world.advance(seconds=0.05)
        for _ in range(10):
            await world.advance(seconds=1)
        assert await world.held(taker.app) == []
        effects = [(one.key, one.n) for one in await payloads(world, taker.app, Noted)]
        assert len(effects) == 12
        assert in_order(effects)


@played
async def test_a_retry_runs_one_message_more_and_what_is_behind_it_follows_at_once():
    producer, taker = shop(), Taker(model=False)
    taker.fail("a", 1, times=1)
    async with Harness(producer, taker.app) as world:
        await bump(producer, *"aaa")
        await world.settle()
        assert taker.calls == [("a", 1)]
        await world.advance(seconds=0.2)
        assert taker.calls == [("a", 1), ("a", 1), ("a", 2), ("a", 3)]
        assert taker.attempts == [1, 2, 1, 1]


@played
async def test_retries_wait_a_random_share_of_a_growing_ceiling():
    dues: list[float] = []
    for seed in range(8):
        producer, taker = shop(), Taker(model=False, retry=Retry(attempts=6, base=1.0, cap=5.0))
        taker.fail("a", 1)
        async with Harness(producer, taker.app, seed=seed) as world:
            await bump(producer, "a")
            await world.settle()
            for ceiling in (1, 2, 4, 5, 5):
                [row] = await world.held(taker.app)
                wait = (row.due - world.clock.now()) / SECONDS
                assert 0 <= wait <= ceiling
                dues.append(wait / ceiling)
                calls = len(taker.calls)
                world.clock.advance(wait - 0.001 if wait > 0.001 else 0)
                await world.settle()
                assert len(taker.calls) == calls or wait <= 0.001, "not before it is due"
                await world.advance(seconds=0.002)
                assert len(taker.calls) == calls + 1
    assert min(dues) < 0.2
    assert max(dues) > 0.8


@played
async def test_after_the_last_attempt_it_is_a_dead_letter_that_parks_its_key():
    producer, taker = shop(), Taker(model=False, retry=Retry(attempts=3))
    taker.fail("a", 1, ValueError("no such street"))
    async with Harness(producer, taker.app) as world:
        await bump(producer, *"ab")
        for _ in range(5):
            await world.advance(minutes=2)
        await bump(producer, *"ab")
        await world.advance(days=30)
        assert await lines(world, taker.app) == [("a", 1, Reason.DEAD), ("a", 2, Reason.BEHIND)]
        assert taker.calls.count(("a", 1)) == 3
        assert [call for call in taker.calls if call[0] == "b"] == [("b", 1), ("b", 2)]
        dead = (await world.held(taker.app))[0]
        assert (dead.attempts, dead.cause, dead.crashes) == (3, "ValueError: no such street", 0)
        assert len(dead.history) == 3
        assert dead.fingerprint
        assert dead.since <= dead.message.time + SECONDS


@pytest.mark.parametrize("error", [SchemaError("never fits"), Uncertain("maybe")])
@played
async def test_what_cannot_pass_is_not_tried_again(error):
    producer, taker = shop(), Taker(model=False)
    taker.fail("a", 1, error)
    async with Harness(producer, taker.app) as world:
        await bump(producer, "a")
        await world.advance(days=1)
        assert taker.calls == [("a", 1)]
        assert [row.reason for row in await world.held(taker.app)] == [
            Reason.UNCERTAIN if isinstance(error, Uncertain) else Reason.DEAD
        ]


@played
async def test_a_redriven_message_runs_first_and_what_is_behind_it_follows_in_order():
    producer, taker = shop(), Taker(model=False, retry=Retry(attempts=1))
    taker.fail("a", 2)
    async with Harness(producer, taker.app) as world:
        await bump(producer, *"aaaaa")
        await world.advance(days=1)
        taker.mend()
        await redrive(world, taker.app, (await world.held(taker.app, Reason.DEAD))[0])
        await bump(producer, "a")
        await world.settle()
        assert [(one.key, one.n) for one in await payloads(world, taker.app, Noted)] == [("a", n) for n in range(1, 7)]
        assert await world.held(taker.app) == []


@played
async def test_a_redriven_message_that_fails_again_is_dead_again():
    producer, taker = shop(), Taker(model=False, retry=Retry(attempts=2))
    taker.fail("a", 1)
    async with Harness(producer, taker.app) as world:
        await bump(producer, *"aa")
        await world.advance(days=1)
        await redrive(world, taker.app, (await world.held(taker.app, Reason.DEAD))[0])
        await world.advance(days=1)
        await world.advance(days=1)
        assert taker.calls == [("a", 1)] * 4
        assert await lines(world, taker.app) == [("a", 1, Reason.DEAD), ("a", 2, Reason.BEHIND)]


@played
async def test_a_second_dead_letter_of_a_key_stops_what_follows_the_first():
    producer, taker = shop(), Taker(model=False, retry=Retry(attempts=1))
    taker.fail("a", 1)
    taker.fail("a", 3)
    async with Harness(producer, taker.app) as world:
        await bump(producer, *"aaaa")
        await world.settle()
        taker.faults.pop(("a", 1))
        await redrive(world, taker.app, (await world.held(taker.app, Reason.DEAD))[0])
        await world.advance(days=1)
        assert taker.calls == [("a", 1), ("a", 1), ("a", 2), ("a", 3)]
        assert await lines(world, taker.app) == [("a", 3, Reason.DEAD), ("a", 4, Reason.BEHIND)]


@played
async def test_a_discarded_message_frees_what_is_behind_it():
    producer, taker = shop(), Taker(model=False, retry=Retry(attempts=1))
    taker.fail("a", 1)
    async with Harness(producer, taker.app) as world:
        await bump(producer, *"aaa")
        await world.settle()
        [answer] = await world.databases["mail"].commit([WriteSet(releases=[Release("mail.note", A, 1)])])
        assert answer
        await world.settle()
        assert taker.calls == [("a", 1), ("a", 2), ("a", 3)]
        await bump(producer, "a")
        await world.settle()
        assert taker.calls[-1] == ("a", 4)


@played
async def test_what_an_operator_discards_while_it_runs_is_not_brought_back():
    producer, taker = shop(), Taker(model=False)
    async with Harness(producer, taker.app) as world:
        taker.fail("a", 1, times=1)
        await bump(producer, "a")
        await world.settle()

        def discard() -> None:
            world.databases["mail"].file.tables["held", "mail.note"].clear()
            raise RuntimeError("too late")

        taker.faults["a", 1] = discard
        await world.advance(seconds=1)
        assert await world.held(taker.app) == []


@played
async def test_the_retry_budget_makes_retries_wait_their_longest_when_it_is_used_up():
    producer, taker = shop(), Taker(model=False, retry=Retry(attempts=1000, base=1.0, cap=1.0))
    taker.fail("a", 1)
    async with Harness(producer, taker.app) as world:
        await bump(producer, "a")
        waits: list[float] = []
        for _ in range(130):
            await world.settle()
            [row] = await world.held(taker.app)
            waits.append((row.due - world.clock.now()) / SECONDS)
            world.clock.advance(waits[-1])
        assert min(waits[:90]) < 0.1
        assert waits[105:] == [1.0] * 25


@played
async def test_the_effects_of_a_failed_message_are_dropped_whole():
    producer = shop()
    app = App("mail")

    class Odd(Event, service="elsewhere", category="x"):
        key: str

    @app.on(Bumped)
    async def several(event: Bumped) -> list[object]:
        return [Noted(event.key, event.n), Odd(event.key)] if event.n == 2 else [Noted(event.key, event.n)]

    async with Harness(producer, app) as world:
        await bump(producer, *"aaab")
        await world.settle()
        assert await types_in(world, app) == ["Noted", "Noted"]
        assert [(row.message.version, row.reason) for row in await world.held(app)] == [
            (2, Reason.DEAD),
            (3, Reason.BEHIND),
        ]
        assert "only its own service states its facts" in (await world.held(app))[0].cause


@pytest.mark.parametrize("result", ["nonsense", 7, {"a": 1}, object()])
@played
async def test_what_is_no_message_cannot_be_returned(result):
    producer = shop()
    app = App("mail")

    @app.on(Bumped)
    async def odd(event: Bumped) -> object:
        return result

    async with Harness(producer, app) as world:
        await bump(producer, "a")
        await world.settle()
        [row] = await world.held(app)
        assert row.reason is Reason.DEAD
        assert "is not an Event or Command" in row.cause


@played
async def test_consumers_of_one_service_fail_apart():
    producer, taker = shop(), Taker(model=False, retry=Retry(attempts=1))
    seen: list[int] = []

    @taker.app.on(Bumped, name="other")
    async def other(event: Bumped) -> None:
        seen.append(event.n)

    taker.fail("a", 1)
    async with Harness(producer, taker.app) as world:
        await bump(producer, *"aa")
        await world.settle()
        assert seen == [1, 2]
        assert taker.calls == [("a", 1)]


@played
async def test_a_handlers_own_retry_goes_before_that_of_the_app():
    producer = shop()
    app = App("mail", retry=Retry(attempts=1))
    calls: list[str] = []

    @app.on(Bumped, retry=Retry(attempts=3, base=0.1))
    async def patient(event: Bumped) -> None:
        calls.append("patient")
        raise RuntimeError

    @app.on(Bumped)
    async def hasty(event: Bumped) -> None:
        calls.append("hasty")
        raise RuntimeError

    async with Harness(producer, app) as world:
        await bump(producer, "a")
        for _ in range(4):
            await world.advance(minutes=1)
        assert (calls.count("patient"), calls.count("hasty")) == (3, 1)


@played
async def test_the_log_feed_keeps_order_through_retries_too():
    producer = shop()
    calls: list[tuple[str, int]] = []
    fail = [2]

    @producer.on(Bumped)
    async def own(event: Bumped) -> None:
        calls.append((event.key, event.n))
        if (event.key, event.n) == ("a", 1) and fail[0]:
            fail[0] -= 1
            raise ChannelError("down")

    async with Harness(producer) as world:
        await bump(producer, *"aabb")
        await world.settle()
        assert calls == [("a", 1), ("b", 1), ("b", 2)]
        await bump(producer, "a", "b")
        await world.advance(seconds=1)
        await world.advance(seconds=1)
        assert [call for call in calls if call[0] == "a"] == [("a", 1)] * 3 + [("a", 2), ("a", 3)]
        assert await world.held(producer) == []


@played
async def test_held_messages_survive_a_restart():
    producer, taker = shop(), Taker(model=False, retry=Retry(attempts=4))
    taker.fail("a", 1, times=3)
    async with Harness(producer, taker.app) as world:
        await bump(producer, *"aaa")
        for _ in range(6):
            await world.settle()
            await world.restart(taker.app)
            await world.advance(seconds=1)
        assert taker.calls == [("a", 1)] * 4 + [("a", 2), ("a", 3)]
        assert taker.attempts == [1, 2, 3, 4, 1, 1]


class Sum(ReadModel, key="key"):
    total: int = 0
    tags: dict = {}

    @evolve
    def bumped(self, event: Bumped) -> None:
        self.tags.setdefault("seen", []).append(event.n)
        if event.say == "bad":
            raise ValueError("bad")
        self.total = 2**70 if event.say == "big" else self.total + 1


@pytest.mark.parametrize("say", ["bad", "big"])
@pytest.mark.parametrize("batch", [1, 50])
@played
async def test_an_event_that_a_read_model_cannot_fold_or_store_holds_only_its_key(say, batch):
    producer = shop()
    app = App("stats", retry=Retry(attempts=2), batch=batch)
    app.add(Sum)
    async with Harness(producer, app) as world:
        await bump(producer, *"abc")
        await world.settle()
        await bump(producer, "b")
        await producer.send(Bump("a", say))
        await bump(producer, *"abcab")
        for _ in range(3):
            await world.advance(seconds=30)
        assert {row.key: row.total for row in await app.find(Sum)} == {"a": 1, "b": 4, "c": 2}
        assert [row.tags for row in await app.find(Sum)] == [{"seen": [1]}, {"seen": [1, 2, 3, 4]}, {"seen": [1, 2]}]
        assert await lines(world, app) == [("a", 2, Reason.DEAD), ("a", 3, Reason.BEHIND), ("a", 4, Reason.BEHIND)]


@played
async def test_a_batch_that_falls_as_a_whole_is_run_one_message_at_a_time():
    """The database refuses what one handler returned: its message fails, and no other."""
    from headwater.database import Failed
    from headwater.errors import DatabaseError

    producer, taker = shop(), Taker(model=False, retry=Retry(attempts=2, base=0.01))
    async with Harness(producer, taker.app) as world:
        database = world.databases["mail"]
        commit = database.commit

        async def refuse(writes):
            for write in writes:
                for append in write.appends:
                    for draft in append.drafts:
                        if draft.type == "mail.Noted" and msgspec.json.decode(draft.data) == {"key": "b", "n": 2}:
                            return [Failed(DatabaseError("will not have it")) for _ in writes]
            return await commit(writes)

        database.commit = refuse
        await bump(producer, *"abcabcabc")
        for _ in range(3):
            await world.advance(seconds=1)
        assert await lines(world, taker.app) == [("b", 2, Reason.DEAD), ("b", 3, Reason.BEHIND)]
        effects = [(one.key, one.n) for one in await payloads(world, taker.app, Noted)]
        assert len(effects) == 7
        assert in_order(effects)


@played
async def test_something_cancelled_within_a_handler_is_a_failure_like_any_other():
    import asyncio

    producer = shop()
    app = App("mail")
    calls: list[Message] = []

    @app.on(Bumped)
    async def careless(event: Bumped, message: Message) -> None:
        calls.append(message)
        if message.attempt == 1:
            waiting = asyncio.ensure_future(asyncio.sleep(60))
            waiting.cancel()
            await waiting

    async with Harness(producer, app) as world:
        await bump(producer, "a")
        await world.advance(seconds=1)
        assert [call.attempt for call in calls] == [1, 2]


@played
async def test_the_message_a_handler_asks_for_says_where_it_comes_from():
    from headwater import Metadata

    producer = shop()
    app = App("mail")
    seen: list[Message] = []

    @app.on(Bumped)
    async def look(event: Bumped, about: Message, unused: int = 3) -> None:
        seen.append(about)

    async with Harness(producer, app) as world:
        await producer.send(Bump("a"), metadata=Metadata("c-1", actor="ada", tenant="acme"))
        await world.settle()
        [one] = seen
        assert (one.type, one.stream, one.version, one.attempt) == ("shop.Bumped", "acme:shop.Counter/a", 1, 1)
        assert (one.metadata.correlation_id, one.metadata.actor, one.metadata.tenant) == ("c-1", "ada", "acme")
        assert one.key == one.stream
        assert one.id


@played
async def test_what_a_message_causes_carries_its_correlation_and_names_it_as_the_cause():
    from headwater import Metadata

    producer, taker = shop(), Taker(model=False)
    async with Harness(producer, taker.app) as world:
        await producer.send(Bump("a"), metadata=Metadata("c-1", traceparent="t", actor="ada", tenant="acme"))
        await world.settle()
        [cause] = await world.databases["shop"].read(0, 10)
        [effect] = await world.databases["mail"].read(0, 10)
        assert effect.stream == "acme:mail.note/a"
        assert effect.metadata == Metadata("c-1", cause.id, "t", "ada", "acme")


@played
async def test_the_first_message_of_the_next_batch_waits_behind_a_retry_in_flight():
    """The message that fails and those behind it come in different batches."""
    producer, taker = shop(), Taker(model=False, batch=1)
    taker.fail("a", 1, times=1)
    async with Harness(producer, taker.app) as world:
        await bump(producer, *"aaab")
        await world.settle()
        assert taker.calls == [("a", 1), ("b", 1)]
        await world.advance(seconds=1)
        assert taker.calls == [("a", 1), ("b", 1), ("a", 1), ("a", 2), ("a", 3)]


@played
async def test_conflicts_and_channel_errors_of_a_handler_are_retried_like_any_other():
    producer, taker = shop(), Taker(model=False)
    taker.fail("a", 1, Conflict("x"), times=1)
    taker.fail("b", 1, ChannelError("x"), times=1)
    async with Harness(producer, taker.app) as world:
        await world.channel.publish(
            [publication(A, 1, "shop.Bumped", Bumped("a", 1)), publication(B, 1, "shop.Bumped", Bumped("b", 1))]
        )
        await world.advance(seconds=1)
        assert sorted(taker.calls) == [("a", 1)] * 2 + [("b", 1)] * 2
        assert await world.held(taker.app) == []
