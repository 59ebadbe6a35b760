"""The message that the reference shows is what is sent, and what it says of a missing attribute is so."""

from __future__ import annotations

import re

import pytest

from headwater.errors import SchemaError
from headwater.message import JSON, Metadata, Recorded, encode_metadata
from headwater.outbox import topic_of
from headwater.wire import from_headers, to_headers
from tests.docs.page import ROOT

PAGE = (ROOT / "docs/reference/messages.md").read_text(encoding="utf-8")
SHOWN = re.search(r"```text\n(.+?)\n\n(.+?)\n```", PAGE, re.DOTALL)
ROWS = re.findall(r"^\| (`[a-z`, ]+`) \| .+ \| (.+) \|$", PAGE, re.MULTILINE)
SAID = {name: what for names, what in ROWS for name in re.findall(r"[a-z]+", names)}
MESSAGE = Recorded(
    position=1,
    stream="bank.Account/a1",
    version=7,
    kind="event",
    id="0198c5f0-9c00-7000-8000-0000000000a1",
    type="bank.Withdrawn",
    type_version=1,
    codec=JSON,
    time=1_767_225_600_123_456,
    previous=6,
    data=b'{"account_id":"a1","cents":1250}',
    meta=encode_metadata(Metadata("0198c5f0-9bff-7000-8000-0000000000c4", "0198c5f0-9bff-7000-8000-0000000000c4")),
)
FULL = to_headers(
    Recorded(
        2, "desk.x>bank/1", 7, "command", "1", "bank.Withdraw", 2, JSON, 0, 5, b"",
        encode_metadata(Metadata("c", "m", "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01", "ada", "acme")),
    ),
    "desk",
) | {"dataref": "file:///claims/1"}  # fmt: skip


def test_the_message_is_what_is_sent() -> None:
    assert SHOWN is not None
    shown = dict(line.split(": ", 1) for line in SHOWN[1].splitlines())
    assert shown == to_headers(MESSAGE, "bank")
    assert SHOWN[2].encode() == MESSAGE.data
    assert topic_of(MESSAGE, "bank") == "bank.Account"


def test_each_attribute_has_its_row() -> None:
    assert SAID.keys() == FULL.keys()


@pytest.mark.parametrize("name", SAID)
def test_a_message_without_an_attribute_is_what_its_row_says(name: str) -> None:
    short = {other: value for other, value in FULL.items() if other != name}
    if SAID[name] == "is refused":
        with pytest.raises(SchemaError, match=f"'{name}' is missing"):
            from_headers(short, b"", 1)
        return
    found = from_headers(short, b"", 1)
    said = {"previous": found.previous == 6, "typeversion": found.type_version == 1, "kind": found.kind == "event"}
    assert said.get(name, True)
