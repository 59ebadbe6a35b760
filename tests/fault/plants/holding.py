"""Bugs about what failed: keys that are not held, dead letters that do not park, crashes charged to the innocent, effects repeated."""

from __future__ import annotations

from typing import Any
from unittest import mock

from headwater.adapters.memory import MemoryDatabase
from headwater.consumer import CommandWorker, custody, handlers, retrying
from headwater.consumer.failing import Failing
from headwater.consumer.feed import Feed
from headwater.consumer.once import Once
from headwater.inbox import Reason
from headwater.retry import Breaker
from tests.fault.plants.detectors import Rig, Suite, kill
from tests.fault.plants.plant import Patch, Promise, planted

CRASHES = "tests/flow/test_crashes.py::"
RETRIES = "tests/flow/test_retries.py::"
ONCE = "tests/flow/test_once.py::"


@planted(Promise.NOTHING_LOST, Rig("simulate", "neither done nor held"))
def failed_message_not_held() -> Patch:
    """A message that failed is dropped."""
    return mock.patch.object(Failing, "holds", lambda *_: [])


@planted(
    Promise.ORDER,
    Suite(f"{RETRIES}test_order_per_key_is_kept_through_retries"),
    Rig("simulate", "and holds|took|was mailed as|was heard twice"),
)
def failed_message_does_not_hold_its_key() -> Patch:
    """What comes after a held message of its key is run at once."""

    async def nothing(*_: Any) -> set[str]:
        return set()

    return mock.patch.object(MemoryDatabase, "held_keys", nothing)


@planted(Promise.ORDER, Suite(f"{RETRIES}test_after_the_last_attempt_it_is_a_dead_letter_that_parks_its_key"))
def dead_letter_does_not_park() -> Patch:
    """What is behind a dead letter has its turn."""
    turns = MemoryDatabase.held_of

    async def passing(self: Any, *arguments: Any) -> Any:
        return [row for row in await turns(self, *arguments) if row.reason is not Reason.DEAD]

    async def keys(self: Any, consumer: str, wanted: Any) -> set[str]:
        return {row.key for key in wanted for row in await passing(self, consumer, key, 1_000)}

    return mock.patch.multiple(MemoryDatabase, held_of=passing, held_keys=keys)


@planted(Promise.ORDER, Suite(f"{RETRIES}test_a_redriven_message_runs_first_and_what_is_behind_it_follows_in_order"))
def redrive_out_of_order() -> Patch:
    """The held messages of a key run from the last to the first."""
    lane = custody.lane_of
    return mock.patch.object(retrying, "lane_of", lambda rows, marks: lane(rows, marks)[::-1])


@planted(
    Promise.EFFECT_ONCE, Suite(f"{CRASHES}test_innocent_messages_are_never_charged_however_often_the_process_dies")
)
def killed_batch_charged_as_a_whole() -> Patch:
    """Every message that was in flight at a crash is charged an attempt."""
    suspect = Feed._suspect

    async def charge(self: Any, batch: Any) -> None:
        await suspect(self, batch)
        self._crashed |= self._suspects

    return mock.patch.object(Feed, "_suspect", charge)


@planted(
    Promise.NOTHING_LOST,
    Suite(
        f"{CRASHES}test_a_message_that_kills_its_process_is_found_and_parked_and_all_others_are_done",
        says="Assertion|Timeout",
    ),
)
def attempts_counted_after() -> Patch:
    """What is in hand is noted when it has been run, so that a message that kills its process is never charged."""

    async def nothing(*_: Any) -> None:
        pass

    take = Feed._take
    return mock.patch.multiple(Feed, _note=nothing, _take=lambda self, batch, noted: take(self, batch, []))


@planted(
    Promise.EFFECT_ONCE,
    Suite(f"{ONCE}test_a_call_that_fails_otherwise_is_uncertain_listed_and_never_repeated"),
    Suite(f"{ONCE}test_a_crash_in_between_is_uncertain_and_a_crash_after_is_not"),
    kill("once.called", "told outside|twice"),
    everywhere=True,
)
def once_repeated_blindly() -> Patch:
    """An outside effect whose outcome is not known is tried again."""
    call = Once.__call__
    return mock.patch.object(Once, "__call__", lambda self, name, what, **_: call(self, name, what, repeat=True))


@planted(Promise.EFFECT_ONCE, Suite(f"{ONCE}test_a_crash_in_between_is_uncertain_and_a_crash_after_is_not"))
def once_without_an_intent() -> Patch:
    """An outside effect is noted when it is done, and not before."""
    store = Once._store

    async def done_alone(self: Any, step: Any) -> None:
        if step.done:
            await store(self, step)

    return mock.patch.object(Once, "_store", done_alone)


@planted(
    Promise.NOTHING_LOST,
    Suite(f"{RETRIES}test_order_per_key_is_kept_through_retries"),
)
def rest_of_a_lane_forgotten() -> Patch:
    """What comes behind a failed message in its batch counts as done."""

    def fail(outcome: Any, lane: Any, place: int, error: Exception) -> None:
        outcome.failures[lane[place][0]] = error

    return mock.patch.object(handlers, "fail", fail)


@planted(
    Promise.NOTHING_LOST,
    Suite("tests/flow/test_outages.py::test_an_outage_parks_nothing_stops_fetching_and_resumes_by_itself"),
)
def outage_counted_as_failures() -> Patch:
    """Messages are tried in an outage until they are dead letters."""
    return mock.patch.object(Breaker, "failure", lambda self, key: None)


@planted(
    Promise.NOTHING_LOST,
    Suite("tests/flow/test_commands.py::test_a_refusal_settles_the_command_and_goes_back_to_its_sender_alone"),
)
def refusal_not_sent_back() -> Patch:
    """A command that is refused is settled, and nobody hears of it."""
    return mock.patch.object(CommandWorker, "_refuse", lambda *_: None)
