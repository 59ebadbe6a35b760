"""The request for a repair, as it goes over the control topic of the service that is asked."""

from __future__ import annotations

from typing import Any

import msgspec

from headwater.channel import Publication
from headwater.clock import Clock
from headwater.errors import SchemaError
from headwater.message import JSON, Event, Metadata, Recorded, encode_metadata
from headwater.outbox import service_of
from headwater.schema import check_strict
from headwater.wire import to_headers

LAST = 2**63 - 1


class Republish(Event, service="headwater", category="control", stored="headwater.Republish"):
    """Asks a service to publish a stream again, above a version, for one group; or its tallies on a topic, above a position."""

    stream: str
    after: int
    group: str


def request_of(stream: str, after: int, group: str, clock: Clock) -> Publication:
    """The request to the service that writes a stream."""
    producer = service_of(stream)
    message_id = clock.new_id()
    request = Recorded(
        0,
        f"{group}.control>{producer}/{message_id}",
        1,
        "control",
        message_id,
        "headwater.Republish",
        1,
        JSON,
        clock.now(),
        0,
        msgspec.json.encode(Republish(stream, after, group)),
        encode_metadata(Metadata()),
    )
    return Publication(f"{producer}.control", stream, to_headers(request, group), request.data)


def read_request(body: bytes) -> Republish | None:
    """A request from the wire; None if it is not one: whoever asked asks again."""
    try:
        fields: Any = check_strict(body)
        request = msgspec.convert(fields, Republish)
    except (SchemaError, msgspec.ValidationError):
        return None
    return request if 0 <= request.after <= LAST else None
