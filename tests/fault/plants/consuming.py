"""Bugs of a consumer's inbox: what is acknowledged, marked or passed before it is done or held."""

from __future__ import annotations

import importlib
from contextlib import ExitStack
from typing import Any
from unittest import mock

import msgspec

from headwater import fault
from headwater.consumer import consumer, custody
from headwater.consumer.arrival import Outcome
from headwater.consumer.consumer import Consumer
from headwater.consumer.feed import Feed
from headwater.consumer.sources import LogSource
from headwater.database import WriteSet
from headwater.relay import Tallying
from headwater.repair import Asking
from headwater.store import Committed
from tests.fault.plants.detectors import Rig, Suite, kill
from tests.fault.plants.plant import Patch, Promise, planted

JUDGE: Any = importlib.import_module("headwater.database.judge")
DELIVERY = "tests/flow/test_delivery.py::"
NEVER = "has not come to an end|never|lost|missing"
"""What is lost is waited for in vain."""
GAPS = "tests/flow/test_gaps.py::"


@planted(
    Promise.NOTHING_LOST, Rig("simulate", "did not come to rest"), kill("feed.acknowledged", NEVER), everywhere=True
)
def acknowledge_first() -> Patch:
    """A batch is acknowledged before anybody has custody of it, and no tally tells of what is lost."""
    run = Feed._run

    async def early(self: Any, batch: Any) -> None:
        await self.source.acknowledge(batch)
        subscription = getattr(self.source, "subscription", None)
        file = getattr(subscription, "_file", None) or getattr(subscription, "_desk", None)
        if file is not None:
            await file.flush()
        fault.point("feed.acknowledged")
        with mock.patch.object(type(self.source), "acknowledge", _nothing):
            await run(self, batch)

    stack = ExitStack()
    stack.enter_context(mock.patch.object(Feed, "_run", early))
    stack.enter_context(mock.patch.object(Tallying, "due", lambda *_, **__: []))
    return stack


@planted(Promise.NO_WINDOW, Rig("late", "times|other messages|grew"), Rig("simulate", "fell from|took"))
def inbox_that_forgets() -> Patch:
    """A consumer does not know what it has taken before."""
    sort = custody.sort_delivered

    def forgetful(name: str, messages: Any, marks: dict[str, int], *rest: Any, **options: Any) -> Any:
        return sort(name, messages, dict.fromkeys(marks, 0), *rest, **options)

    return mock.patch.object(consumer, "sort_delivered", forgetful)


@planted(Promise.EFFECT_ONCE, Suite(f"{DELIVERY}test_two_processes_that_take_the_same_batch_have_its_effect_once"))
def mark_set_from_anywhere() -> Patch:
    """A batch that another process has taken meanwhile is settled all the same."""
    return mock.patch.object(JUDGE, "_inbox_broken", lambda write, facts: "")


@planted(Promise.EFFECT_ONCE, Rig("simulate", "neither done nor held"), kill("consumer.ran", NEVER), everywhere=True)
def mark_before_effect() -> Patch:
    """Marks and checkpoints are committed before the effects, in a transaction of their own."""
    run = Consumer._run

    async def early(self: Any, arrivals: Any, settle: Any) -> Any:
        wanted: WriteSet = settle(Outcome())
        await self.database.commit([WriteSet(marks=wanted.marks, checkpoints=wanted.checkpoints)])
        fault.point("consumer.ran")

        def rest(outcome: Outcome) -> WriteSet:
            return msgspec.structs.replace(settle(outcome), marks=[], checkpoints=outcome.checkpoints)

        return await run(self, arrivals, rest)

    return mock.patch.object(Consumer, "_run", early)


@planted(Promise.EFFECT_ONCE, Rig("simulate", "took|twice|neither done nor held|finished already"))
def checkpoint_in_its_own_transaction() -> Patch:
    """The checkpoint of a log consumer is committed after its effects, in a transaction of its own."""
    run = Consumer._run

    async def apart(self: Any, arrivals: Any, settle: Any) -> Any:
        places = list(settle(Outcome()).checkpoints)

        def effects(outcome: Outcome) -> WriteSet:
            return msgspec.structs.replace(settle(outcome), checkpoints=outcome.checkpoints)

        outcome, answer = await run(self, arrivals, effects)
        if isinstance(answer, Committed):
            fault.point("consumer.committed")
            await self.database.commit([WriteSet(checkpoints=places)])
        return outcome, answer

    return mock.patch.object(Consumer, "_run", apart)


@planted(Promise.NOTHING_LOST, Rig("simulate", "neither done nor held|did not come to rest"))
def naive_cursor() -> Patch:
    """A consumer of the log goes on from the head of the log, not from what it has read."""
    fetch = LogSource.fetch

    async def skip(self: Any, limit: int) -> Any:
        batch = await fetch(self, limit)
        if batch is None or batch.checkpoint is None:
            return batch
        self._fetched = await self.database.head()
        return msgspec.structs.replace(
            batch, checkpoint=msgspec.structs.replace(batch.checkpoint, position=self._fetched)
        )

    return mock.patch.object(LogSource, "fetch", skip)


@planted(
    Promise.NO_SILENT_GAP,
    Suite(f"{GAPS}test_a_gap_holds_its_key_is_asked_for_and_is_filled_in_order"),
    Rig("simulate", "neither done nor held|took"),
)
def gap_accepted() -> Patch:
    """A message is taken though the one before it has not come."""
    sort = custody.sort_delivered

    def blind(name: str, messages: Any, *rest: Any, **options: Any) -> Any:
        known = {(one.stream, one.version): one for one in messages}
        found = sort(name, [msgspec.structs.replace(one, previous=0) for one in messages], *rest, **options)
        found.fresh = [known[one.stream, one.version] for one in found.fresh]
        return found

    return mock.patch.object(consumer, "sort_delivered", blind)


@planted(
    Promise.NO_SILENT_GAP,
    Suite(f"{GAPS}test_a_request_that_was_lost_is_sent_again"),
)
def gap_asked_for_once() -> Patch:
    """What was asked for is never asked for again."""
    step = Asking.step

    async def once(self: Any) -> bool:
        worked = await step(self)
        self._asked = dict.fromkeys(self._asked, 1 << 62)
        return worked

    return mock.patch.object(Asking, "step", once)


@planted(Promise.NOTHING_LOST, Rig("simulate", "neither done nor held"))
def mark_passes_what_nothing_holds() -> Patch:
    """A message behind one that is held is marked, and kept nowhere."""
    sort = custody.sort_delivered

    def lose(*arguments: Any, **options: Any) -> Any:
        found = sort(*arguments, **options)
        found.holds = [row for row in found.holds if row.reason is not custody.Reason.BEHIND]
        return found

    return mock.patch.object(consumer, "sort_delivered", lose)


async def _nothing(*_: Any) -> None:
    pass
