"""The wire: a message as CloudEvents attributes and a body, out and in again."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from headwater.errors import SchemaError
from headwater.message import JSON, Metadata, Recorded, encode_metadata, encode_metadata_as_json
from headwater.wire import KINDS, from_headers, to_headers

META = Metadata("c-1", "m-0", "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01", "ädä", "acme")
TIME = 1_767_225_600_123_456


def message(**changed: object) -> Recorded:
    fields: dict[str, object] = {
        "position": 42,
        "stream": "acme:bank.Account/ä 1",
        "version": 7,
        "kind": "event",
        "id": "0198c5f0-0000-7000-8000-000000000000",
        "type": "bank.Withdrawn",
        "type_version": 2,
        "codec": JSON,
        "time": TIME,
        "previous": 5,
        "data": b'{"cents":1}',
        "meta": encode_metadata(META),
    }
    return Recorded(**{**fields, **changed})  # type: ignore[arg-type]


def headers(**changed: str) -> dict[str, str]:
    return {**to_headers(message(), "bank"), **changed}


def test_attributes_are_cloudevents_with_lower_case_extensions():
    assert to_headers(message(kind="reply"), "bank") == {
        "specversion": "1.0",
        "id": "0198c5f0-0000-7000-8000-000000000000",
        "source": "bank",
        "type": "bank.Withdrawn",
        "subject": "acme:bank.Account/ä 1",
        "time": "2026-01-01T00:00:00.123456Z",
        "datacontenttype": "application/json",
        "kind": "reply",
        "typeversion": "2",
        "streamversion": "7",
        "previous": "5",
        "correlationid": "c-1",
        "causationid": "m-0",
        "traceparent": "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01",
        "authid": "ädä",
        "tenant": "acme",
    }
    for name in headers():
        assert name.isascii()
        assert name.isalnum()
        assert name == name.lower()
        assert len(name) <= 20


def test_what_is_as_usual_is_no_attribute():
    """An event of the first version of its type, after the version before it."""
    usual = message(type_version=1, previous=6)
    assert not to_headers(usual, "bank").keys() & {"kind", "typeversion", "previous"}
    assert from_headers(to_headers(usual, "bank"), usual.data, 42) == usual


def test_a_first_message_has_none_before_it():
    assert from_headers(to_headers(message(version=1, previous=0), "bank"), b"{}", 42).previous == 0


def test_what_is_not_known_is_no_attribute():
    bare = to_headers(message(meta=encode_metadata(Metadata())), "bank")
    assert not bare.keys() & {"correlationid", "causationid", "traceparent", "authid", "tenant"}
    assert all(bare.values())


@pytest.mark.parametrize("kind", ["event", "command", "reply", "control"])
def test_a_message_comes_in_as_it_went_out(kind):
    sent = message(kind=kind)
    assert from_headers(to_headers(sent, "bank"), sent.data, 42) == sent


def test_the_position_is_of_the_delivery_and_the_body_is_kept_raw():
    found = from_headers(headers(), b"\xff not json", 99)
    assert (found.position, found.data, found.codec) == (99, b"\xff not json", JSON)


@settings(max_examples=60, deadline=None, database=None)
@given(
    st.text(st.characters(exclude_characters="\0", exclude_categories=["Cs"]), min_size=1, max_size=20),
    st.integers(1, 10**18 - 1),
    st.integers(1, 3),
    st.integers(1, 3),
    st.sampled_from(sorted(KINDS)),
    st.integers(0, 250_000_000_000_000_000),
    st.builds(Metadata, *[st.text(st.characters(exclude_categories=["Cs"]), max_size=5)] * 5),
)
def test_any_message_comes_in_as_it_went_out(text, version, back, type_version, kind, time, meta):
    sent = message(
        stream=text,
        id=text,
        type=text,
        version=version,
        previous=max(version - back, 0),
        type_version=type_version,
        kind=kind,
        time=time,
        meta=encode_metadata_as_json(meta),
    )
    assert from_headers(to_headers(sent, text), sent.data, sent.position) == sent


def test_attributes_of_others_are_passed_over():
    assert from_headers(headers(dataschema="x", partitionkey="y"), b"{}", 1).type == "bank.Withdrawn"


@pytest.mark.parametrize(
    "time",
    ["2026-01-01T00:00:00Z", "2026-01-01T01:00:00+01:00", "2025-12-31T19:00:00.0-05:00", "2026-01-01T00:00:00"],
)
def test_a_time_may_be_in_any_zone(time):
    assert from_headers(headers(time=time), b"", 1).time == 1_767_225_600_000_000


@pytest.mark.parametrize("name", ["specversion", "id", "type", "subject", "time", "streamversion"])
def test_an_attribute_that_is_missing_is_named(name):
    short = headers()
    del short[name]
    with pytest.raises(SchemaError, match=f"'{name}' is missing"):
        from_headers(short, b"{}", 1)


def test_a_message_without_the_attributes_of_ours_is_refused():
    """Whoever passes on CloudEvents' own alone does not turn a command, or a second version, into something else."""
    own = {"specversion", "id", "source", "type", "subject", "time", "datacontenttype"}
    with pytest.raises(SchemaError, match="'streamversion' is missing"):
        from_headers({name: value for name, value in headers().items() if name in own}, b"{}", 1)


NO_NUMBERS = ["", "x", "-1", "+1", " 1", "1 ", "1.0", "1_0", "0x1", "٣", "1e3", "9" * 19, "9" * 5_000]


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("specversion", "0.3"),
        ("specversion", ""),
        ("kind", "timer"),
        ("kind", "Event"),
        ("kind", ""),
        *((name, value) for name in ("typeversion", "streamversion", "previous") for value in NO_NUMBERS),
        ("previous", "7"),
        ("previous", "8"),
        ("streamversion", "5"),
        ("streamversion", "0"),
        *((name, value) for name in ("subject", "id", "type") for value in ("", "a\0b")),
        *(("time", value) for value in ("", "yesterday", "2026-13-01T00:00:00Z", "1767225600", "2026-01-01T00:00:60Z")),
    ],
)
def test_an_attribute_that_is_wrong_is_named(name, value):
    with pytest.raises(SchemaError, match=name):
        from_headers(headers(**{name: value}), b"{}", 1)


@pytest.mark.parametrize("name", ["subject", "id", "type", "authid", "tenant", "correlationid"])
def test_a_lone_surrogate_is_no_text(name):
    with pytest.raises(SchemaError, match="malformed"):
        from_headers(headers(**{name: "a\ud800"}), b"{}", 1)
