"""Bugs of leases and of waking: stale holders that write, and waiters that nobody wakes."""

from __future__ import annotations

import importlib
from typing import Any
from unittest import mock

import msgspec

from headwater.adapters.sqlite import lease
from headwater.adapters.sqlite.lease import LeaseHolder, SqliteLease
from headwater.adapters.sqlite.wake import Listener
from headwater.database import WriteSet
from tests.fault.plants.detectors import Suite
from tests.fault.plants.plant import Patch, Promise, planted

JUDGE: Any = importlib.import_module("headwater.database.judge")
CONTRACT = "tests/contract/test_database_sqlite.py::TestSqliteDatabase::"
LEASE = "tests/contract/test_sqlite_lease.py::"


@planted(Promise.EFFECT_ONCE, Suite(f"{CONTRACT}test_a_set_of_another_epoch_writes_nothing"), everywhere=True)
def lease_without_epoch() -> Patch:
    """Who once had a lease writes under it for ever."""
    broken = JUDGE._log_broken

    def blind(write: WriteSet, facts: Any) -> str:
        return str(broken(msgspec.structs.replace(write, fence=None), facts))

    return mock.patch.object(JUDGE, "_log_broken", blind)


@planted(Promise.EFFECT_ONCE, Suite(f"{CONTRACT}test_epochs_only_rise"))
def take_over_at_the_same_epoch() -> Patch:
    """A lease is taken over without raising its epoch."""
    return mock.patch.object(lease, "TAKE", lease.TAKE.replace("?, ?, ?, ?", "?1, ?2, min(?3, 1), ?4"))


@planted(Promise.EFFECT_ONCE, Suite(f"{CONTRACT}test_a_lease_has_one_holder"))
def lease_taken_from_a_living_holder() -> Patch:
    """A lease is taken whoever has it."""
    return mock.patch.object(LeaseHolder, "_ours", lambda *_: True)


@planted(Promise.EFFECT_ONCE, Suite(f"{LEASE}test_a_lease_that_cannot_be_renewed_is_not_held_for_long"))
def lease_held_though_not_renewed() -> Patch:
    """Who could not renew its lease goes on as if it had it."""
    return mock.patch.object(SqliteLease, "held", property(lambda self: not self.lost))


@planted(
    Promise.NOTHING_LOST,
    Suite("tests/contract/test_sqlite_wake.py::test_without_hints_a_look_now_and_then_finds_it", slow=True),
)
def lost_hint_without_a_poll() -> Patch:
    """Who waits for news looks only when a hint comes."""
    return mock.patch.object(Listener, "_poll", lambda self: None)
