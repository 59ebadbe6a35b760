"""The wire: a recorded message as CloudEvents 1.0 attributes and a body, the same on every channel.

A consumer or producer in another language needs no Headwater: the attributes are text, the names lower-case, the body plain
JSON. An attribute of ours that says what nearly all would say is left out: `kind` where it is an event, `typeversion` where it
is 1, `previous` where it is the version before. `streamversion` is always there, and stands for the three: who drops
attributes that are not CloudEvents' own drops it as well, and the message is refused.
"""

from __future__ import annotations

from functools import lru_cache

from headwater.clock import iso, parse_iso
from headwater.errors import SchemaError
from headwater.message import CLAIM, JSON, Kind, Metadata, Recorded, decode_metadata, encode_metadata_as_json

CONTENT_TYPE = "application/json"
DATAREF = "dataref"
"""The attribute of a message without a body that says where its body was left."""
MAX_DIGITS = 18  # fits 64 bits
KINDS: frozenset[Kind] = frozenset({"event", "command", "reply", "control"})
KIND: Kind = "event"
"""That of a message which says none."""
TYPE_VERSION = 1
"""That of a message which says none."""


def to_headers(recorded: Recorded, source: str) -> dict[str, str]:
    """The CloudEvents attributes of a message that the service `source` sends."""
    headers = {
        "specversion": "1.0",
        "id": recorded.id,
        "source": source,
        "type": recorded.type,
        "subject": recorded.stream,
        "time": iso(recorded.time),
        "datacontenttype": CONTENT_TYPE,
        "streamversion": str(recorded.version),
    }
    if recorded.kind != KIND:
        headers["kind"] = recorded.kind
    if recorded.type_version != TYPE_VERSION:
        headers["typeversion"] = str(recorded.type_version)
    if recorded.previous != recorded.version - 1:
        headers["previous"] = str(recorded.previous)
    metadata = decode_metadata(recorded.meta)
    if metadata.correlation_id:
        headers["correlationid"] = metadata.correlation_id
    if metadata.causation_id:
        headers["causationid"] = metadata.causation_id
    if metadata.traceparent:
        headers["traceparent"] = metadata.traceparent
    if metadata.actor:
        headers["authid"] = metadata.actor
    if metadata.tenant:
        headers["tenant"] = metadata.tenant
    return headers


def from_headers(headers: dict[str, str], body: bytes, position: int) -> Recorded:
    """The message of a delivery's attributes and body. Raises SchemaError, naming the attribute that is wrong."""
    try:
        kind = headers.get("kind", KIND)
        if kind not in KINDS:
            raise SchemaError(f"kind {kind!r} is not one of {', '.join(sorted(KINDS))}")
        if headers["specversion"] != "1.0":
            raise SchemaError(f"specversion {headers['specversion']!r} is not 1.0")
        version = _number("streamversion", headers["streamversion"])
        previous = _number("previous", headers["previous"]) if "previous" in headers else version - 1
        if not 0 <= previous < version:
            raise SchemaError(f"previous ({previous}) is not before streamversion ({version})")
        elsewhere = "" if body else headers.get(DATAREF, "")
        return Recorded(
            position,
            _name("subject", headers["subject"]),
            version,
            kind,
            _name("id", headers["id"]),
            _name("type", headers["type"]),
            _number("typeversion", headers["typeversion"]) if "typeversion" in headers else TYPE_VERSION,
            CLAIM if elsewhere else JSON,
            _time(headers),
            previous,
            elsewhere.encode() if elsewhere else body,
            _meta(headers),
        )
    except KeyError as error:
        raise SchemaError(f"the attribute {error} is missing") from error
    except (ValueError, OverflowError) as error:
        raise SchemaError(f"an attribute is malformed: {error}") from error


@lru_cache(maxsize=4096)
def _number(name: str, text: str) -> int:
    if not (text.isascii() and text.isdigit()) or len(text) > MAX_DIGITS:
        raise SchemaError(f"{name} {text[:40]!r} is not a number")
    return int(text)


def _name(name: str, text: str) -> str:
    if not text.isascii():
        text.encode()  # a lone surrogate is no text
    if not text or "\0" in text:
        raise SchemaError(f"{name} {text[:40]!r} names nothing")
    return text


def _time(headers: dict[str, str]) -> int:
    try:
        return parse_iso(headers["time"])
    except ValueError as error:
        raise SchemaError(f"time {headers['time'][:40]!r} is not RFC 3339") from error


def _meta(headers: dict[str, str]) -> bytes:
    get = headers.get
    return encode_metadata_as_json(
        Metadata(
            get("correlationid", ""),
            get("causationid", ""),
            get("traceparent", ""),
            get("authid", ""),
            get("tenant", ""),
        )
    )
