"""Topics of messages that are not ours: plain JSON and CloudEvents, taken as events of a type that the app names. ADR 0013.

Such a message has no place in a stream. Its place in the channel stands for one: the stream is that of its key within its
partition, the version its position, so that marks know it for ever. Nothing says what came before it: a gap cannot show.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from typing import Any, Final

import msgspec
from msgspec import Struct

from headwater.channel import Delivery
from headwater.clock import Clock, parse_iso
from headwater.errors import SchemaError
from headwater.message import JSON, Metadata, Recorded, encode_metadata_as_json, stream_of

STRUCTURED: Final = "application/cloudevents+json"
NOWHERE: Final = -1
"""The `previous` of a message without a place: no mark knows it."""


class Listened(Struct, frozen=True):
    """A topic of messages that are not ours, and the type of event that they are.

    `category` is that of the type with its service; `key` the field of the payload that order is kept by (empty: the
    channel's key); `named` the CloudEvents type that is taken (empty: all are); `once`: each takes effect once.
    """

    topic: str
    type: str
    version: int
    category: str
    key: str = ""
    named: str = ""
    once: bool = True


class Envelope(Struct):
    """A CloudEvent in structured mode."""

    specversion: str
    id: str
    source: str
    type: str
    data: msgspec.Raw = msgspec.Raw(b"null")
    time: str = ""
    correlationid: str = ""
    traceparent: str = ""


_envelope = msgspec.json.Decoder(Envelope).decode
_parsed: Callable[[bytes], Any] = msgspec.json.Decoder().decode


def read_foreign(delivery: Delivery, listened: Listened, clock: Clock) -> Recorded | None:
    """The event of a delivery; None where it is a CloudEvent of a type that is not taken. Raises SchemaError."""
    headers, body = opened(delivery)
    if listened.named and headers.get("type") != listened.named:
        return None
    place = f"{delivery.topic}/{delivery.partition}/{delivery.position}" if listened.once else clock.new_id()
    known = headers.get("specversion") and headers.get("id")
    identity = f"{headers.get('source', '')}#{headers['id']}" if known else place
    key = key_of(delivery, listened, body)
    stream, version, previous = f"{listened.category}.{delivery.partition}", delivery.position + 1, 0
    if not listened.once:
        once = hashlib.blake2b(identity.encode("utf-8", "replace"), digest_size=12).hexdigest()
        stream, version, previous = f"{listened.category}.{once}", 1, NOWHERE
    return Recorded(
        delivery.position,
        stream_of(stream, key),
        version,
        "event",
        text_of("id", identity),
        listened.type,
        listened.version,
        JSON,
        _time(headers, clock),
        previous,
        body,
        encode_metadata_as_json(Metadata(headers.get("correlationid", ""), traceparent=headers.get("traceparent", ""))),
    )


def opened(delivery: Delivery) -> tuple[dict[str, str], bytes]:
    """The attributes of a delivery and its data, taken out of the envelope of a CloudEvent in structured mode."""
    form = delivery.headers.get("datacontenttype") or delivery.headers.get("content-type", "")
    if not form.startswith(STRUCTURED):
        return delivery.headers, delivery.body
    try:
        found = _envelope(delivery.body)
    except (msgspec.MsgspecError, RecursionError) as error:
        raise SchemaError(f"it is no CloudEvent in JSON, though it says so: {error}") from error
    attributes = msgspec.structs.asdict(found)
    return {name: value for name, value in attributes.items() if name != "data"}, bytes(found.data)


def key_of(delivery: Delivery, listened: Listened, body: bytes) -> str:
    """What order is kept by: a field of the payload, the channel's key, or where that has none, its partition."""
    if not listened.key:
        return text_of("key", delivery.key) if delivery.key else str(delivery.partition)
    try:
        fields = _parsed(body)
    except (msgspec.MsgspecError, RecursionError) as error:
        raise SchemaError(f"its body is no JSON: {error}") from error
    value = fields.get(listened.key) if isinstance(fields, dict) else None
    if isinstance(value, bool) or not isinstance(value, str | int) or value == "":
        raise SchemaError(f"it has no key: its field {listened.key!r} is no text and no whole number")
    return text_of(listened.key, str(value))


def text_of(name: str, text: str) -> str:
    """A text that can be stored. Raises SchemaError."""
    try:
        text.encode()
    except UnicodeEncodeError as error:
        raise SchemaError(f"{name} is no text: {error}") from error
    if "\0" in text:
        raise SchemaError(f"{name} {text[:40]!r} has a NUL")
    return text


def _time(headers: dict[str, str], clock: Clock) -> int:
    """When it happened, as far as it says so; else when it is read."""
    try:
        return parse_iso(headers.get("time", ""))
    except ValueError:
        return clock.now()
