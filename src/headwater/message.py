"""Messages: commands (may be refused) and events (facts), as you declare them, as they are stored, and as a handler meets them."""

from __future__ import annotations

from typing import Any, Final, Literal, dataclass_transform

import msgspec
from msgspec import Struct

Kind = Literal["event", "command", "reply", "timer", "control"]

JSON: Final = 0
"""The codec mark of plain JSON data."""


class Declared(Struct, frozen=True):
    """What a class statement says of its stored name: kind, service, category, name and version."""

    kind: Kind
    service: str = ""
    category: str = ""
    stored: str = ""
    version: int = 1


@dataclass_transform(frozen_default=True, field_specifiers=(msgspec.field,))
class MessageMeta(msgspec.StructMeta):
    """Takes `service`, `category`, `stored` and `version` as class keywords and freezes the class.

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
        **options: Any,
    ) -> Any:
        """Make the class, frozen unless it says otherwise."""
        options.setdefault("frozen", True)
        options.setdefault("gc", False)
        cls = super().__new__(mcls, name, bases or (msgspec.Struct,), namespace, **options)
        inherited: Declared | None = getattr(cls, "__declared__", None)
        found = kind or (inherited.kind if inherited else "event")
        type.__setattr__(cls, "__declared__", Declared(found, service, category, stored, version))
        return cls


class Event(metaclass=MessageMeta, kind="event"):
    """A fact: subclass it with typed fields.

    Class keywords: `service` and `category` (whose fact it is, for events of another service), `stored` (the full stored
    name, by default `<service>.<ClassName>`), `version` (of the schema, from 1).
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
    """A message about to be stored: `Recorded` without its place. `time` is in microseconds; `data` and `meta` are encoded."""

    kind: Kind
    id: str
    type: str
    type_version: int
    codec: int
    time: int
    data: bytes
    meta: bytes


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


encode_metadata = msgspec.json.Encoder().encode
decode_metadata = msgspec.json.Decoder(Metadata).decode


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
