"""Rows and messages that earlier releases wrote: every one of them is read for ever.

A file in `tests/golden` is never changed and never removed. A release that changes a format adds files of its own and
keeps reading the old ones; the newest of each kind is what is written today.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from headwater.message import JSON, Event, Metadata, Recorded, decode_metadata, encode_metadata
from headwater.schema import Schema
from headwater.wire import from_headers, to_headers

GOLDEN = Path(__file__).parent.parent / "golden"


def release(path: Path) -> list[int]:
    return [int(number) for number in path.stem.partition("-")[2].split(".")]


ROWS = sorted(GOLDEN.glob("row-*.json"), key=release)
PACKED = sorted(GOLDEN.glob("packed-*.json"), key=release)
MESSAGES = sorted(GOLDEN.glob("wire-*.json"), key=release)


class Withdrawn(Event, version=2):
    account_id: str
    cents: int
    reason: str = ""


PAYLOAD = Withdrawn("ä 1", 1250, 'rent "Januar"')
META = Metadata("c-1", "m-0", "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01", "ada", "acme")
RECORDED = Recorded(
    position=42,
    stream="acme:bank.Account/ä 1",
    version=7,
    kind="event",
    id="0198c5f0-9c00-7000-8000-0000000000a1",
    type="bank.Withdrawn",
    type_version=2,
    codec=JSON,
    time=1_767_225_600_123_456,
    previous=5,
    data='{"account_id":"ä 1","cents":1250,"reason":"rent \\"Januar\\""}'.encode(),
    meta=encode_metadata(META),
)


PACKED_META = Metadata(
    "0198c5f0-9c00-7000-8000-0000000000a1",
    "0198c5f0-9c00-7000-8000-0000000000ff",
    "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01",
    "ädä",
    "acme",
)


def name(path: Path) -> str:
    return path.stem


def load(path: Path) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    return found


def payload_of(recorded: Recorded, *, strict: bool) -> Any:
    schema = Schema("bank")
    schema.add(Withdrawn)
    decode = schema.decode_strict if strict else schema.decode
    return decode(recorded.type, recorded.type_version, recorded.data)


def as_row(recorded: Recorded) -> dict[str, Any]:
    fields = {field: getattr(recorded, field) for field in recorded.__struct_fields__}
    return {**fields, "data": recorded.data.decode(), "meta": recorded.meta.decode()}


def test_there_are_golden_files():
    assert ROWS
    assert PACKED
    assert MESSAGES


@pytest.mark.parametrize("path", ROWS, ids=name)
def test_a_stored_row_is_read_for_ever(path: Path):
    row = load(path)
    recorded = Recorded(**{**row, "data": row["data"].encode(), "meta": row["meta"].encode()})
    assert recorded == RECORDED
    assert recorded.metadata == META
    assert payload_of(recorded, strict=False) == PAYLOAD


@pytest.mark.parametrize("path", PACKED, ids=name)
def test_packed_metadata_is_read_for_ever(path: Path):
    assert decode_metadata(bytes.fromhex(load(path)["meta"])) == PACKED_META


@pytest.mark.parametrize("path", MESSAGES, ids=name)
def test_a_message_on_the_wire_is_read_for_ever(path: Path):
    message = load(path)
    recorded = from_headers(message["headers"], message["body"].encode(), 42)
    assert recorded == RECORDED
    assert payload_of(recorded, strict=True) == PAYLOAD


def test_the_newest_row_is_what_is_written_today():
    schema = Schema("bank")
    kind = schema.add(Withdrawn)
    assert as_row(RECORDED) == load(ROWS[-1])
    assert (kind.name, kind.version, kind.to_bytes(PAYLOAD)) == (RECORDED.type, 2, RECORDED.data)


def test_the_newest_packed_metadata_is_what_is_written_today():
    assert load(PACKED[-1]) == {"meta": encode_metadata(PACKED_META).hex()}


def test_the_newest_message_is_what_is_sent_today():
    assert {"headers": to_headers(RECORDED, "bank"), "body": RECORDED.data.decode()} == load(MESSAGES[-1])
