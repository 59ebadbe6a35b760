"""Messages: commands (may be refused) and events (facts), as you declare them, as they are stored, and as a handler meets them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from enum import Enum
from types import MappingProxyType
from typing import Any, Final, Literal, dataclass_transform
from uuid import UUID

import msgspec
from msgspec import Struct

from headwater.clock import uuid_bytes, uuid_text
from headwater.errors import SchemaError

Kind = Literal["event", "command", "reply", "timer", "control"]

LONGEST_TAG: Final = 500
"""Characters: an index holds no longer ones everywhere."""
JSON: Final = 0
"""The codec mark of plain JSON data."""
CLAIM: Final = 1
"""The codec mark of data that lies elsewhere: it is the URI by which it is found."""


Names = str | Sequence[str] | Mapping[str, str]
"""Fields by their names: text with spaces between, several, or each under the name of its tag."""


def named_fields(names: Names) -> dict[str, str]:
    """The field for each tag."""
    if isinstance(names, Mapping):
        return dict(names)
    return {name: name for name in (names.split() if isinstance(names, str) else names)}


def tag_of(name: str, value: Any) -> str:
    """The tag of a name with a value: `course:17`. Text, whole numbers, UUIDs and enums of these have one."""
    plain = value.value if isinstance(value, Enum) else value
    if not isinstance(plain, str | int | UUID) or isinstance(plain, bool):
        raise SchemaError(f"{name}: a tag is text, a whole number or a UUID, and {value!r} is a {type(value).__name__}")
    tag = f"{name}:{plain}"
    if len(tag) > LONGEST_TAG:
        raise SchemaError(f"{name}: a tag has {LONGEST_TAG} characters at most, and this one has {len(tag)}")
    return tag


class Declared(Struct, frozen=True):
    """What a class statement says of its stored name: kind, service, category, name and version; and of its tags."""

    kind: Kind
    service: str = ""
    category: str = ""
    stored: str = ""
    version: int = 1
    tags: Mapping[str, str] = MappingProxyType({})


@dataclass_transform(frozen_default=True, field_specifiers=(msgspec.field,))
class MessageMeta(msgspec.StructMeta):
    """Takes `service`, `category`, `stored`, `version` and `tags` as class keywords and freezes the class.

    Instances are not tracked by the garbage collector: what is stored as JSON has no cycles.
    """

    def __new__(  # noqa: PLR0913 - the class keywords are the interface
        mcls,
        name: str,
        bases: tuple[type, ...],
        namespace: dict[str, Any],
        *,
        kind: Kind | None = None,
        service: str = "",
        category: str = "",
        stored: str = "",
        version: int = 1,
        tags: Names = (),
        **options: Any,
    ) -> Any:
        """Make the class, frozen unless it says otherwise."""
        options.setdefault("frozen", True)
        options.setdefault("gc", False)
        cls = super().__new__(mcls, name, bases or (msgspec.Struct,), namespace, **options)
        inherited: Declared | None = getattr(cls, "__declared__", None)
        found = kind or (inherited.kind if inherited else "event")
        by_tag = named_fields(tags) or (inherited.tags if inherited else {})
        type.__setattr__(cls, "__declared__", Declared(found, service, category, stored, version, by_tag))
        return cls


class Event(metaclass=MessageMeta, kind="event"):
    """A fact: subclass it with typed fields.

    Class keywords: `service` and `category` (whose fact it is, for events of another service), `stored` (the full stored
    name, by default `<service>.<ClassName>`), `version` (of the schema, from 1), `tags` (the fields that decisions find it by).
    """


class Command(metaclass=MessageMeta, kind="command"):
    """A request that may be refused: subclass it with typed fields; `service` names the service that decides it."""


class Refused(Event, service="headwater", category="replies", stored="headwater.Refused"):
    """The reply to a command that was refused: its type, its message id, the stream it was sent from, and the reason."""

    type: str
    id: str
    reason: str
    stream: str = ""
    details: dict[str, Any] = {}


class Metadata(
    Struct, frozen=True, omit_defaults=True, rename={"correlation_id": "correlation", "causation_id": "causation"}
):
    """What travels with a message besides its payload; all values are text, empty when not known."""

    correlation_id: str = ""
    causation_id: str = ""
    traceparent: str = ""
    actor: str = ""
    tenant: str = ""


class Draft(Struct, frozen=True, gc=False):
    """A message about to be stored: `Recorded` without its place. `time` is in microseconds; `data` and `meta` are encoded.

    `tags` are what a condition finds an event by; a message of another kind has none.
    """

    kind: Kind
    id: str
    type: str
    type_version: int
    codec: int
    time: int
    data: bytes
    meta: bytes
    tags: tuple[str, ...] = ()


class Recorded(Struct, frozen=True, gc=False):
    """A message as stored in a log or carried by a channel.

    `stream` and `version` are its place in its stream (from 1), `position` its place in the log or channel it was read
    from, `previous` the version of the message before it of that stream on its topic (0: it is the first).
    """

    position: int
    stream: str
    version: int
    kind: Kind
    id: str
    type: str
    type_version: int
    codec: int
    time: int
    previous: int
    data: bytes
    meta: bytes

    @property
    def key(self) -> str:
        """What order is kept by, and what is held together: the stream."""
        return self.stream

    @property
    def metadata(self) -> Metadata:
        """The decoded metadata."""
        return decode_metadata(self.meta)


class Message(Struct, frozen=True, gc=False):
    """What a handler may ask for besides the payload: ids, place, the attempt (from 1) and the metadata."""

    id: str
    type: str
    stream: str
    version: int
    attempt: int
    time: int
    metadata: Metadata

    @property
    def key(self) -> str:
        """What order is kept by."""
        return self.stream


encode_metadata_as_json = msgspec.json.Encoder().encode
_decode_json = msgspec.json.Decoder(Metadata).decode

PACKED: Final = 0x40
"""The first byte of packed metadata, plus a bit for each of these that follows: no JSON begins with it."""
CORRELATION: Final = 1
CAUSATION: Final = 2
TRACE: Final = 4
PACKED_END: Final = PACKED + 8
TRACE_BYTES: Final = 25


def encode_metadata(metadata: Metadata) -> bytes:
    """Metadata as it is stored: packed, or as JSON where an id is no UUID or a value is of another unusual form.

    Packed is a byte of marks, then correlation and causation in 16 bytes each and the traceparent in 25, as far as there
    are any, then the actor, and after a NUL the tenant, in UTF-8.
    """
    if "\0" in metadata.actor or "\0" in metadata.tenant:
        return encode_metadata_as_json(metadata)
    marks, packed = PACKED, b""
    try:
        if metadata.correlation_id:
            marks |= CORRELATION
            packed = uuid_bytes(metadata.correlation_id)
        if metadata.causation_id:
            marks |= CAUSATION
            packed += uuid_bytes(metadata.causation_id)
        if metadata.traceparent:
            marks |= TRACE
            packed += _trace_bytes(metadata.traceparent)
    except ValueError:
        return encode_metadata_as_json(metadata)
    rest = f"{metadata.actor}\0{metadata.tenant}" if metadata.tenant else metadata.actor
    return bytes((marks,)) + packed + rest.encode()


def decode_metadata(data: bytes) -> Metadata:
    """Metadata as it was stored, in either form."""
    marks = data[0] if data else 0
    if not PACKED <= marks < PACKED_END:
        return _decode_json(data)
    correlation = causation = trace = actor = tenant = ""
    place = 1
    if marks & CORRELATION:
        correlation = uuid_text(data[1:17])
        place = 17
    if marks & CAUSATION:
        causation = uuid_text(data[place : place + 16])
        place += 16
    if marks & TRACE:
        trace = _trace_text(data[place : place + 25])
        place += 25
    if place < len(data):
        actor, _, tenant = data[place:].decode().partition("\0")
    return Metadata(correlation, causation, trace, actor, tenant)


def _trace_bytes(text: str) -> bytes:
    found = bytes.fromhex(text[3:35] + text[36:52] + text[53:])
    if len(found) != TRACE_BYTES or _trace_text(found) != text:
        raise ValueError(f"{text!r} is no traceparent of version 00")
    return found


def _trace_text(found: bytes) -> str:
    text = found.hex()
    return f"00-{text[:32]}-{text[32:48]}-{text[48:]}"


def caused_by(recorded: Recorded, metadata: Metadata) -> bytes:
    """The encoded metadata of what a message causes: the same correlation, trace, actor and tenant, caused by its id."""
    return encode_metadata(
        Metadata(
            metadata.correlation_id or recorded.id, recorded.id, metadata.traceparent, metadata.actor, metadata.tenant
        )
    )


def stream_category(stream: str) -> str:
    """The category of a stream: `orders.Order` of `acme:orders.Order/17`."""
    return stream.partition("/")[0].rpartition(":")[2]


def stream_key(stream: str) -> str:
    """The key of a stream: `17` of `acme:orders.Order/17`."""
    return stream.partition("/")[2]


def stream_of(category: str, key: str, tenant: str = "") -> str:
    """The name of a stream: `[tenant:]category/key`."""
    return f"{tenant}:{category}/{key}" if tenant else f"{category}/{key}"
