"""The request for a repair, as it goes over the control topic of the service that is asked."""

from __future__ import annotations

from typing import Any

import msgspec

from headwater.channel import Publication
from headwater.clock import Clock, iso
from headwater.errors import SchemaError
from headwater.message import Event
from headwater.outbox import service_of
from headwater.schema import check_strict
from headwater.wire import CONTENT_TYPE

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
    headers = {
        "specversion": "1.0",
        "id": message_id,
        "source": group,
        "type": "headwater.Republish",
        "subject": f"{group}.control>{producer}/{message_id}",
        "time": iso(clock.now()),
        "datacontenttype": CONTENT_TYPE,
        "streamversion": "1",
        "kind": "control",
    }
    return Publication(f"{producer}.control", stream, headers, msgspec.json.encode(Republish(stream, after, group)))


def read_request(body: bytes) -> Republish | None:
    """A request from the wire; None if it is not one: whoever asked asks again."""
    try:
        fields: Any = check_strict(body)
        request = msgspec.convert(fields, Republish)
    except (SchemaError, msgspec.ValidationError):
        return None
    return request if 0 <= request.after <= LAST else None
