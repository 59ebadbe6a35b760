"""CloudEvents over AMQP: what we write others read, what others write we read, and no bytes are taken amiss."""

from __future__ import annotations

from datetime import UTC, datetime

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pamqp import commands
from pamqp.commands import Basic
from pamqp.header import ContentHeader

from headwater.adapters.rabbitmq import frames
from headwater.adapters.rabbitmq.binding import Content, properties, read
from headwater.adapters.rabbitmq.topology import slot, slots
from headwater.adapters.rabbitmq.url import COUNTS, SLOTS

text = st.text(st.characters(exclude_categories=["Cs"]), max_size=30)
headers = st.dictionaries(text.filter(lambda name: name != "partitionkey"), text, max_size=6)


def written(**given: object) -> bytes:
    """Properties as another library writes them."""
    return ContentHeader(0, 0, Basic.Properties(**given)).marshal()[12:]  # type: ignore[arg-type]


@settings(max_examples=200, deadline=None, database=None)
@given(text, headers, st.integers(0, 2**40))
def test_what_is_written_is_read(key: str, headers: dict[str, str], time: int) -> None:
    assert read(properties(key, headers, time)) == Content(headers, key, time)


@settings(max_examples=200, deadline=None, database=None)
@given(text, headers)
def test_another_library_reads_what_we_write(key: str, headers: dict[str, str]) -> None:
    raw = properties(key, headers | {"datacontenttype": "application/json"}, 1_700_000_000)
    found = ContentHeader()
    found.unmarshal(b"\x00\x3c\x00\x00" + bytes(8) + raw)
    assert found.properties is not None
    assert found.properties.content_type == "application/json"
    assert found.properties.delivery_mode == 2
    assert found.properties.timestamp == datetime.fromtimestamp(1_700_000_000, UTC)
    expected = {f"cloudEvents_{name}": value for name, value in headers.items() if name != "datacontenttype"}
    assert found.properties.headers == expected | {"cloudEvents_partitionkey": key}


@settings(max_examples=500, deadline=None, database=None)
@given(st.binary(max_size=80) | st.binary(max_size=60).map(lambda rest: b"\xf0\x40\x01a\x00\x00\x00\x00" + rest))
def test_no_bytes_are_taken_amiss(raw: bytes) -> None:
    found = read(raw)
    assert all(isinstance(value, str) for value in found.headers.values())


def test_attributes_may_be_written_with_a_colon_and_be_no_text() -> None:
    raw = written(
        content_type="application/json",
        content_encoding="utf-8",
        headers={
            "cloudEvents:id": "1",
            "cloudEvents:partitionkey": "k",
            "cloudEvents_streamversion": 7,
            "cloudEvents_flag": True,
            "cloudEvents_time": datetime(2026, 1, 1, tzinfo=UTC),
            "cloudEvents_data": bytearray(b"bytes"),
            "x-delivery-count": 3,
            "mine": "passed over",
        },
        delivery_mode=2,
        priority=3,
        correlation_id="c",
        reply_to="r",
        expiration="1",
        message_id="m",
        timestamp=datetime(2026, 1, 1, tzinfo=UTC),
        app_id="a",
    )
    assert read(raw) == Content(
        {
            "datacontenttype": "application/json",
            "id": "1",
            "streamversion": "7",
            "flag": "true",
            "time": "2026-01-01T00:00:00.000000Z",
            "data": "bytes",
        },
        "k",
        1_767_225_600,
    )


def test_a_message_that_is_no_cloud_event_keeps_its_headers() -> None:
    raw = written(content_type="text/plain", headers={"type": "order", "number": 3, "x-death": "no"})
    assert read(raw) == Content({"datacontenttype": "text/plain", "type": "order", "number": "3"}, "", 0)
    assert read(written()) == Content({}, "", 0)


@pytest.mark.parametrize(
    ("given", "why"),
    [
        ({"partitionkey": "x"}, "another name"),
        ({"n" * 250: ""}, "too long"),
        ({"a": "\ud800"}, "surrogates"),
    ],
)
def test_headers_that_cannot_go_are_refused(given: dict[str, str], why: str) -> None:
    with pytest.raises(ValueError, match=why):
        properties("k", given, 0)


# --- frames ---


@pytest.mark.parametrize("size", [0, 1, 4_088, 4_089, 10_000])
def test_a_body_goes_in_as_many_frames_as_it_needs(size: int) -> None:
    body = bytes(range(256)) * (size // 256 + 1)
    data = frames.content(7, properties("k", {}, 0), body[:size], 4_096)
    found, kinds = b"", []
    while data:
        kind, number, length = frames.HEAD.unpack_from(data)
        assert (number, data[7 + length]) == (7, frames.END)
        assert length + frames.OVERHEAD <= 4_096
        kinds.append(kind)
        found += data[7 : 7 + length] if kind == frames.BODY else b""
        data = data[8 + length :]
    assert found == body[:size]
    assert kinds == [frames.HEADER] + [frames.BODY] * -(-size // 4_088)


def test_methods_are_those_of_the_library() -> None:
    publish = commands.Basic.Publish(exchange="orders/g", routing_key="13", mandatory=True).marshal()
    assert frames.publishing(3, "orders/g", "13") == frames.frame(frames.METHOD, 3, frames.PUBLISH + publish)
    ack = commands.Basic.Ack(delivery_tag=2**40, multiple=True).marshal()
    assert frames.acknowledging(3, 2**40) == frames.frame(frames.METHOD, 3, frames.ACK + ack)


# --- slots, which are for good ---


def test_keys_keep_their_slots_for_ever() -> None:
    assert [slot(key.encode()) for key in ("", "a1", "acme:bank.Account/ä 1")] == [0, 35, 21]


@pytest.mark.parametrize("count", COUNTS)
def test_slots_are_shared_out_evenly(count: int) -> None:
    shares = [slots(number, count) for number in range(count)]
    assert {len(share) for share in shares} == {SLOTS // count}
    assert sorted(one for share in shares for one in share) == list(range(SLOTS))
