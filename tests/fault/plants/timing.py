"""Bugs of timers and sagas: what fires twice or never, and states written over one another."""

from __future__ import annotations

import importlib
from typing import Any
from unittest import mock

import msgspec

from headwater import fault
from headwater.database import WriteSet
from headwater.saga.worker import Instance, NotStarted, SagaWorker
from headwater.scheduler import Scheduler
from tests.fault.plants.detectors import Rig, Suite
from tests.fault.plants.plant import Patch, Promise, planted

JUDGE: Any = importlib.import_module("headwater.database.judge")
CONTRACT = "tests/contract/test_database_sqlite.py::TestSqliteDatabase::"
TIMERS = "tests/flow/test_timers.py::"


@planted(
    Promise.NOTHING_LOST,
    Suite(f"{TIMERS}test_a_crash_while_it_fires_neither_loses_nor_doubles_it"),
    Rig("simulate", "come to rest|in the log twice"),
)
def timer_deleted_before_its_message_is_stored() -> Patch:
    """A due timer is removed in one transaction, and its message logged in the next."""

    async def step(self: Any) -> bool:
        due = [self._fire(timer) for timer in await self.database.timers_due(self.clock.now(), 500)]
        for one in due:
            await self.database.commit([WriteSet(cancels=one.cancels)])
            fault.point("timer.due")
            await self.database.commit([WriteSet(appends=one.appends)])
        return bool(due)

    return mock.patch.object(Scheduler, "step", step)


@planted(
    Promise.EFFECT_ONCE,
    Suite(f"{TIMERS}test_two_schedulers_fire_a_timer_once"),
    Suite(f"{TIMERS}test_a_timer_that_was_moved_while_it_was_being_fired_stays_moved"),
)
def timer_fired_whether_or_not_it_is_there() -> Patch:
    """A due timer is fired though another has fired, moved or cancelled it meanwhile."""
    fire = Scheduler._fire

    def anyhow(self: Any, timer: Any) -> WriteSet:
        wanted = fire(self, timer)
        return msgspec.structs.replace(
            wanted, fence=None, cancels=[msgspec.structs.replace(one, must=False) for one in wanted.cancels]
        )

    return mock.patch.object(Scheduler, "_fire", anyhow)


@planted(
    Promise.ATOMIC,
    Suite(f"{CONTRACT}test_a_state_moves_only_from_the_version_it_is_at"),
    Suite("tests/flow/test_sagas.py::test_an_instance_that_another_process_has_moved_is_loaded_again"),
    everywhere=True,
)
def saga_state_written_over() -> Patch:
    """The state of a saga is written though another has moved it meanwhile."""
    broken = JUDGE._instances_broken

    def blind(write: WriteSet, facts: Any) -> str:
        return str(broken(msgspec.structs.replace(write, sagas=()), facts))

    return mock.patch.object(JUDGE, "_instances_broken", blind)


@planted(
    Promise.NOTHING_LOST,
    Suite(
        "tests/flow/test_sagas.py::test_a_message_for_no_instance_is_held_until_one_starts_however_late",
        says="expected 1, got 0",
    ),
)
def early_saga_message_dropped() -> Patch:
    """A message that comes before its saga has begun is dropped as one that comes after its end."""
    load = SagaWorker._load

    def drop(self: Any, *arguments: Any) -> Any:
        try:
            return load(self, *arguments)
        except NotStarted:
            return Instance(0, None, [], ended=True)

    return mock.patch.object(SagaWorker, "_load", drop)
