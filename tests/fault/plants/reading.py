"""Bugs of what is encoded and decoded: values that change, bytes that two readers take differently, versions that are skipped."""

from __future__ import annotations

from typing import Any
from unittest import mock

from headwater import schema, wire
from headwater.clock import SystemClock, uuid7
from headwater.schema import MessageType, Schema
from tests.fault.plants.detectors import Rig, Suite
from tests.fault.plants.plant import Patch, Promise, planted

SCHEMA = "tests/unit/test_message_schema.py"


@planted(Promise.ATOMIC, Suite(SCHEMA))
def nan_reaches_the_log() -> Patch:
    """What is stored is not compared with what was given: NaN comes back as nothing."""
    return mock.patch.object(MessageType, "_check_equal", lambda *_: None)


@planted(Promise.ATOMIC, Suite("tests/unit/test_schema_decoding.py"))
def duplicate_json_key_taken() -> Patch:
    """Of a key that is there twice, the last counts."""
    return mock.patch.object(schema, "_no_duplicates", dict)


@planted(
    Promise.NOTHING_LOST,
    Suite("tests/unit/test_schema_decoding.py"),
    Suite("tests/flow/test_handling.py::test_an_aggregate_is_folded_from_events_of_older_versions", says="not enough"),
)
def upcaster_skipped_on_replay() -> Patch:
    """An older event is read as one of the present version."""
    old = Schema._decode_old

    def skip(self: Any, name: str, version: int, fields: Any) -> Any:
        found = self._by_name.get(name)
        return found.convert(fields) if found is not None else old(self, name, version, fields)

    return mock.patch.object(Schema, "_decode_old", skip)


@planted(Promise.EFFECT_ONCE, Suite("tests/unit/test_clock.py"))
def ids_not_unique() -> Patch:
    """Ids of one millisecond are the same."""
    return mock.patch.object(SystemClock, "new_id", lambda self: uuid7(self.now() // 1000 * 1000, 1))


@planted(Promise.NO_SILENT_GAP, Rig("fuzz", "wire", range(1, 4)))
def number_of_any_length_taken() -> Patch:
    """An attribute of a message may be any number, though no column holds it."""
    return mock.patch.object(wire, "MAX_DIGITS", 4_000)


@planted(Promise.THREE_VALUED, Suite("tests/unit/test_schema_decoding.py"))
def nesting_without_a_bound() -> Patch:
    """JSON from outside may be nested as deep as it likes."""
    return mock.patch.object(schema, "check_depth", lambda data: None)
