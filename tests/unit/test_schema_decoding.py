"""Stored and foreign data: decoded, strictly checked, and brought up to date."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Any

import pytest

from headwater.errors import DeclarationError, SchemaError
from headwater.message import Declared, Event
from headwater.schema import MAX_BYTES, MAX_DEPTH, Schema, check_depth, check_size, check_strict


class Withdrawn(Event):
    account_id: str
    cents: int


class Measured(Event):
    value: float | None
    extra: Any = None


# --- decoding ---


@pytest.fixture
def bank() -> Schema:
    schema = Schema("bank")
    schema.add(Withdrawn)
    schema.add(Measured)
    return schema


@pytest.mark.parametrize(
    "data",
    [b"", b"{", b"null", b"[]", b"5", b'{"account_id":"a"}', b'{"account_id":5,"cents":5}', b'{"account_id":"a","cents":5.5}',
     b'{"account_id":"\xff","cents":5}', b"\xff\xfe", b'{"account_id":"a","cents":5} x', b"[" * 100_000],
)  # fmt: skip
def test_malformed_data_is_a_schema_error(bank, data):
    for decode in (bank.decode, bank.decode_strict):
        with pytest.raises(SchemaError, match=r"bank\.Withdrawn version 1|deeper"):
            decode("bank.Withdrawn", 1, data)


def test_a_field_that_is_not_known_is_passed_over(bank):
    data = b'{"account_id":"a","cents":5,"new":{"x":[1]}}'
    assert bank.decode("bank.Withdrawn", 1, data) == bank.decode_strict("bank.Withdrawn", 1, data) == Withdrawn("a", 5)


def test_an_unknown_type_is_a_schema_error_that_lists_the_known(bank):
    for ask in (lambda: bank.decode("bank.Nothing", 1, b"{}"), lambda: bank.named("bank.Nothing")):
        with pytest.raises(SchemaError, match=r"bank\.Measured, bank\.Withdrawn"):
            ask()
    assert not bank.knows("bank.Nothing")
    assert bank.knows("bank.Withdrawn")


def test_a_version_from_the_future_says_to_upgrade(bank):
    with pytest.raises(SchemaError, match="upgrade the app"):
        bank.decode("bank.Withdrawn", 2, b'{"account_id":"a","cents":5}')


def test_an_error_in_a_users_class_is_a_schema_error():
    @dataclass
    class Touchy:
        cents: int

        def __post_init__(self) -> None:
            raise KeyError("cents")

    schema = Schema("bank")
    schema.add(Touchy, Declared("event"))
    with pytest.raises(SchemaError, match="KeyError"):
        schema.decode("bank.Touchy", 1, b'{"cents":1}')


# --- strict checks of what comes from outside ---

OPEN = b'{"value":1.0,"extra":%s}'


@pytest.mark.parametrize(
    "extra",
    [b'{"a":1,"a":2}', b'{"a":1,"\\u0061":2}', b"NaN", b"Infinity", b"-Infinity", b"1e999", b'"\\ud800"', b'"\\udc00x"',
     b'{"\\ud800":1}', b'"\xff"', b"[" * 64 + b"]" * 64, b"{,}", b"01", b"'x'", b"1 // c"],
)  # fmt: skip
def test_what_two_readers_could_take_differently_is_refused_from_outside(bank, extra):
    with pytest.raises(SchemaError):
        bank.decode_strict("bank.Measured", 1, OPEN % extra)
    with pytest.raises(SchemaError):
        check_strict(OPEN % extra)


@pytest.mark.parametrize(
    "extra", [b'{"a":1,"b":1}', b'"\\ud83d\\udca7"', b"1e3", b'" [[[{{{ \\" "', b"[" * 63 + b"]" * 63, b"1.0"]
)
def test_strict_data_may_be_written_in_its_own_way(bank, extra):
    spaced = b'{ "extra" : %s , "value" : 1 }\n' % extra
    payload = bank.decode_strict("bank.Measured", 1, spaced)
    assert payload == Measured(1.0, json.loads(extra))
    assert check_strict(spaced)["extra"] == json.loads(extra)


def test_a_key_twice_is_refused_even_where_the_field_is_known(bank):
    with pytest.raises(SchemaError, match="twice"):
        bank.decode_strict("bank.Withdrawn", 1, b'{"account_id":"a","cents":5,"cents":6}')
    assert bank.decode("bank.Withdrawn", 1, b'{"account_id":"a","cents":5,"cents":6}').cents == 6


def test_a_key_twice_is_refused_in_old_versions_too(bank):
    class Opened(Event, version=2):
        owner: str

    bank.add(Opened)
    bank.upcast("bank.Opened", 1, lambda fields: fields)
    assert bank.decode_strict("bank.Opened", 1, b'{"owner":"a"}') == Opened("a")
    with pytest.raises(SchemaError, match="twice"):
        bank.decode_strict("bank.Opened", 1, b'{"owner":"a","owner":"b"}')


def test_more_than_a_mebibyte_is_refused_from_outside(bank):
    most = b" " * MAX_BYTES
    check_size(most)
    for check in (check_size, check_strict, lambda data: bank.decode_strict("bank.Withdrawn", 1, data)):
        with pytest.raises(SchemaError, match="over the limit"):
            check(most + b" ")


@pytest.mark.parametrize("brackets", [(b"[", b"]"), (b'{"a":', b"}")])
def test_depth_counts_nesting_and_not_brackets(brackets):
    opening, closing = brackets
    check_depth(opening * MAX_DEPTH + b"1" + closing * MAX_DEPTH)
    with pytest.raises(SchemaError, match="deeper"):
        check_depth(opening * (MAX_DEPTH + 1) + b"1" + closing * (MAX_DEPTH + 1))
    check_depth(b"[" + b"[]," * 1_000 + b"[]]")
    check_depth(b'["' + b"[" * 1_000 + b'"]')
    check_depth(b'["\\"' + b"[" * 1_000 + b'"]')
    with pytest.raises(SchemaError, match="deeper"):
        check_depth(b'["\\\\"' + b"[" * 1_000 + b"]")


def test_depth_is_found_soon_whatever_the_data():
    halves = MAX_BYTES // 2
    deep = b"[" * MAX_DEPTH + b"]" * MAX_DEPTH
    for data in (b'"' + b'\\"' * halves, b"[]" * halves, deep * (MAX_BYTES // len(deep)), b'"a":[],' * 149_000):
        check_depth(data)
    for data in (b"[" * MAX_BYTES, b"[" * halves + b"]" * halves):
        with pytest.raises(SchemaError, match="deeper"):
            check_depth(data)


def test_numbers_of_thousands_of_digits_are_refused():
    with pytest.raises(SchemaError):
        check_strict(b"[" + b"9" * 5_000 + b"]")


# --- upcasters ---


class Opened(Event, stored="bank.AccountOpened", version=4):
    owner: str
    cents: int
    tags: dict[int, str] = {}


def upcasting() -> Schema:
    schema = Schema("bank")
    schema.add(Opened)
    schema.upcast("bank.NewAccount", 1, lambda fields: {**fields, "euros": 0})
    schema.upcast("bank.NewAccount", 2, lambda fields: {**fields, "owner": fields["name"]}, to="bank.AccountOpened")
    schema.upcast("bank.AccountOpened", 3, lambda fields: {**fields, "cents": fields["euros"] * 100})
    return schema


@pytest.mark.parametrize(
    ("name", "version", "data", "payload"),
    [
        ("bank.NewAccount", 1, b'{"name":"Ada"}', Opened("Ada", 0)),
        ("bank.NewAccount", 2, b'{"name":"Ada","euros":3}', Opened("Ada", 300)),
        ("bank.AccountOpened", 3, b'{"owner":"Ada","euros":3,"tags":{"1":"x"}}', Opened("Ada", 300, {1: "x"})),
        ("bank.AccountOpened", 4, b'{"owner":"Ada","cents":3}', Opened("Ada", 3)),
    ],
)
def test_old_versions_and_old_names_come_up_to_date_step_by_step(name, version, data, payload):
    schema = upcasting()
    assert schema.decode(name, version, data) == schema.decode_strict(name, version, data) == payload
    assert schema.knows(name)


@pytest.mark.parametrize(
    ("name", "version", "what"),
    [
        ("bank.AccountOpened", 1, "no upcaster to 2"),
        ("bank.AccountOpened", 5, "newer than this app's version 4"),
        ("bank.NewAccount", 3, "unknown message type 'bank.NewAccount'"),
        ("bank.NewAccount", 0, "unknown message type"),
    ],
)
def test_a_version_without_a_way_up_is_a_schema_error_that_says_what_is_missing(name, version, what):
    with pytest.raises(SchemaError, match=what):
        upcasting().decode(name, version, b'{"name":"Ada"}')


@pytest.mark.parametrize("data", [b"{}", b"[]", b"5", b'{"name":"Ada","euros":"many"}', b'{"name":7}', b"{"])
def test_an_upcaster_that_fails_is_a_schema_error(data):
    with pytest.raises(SchemaError, match=r"bank\.NewAccount version 2"):
        upcasting().decode("bank.NewAccount", 2, data)


def test_two_upcasters_from_one_version_are_refused():
    schema = upcasting()
    with pytest.raises(DeclarationError, match="two upcasters"):
        schema.upcast("bank.NewAccount", 1, lambda fields: fields)


# --- names, and what an error says ---


def test_the_names_of_a_class_are_its_own_and_those_that_lead_to_it():
    schema = Schema("bank")
    schema.add(Withdrawn)
    schema.add(Measured)
    assert schema.names(Withdrawn) == {"bank.Withdrawn"}
    schema.upcast("bank.Taken", 1, lambda fields: fields, to="bank.Withdrawn")
    schema.upcast("old.Taken", 1, lambda fields: fields, to="bank.Taken")
    schema.upcast("bank.Gauged", 1, lambda fields: fields, to="bank.Measured")
    assert schema.names(Withdrawn) == {"bank.Withdrawn", "bank.Taken", "old.Taken"}
    assert schema.names(Measured) == {"bank.Measured", "bank.Gauged"}


def test_a_name_is_known_by_its_class_or_by_an_upcaster():
    schema = Schema("bank")
    schema.add(Withdrawn)
    schema.upcast("bank.Taken", 1, lambda fields: fields, to="bank.Withdrawn")
    assert [schema.knows(name) for name in ("bank.Withdrawn", "bank.Taken", "bank.Other")] == [True, True, False]


def test_a_schema_that_knows_nothing_says_so():
    with pytest.raises(SchemaError, match=r": none$"):
        Schema("bank").named("bank.Withdrawn")


@pytest.mark.parametrize(
    ("error", "said"),
    [(ValueError("no cents"), r"version 1: no cents$"), (KeyError("cents"), r"version 1: KeyError: 'cents'$")],
    ids=["value", "other"],
)
def test_an_error_of_an_upcaster_is_told_in_its_own_words(error, said):
    def fail(fields: dict[str, Any]) -> dict[str, Any]:
        raise error

    schema = Schema("bank")
    schema.add(Withdrawn, Declared("event", version=2))
    schema.upcast("bank.Withdrawn", 1, fail)
    with pytest.raises(SchemaError, match=said):
        schema.decode("bank.Withdrawn", 1, b"{}")


def test_a_key_twice_is_refused_where_the_class_cannot_be_written_again():
    @dataclass
    class Opened:
        owner: str

        def __post_init__(self) -> None:
            self.owner = object()  # type: ignore[assignment]

    schema = Schema("bank")
    schema.add(Opened, Declared("event"))
    assert schema.decode_strict("bank.Opened", 1, b'{"owner":"ada"}')
    with pytest.raises(SchemaError, match=r"not strict JSON: an object has the same key twice$"):
        schema.decode_strict("bank.Opened", 1, b'{"owner":"ada","owner":"ada"}')
