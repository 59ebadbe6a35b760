"""`once`: an outside effect happens at most once for a message and a name, or is uncertain and listed for a person."""

from __future__ import annotations

import asyncio
from datetime import datetime
from typing import Any

import pytest

from headwater import App, DatabaseError, Event, NotDone, Once, Retry
from headwater.adapters.memory import MemoryDatabase
from headwater.database import WriteSet
from headwater.inbox import Reason, Step
from headwater.testing.clock import VirtualClock
from headwater.testing.harness import Harness
from tests.flow.rig import Killed, any_set, failing_commits, played, redrive
from tests.flow.shop import Bump, Bumped, shop


class Charged(Event):
    key: str
    receipt: Any


class Till:
    """A handler that charges a card through `once`, and the card company it calls."""

    def __init__(self, *, repeat: bool = False, **options: Any) -> None:
        self.app = App("mail", retry=Retry(attempts=4, base=0.1), **options)
        self.charges: list[str] = []
        self.before: list[BaseException] = []
        self.during: list[BaseException] = []
        self.after: list[BaseException] = []
        self.outcome: Any = {"receipt": 7}
        self.seen: list[Any] = []

        @self.app.on(Bumped)
        async def charge(event: Bumped, once: Once) -> Charged:
            if self.before:
                raise self.before.pop()
            receipt = await once("charge", self.call, repeat=repeat)
            self.seen.append(receipt)
            if self.after:
                raise self.after.pop()
            return Charged(event.key, receipt)

    async def call(self, key: str) -> Any:
        self.charges.append(key)
        if self.during:
            raise self.during.pop()
        return self.outcome


async def played_out(world: Harness) -> None:
    for _ in range(8):
        await world.advance(seconds=1)


@played
async def test_the_outcome_is_stored_and_the_call_not_repeated_on_a_retry():
    producer, till = shop(), Till()
    till.after = [RuntimeError("later"), RuntimeError("later")]
    async with Harness(producer, till.app) as world:
        await producer.send(Bump("a"))
        await played_out(world)
        assert len(till.charges) == 1
        assert till.seen == [{"receipt": 7}] * 3
        assert await world.held(till.app) == []


@played
async def test_the_outcome_is_the_same_value_at_first_and_on_a_retry():
    producer, till = shop(), Till()
    till.outcome = ({"at": datetime(2026, 1, 2)}, 3)  # noqa: DTZ001 - any value will do
    till.after = [RuntimeError("later")]
    async with Harness(producer, till.app) as world:
        await producer.send(Bump("a"))
        await played_out(world)
        assert till.seen == [[{"at": "2026-01-02T00:00:00"}, 3]] * 2


@played
async def test_its_key_is_the_same_for_every_attempt_and_another_for_every_message_and_name():
    producer, till = shop(), Till(repeat=True)
    till.during = [RuntimeError(), RuntimeError()]
    async with Harness(producer, till.app) as world:
        await producer.send(Bump("a"))
        await played_out(world)
        assert len(till.charges) == 3
        assert len(set(till.charges)) == 1
        await producer.send(Bump("b"))
        await world.settle()
        assert len(set(till.charges)) == 2
        one = Once(world.databases["mail"], "mail.charge", "m")
        assert one.key("x") != one.key("y")
        assert one.key("x") != Once(world.databases["mail"], "mail.other", "m").key("x")


@played
async def test_not_done_clears_the_intent_and_it_may_be_tried_again():
    producer, till = shop(), Till()
    till.during = [NotDone("declined by the network"), NotDone("again")]
    async with Harness(producer, till.app) as world:
        await producer.send(Bump("a"))
        await played_out(world)
        assert len(till.charges) == 3
        assert till.seen == [{"receipt": 7}]
        assert await world.held(till.app) == []


@played
async def test_a_call_that_fails_otherwise_is_uncertain_listed_and_never_repeated():
    producer, till = shop(), Till()
    till.during = [TimeoutError("no answer")]
    async with Harness(producer, till.app) as world:
        await producer.send(Bump("a"))
        await producer.send(Bump("a"))
        await producer.send(Bump("b"))
        await played_out(world)
        assert len(till.charges) == 2, "of a and of b"
        rows = await world.held(till.app)
        assert [(row.key[-1], row.message.version, row.reason) for row in rows] == [
            ("a", 1, Reason.UNCERTAIN),
            ("a", 2, Reason.BEHIND),
        ]
        assert "TimeoutError" in rows[0].cause
        [step] = await world.databases["mail"].steps(None, None)
        assert (step.name, step.done) == ("charge", False)


@pytest.mark.parametrize("moment", ["in the call", "storing the outcome", "settling"])
@played
async def test_a_crash_in_between_is_uncertain_and_a_crash_after_is_not(moment):
    producer, till = shop(), Till()
    async with Harness(producer, till.app) as world:
        await producer.send(Bump("a"))
        database = world.databases["mail"]
        done = any_set(lambda write: any(step.done for step in write.steps))
        settled = any_set(lambda write: any(mark.consumer == "mail.charge" for mark in write.marks))
        if moment == "in the call":
            till.during = [Killed()]
        when = {"storing the outcome": done, "settling": settled}.get(moment, lambda writes: False)
        with failing_commits(database, Killed(), when), pytest.raises(Killed):
            await world.settle()
        await world.restart(till.app)
        await played_out(world)
        assert len(till.charges) == 1
        reasons = [row.reason for row in await world.held(till.app)]
        assert reasons == ([] if moment == "settling" else [Reason.UNCERTAIN])
        assert till.seen == ([{"receipt": 7}] * 2 if moment == "settling" else [])


@played
async def test_a_crash_before_the_intent_is_stored_calls_once():
    producer, till = shop(), Till()
    async with Harness(producer, till.app) as world:
        await producer.send(Bump("a"))
        with (
            failing_commits(world.databases["mail"], Killed(), any_set(lambda write: write.steps)),
            pytest.raises(Killed),
        ):
            await world.settle()
        await world.restart(till.app)
        await played_out(world)
        assert len(till.charges) == 1
        assert await world.held(till.app) == []


@pytest.mark.parametrize("done", [True, False])
@played
async def test_a_person_settles_what_is_uncertain(done):
    producer, till = shop(), Till()
    till.during = [TimeoutError()]
    async with Harness(producer, till.app) as world:
        await producer.send(Bump("a"))
        await played_out(world)
        [step] = await world.databases["mail"].steps(None, None)
        known = Step(step.consumer, step.message_id, step.name, done=done, outcome=b'"found it"', clear=not done)
        await world.databases["mail"].commit([WriteSet(steps=[known])])
        await redrive(world, till.app, (await world.held(till.app))[0])
        await played_out(world)
        assert len(till.charges) == (1 if done else 2)
        assert till.seen == (["found it"] if done else [{"receipt": 7}])
        assert await world.held(till.app) == []


@played
async def test_an_uncertain_message_that_is_redriven_without_a_word_is_uncertain_again():
    producer, till = shop(), Till()
    till.during = [TimeoutError()]
    async with Harness(producer, till.app) as world:
        await producer.send(Bump("a"))
        await played_out(world)
        await redrive(world, till.app, (await world.held(till.app))[0])
        await played_out(world)
        assert len(till.charges) == 1
        assert [row.reason for row in await world.held(till.app)] == [Reason.UNCERTAIN]


@pytest.mark.parametrize("crash", [True, False])
@played
async def test_a_call_that_may_be_repeated_is_repeated_with_the_same_key(crash):
    producer, till = shop(), Till(repeat=True)
    till.during = [Killed() if crash else TimeoutError()]
    async with Harness(producer, till.app) as world:
        await producer.send(Bump("a"))
        if crash:
            with pytest.raises(Killed):
                await world.settle()
            await world.restart(till.app)
        await played_out(world)
        assert len(till.charges) == 2
        assert len(set(till.charges)) == 1
        assert till.seen == [{"receipt": 7}]
        assert await world.held(till.app) == []


@pytest.mark.parametrize("raised", [True, False])
@played
async def test_an_intent_that_cannot_be_stored_calls_nobody(raised):
    producer, till = shop(), Till()
    async with Harness(producer, till.app) as world:
        await producer.send(Bump("a"))
        database, full = world.databases["mail"], DatabaseError("full")
        with failing_commits(database, full, any_set(lambda write: write.steps), answered=not raised):
            await world.settle()
        assert till.charges == []
        await played_out(world)
        assert len(till.charges) == 1


@played
async def test_an_outcome_that_cannot_be_stored_says_so_and_is_never_called_again():
    producer, till = shop(), Till()
    till.outcome = object()
    async with Harness(producer, till.app) as world:
        await producer.send(Bump("a"))
        await played_out(world)
        [row] = await world.held(till.app)
        assert row.reason is Reason.DEAD
        assert "return plain values" in row.cause
        await redrive(world, till.app, row)
        await played_out(world)
        assert len(till.charges) == 1


@played
async def test_two_effects_of_one_message_are_known_apart():
    producer = shop()
    app = App("mail", retry=Retry(attempts=3, base=0.1))
    calls: list[str] = []

    def calling(name: str) -> Any:
        async def call(key: str) -> str:
            calls.append(name)
            if calls.count(name) == 1 and name == "second":
                raise NotDone
            return name

        return call

    @app.on(Bumped)
    async def both(event: Bumped, once: Once) -> None:
        assert await once("first", calling("first")) == "first"
        assert await once("second", calling("second")) == "second"

    async with Harness(producer, app) as world:
        await producer.send(Bump("a"))
        await played_out(world)
        assert calls == ["first", "second", "second"]
        assert await world.held(app) == []
        assert await world.databases["mail"].steps(None, None) == []


@played
async def test_of_two_members_that_have_a_message_at_once_one_calls():
    """As when the channel gives the messages of a process that was stopped to another."""
    database = MemoryDatabase(VirtualClock())
    await database.open()
    calls: list[str] = []

    async def call(key: str) -> int:
        calls.append(key)
        return len(calls)

    members = [Once(database, "mail.charge", "m-1") for _ in range(2)]
    found = await asyncio.gather(*(once("charge", call) for once in members), return_exceptions=True)
    assert (len(calls), found[0], type(found[1])) == (1, 1, DatabaseError)
    assert await members[1]("charge", call) == 1
