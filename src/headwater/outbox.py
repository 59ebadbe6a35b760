"""What leaves: the streams, topics and drafts of outgoing messages. The log is the outbox; nothing is copied.

The stream says where a message goes, so each stream feeds one topic and `previous` is the version before:

- `orders.Order/17`                  events of an aggregate             topic `orders.Order`
- `orders.receipt/17`                events of the handler `receipt`    topic `orders.receipt`
- `orders.receipt>mail/17`           commands of a handler or saga      topic `mail.commands`
- `orders.receipt>orders/17`         its commands to itself, timers     none: they stay in the service
- `payments.commands>orders/17`      replies to refused commands        topic `orders.replies`
"""

from __future__ import annotations

from collections.abc import Callable
from functools import lru_cache
from typing import Any, Final

from msgspec import Struct

from headwater.clock import Clock
from headwater.errors import DeclarationError, SchemaError
from headwater.message import JSON, Draft, Kind, Recorded, stream_category, stream_of
from headwater.schema import MAX_BYTES, MessageType, Schema
from headwater.store import ANY, Append

SMALL: Final = 500
"""Bytes of data that every channel takes."""


def service_of(stream: str) -> str:
    """The service that writes a stream: `orders` of `orders.Order/17`."""
    return stream_category(stream).partition(".")[0]


def destination(stream: str) -> str:
    """The service that a stream is addressed to; empty for a stream of events."""
    return stream_category(stream).partition(">")[2]


def sender(stream: str) -> str:
    """The consumer that an addressed stream comes from: `orders.receipt` of `orders.receipt>mail/17`."""
    return stream_category(stream).partition(">")[0]


def topic_of(recorded: Recorded, service: str) -> str | None:
    """The topic a logged message is published on; None for what stays within its service."""
    return _topic(recorded.stream.partition("/")[0], recorded.kind, service)


@lru_cache(maxsize=4096)
def _topic(head: str, kind: Kind, service: str) -> str | None:
    """The topic of a kind of message whose stream is `head/…`."""
    if kind == "timer":
        return None
    category = stream_category(head)
    _, addressed, target = category.partition(">")
    if not addressed:
        return category
    if target == service:
        return None
    return f"{target}.replies" if kind == "reply" else f"{target}.commands"


class After(Struct, frozen=True):
    """A message that a handler or saga gets back, or a command that leaves, after a time; setting it again moves it."""

    message: Any
    days: float = 0
    hours: float = 0
    minutes: float = 0
    seconds: float = 0
    name: str = ""

    @property
    def microseconds(self) -> int:
        """The delay."""
        return int((((self.days * 24 + self.hours) * 60 + self.minutes) * 60 + self.seconds) * 1_000_000)


class CancelTimer(Struct, frozen=True):
    """Remove the timer that was set with a message class, or under a name, for this instance."""

    timer: type | str


class Outbox:
    """Makes drafts of outgoing messages: a time, an id and encoded data for each.

    `room` says how many bytes of data a message on the channel may have; what leaves and is larger raises SchemaError.
    """

    def __init__(self, schema: Schema, clock: Clock, service: str, room: Callable[[], int] = lambda: MAX_BYTES) -> None:
        self.schema = schema
        self.clock = clock
        self.service = service
        self.room = room

    def draft(self, payload: Any, meta: bytes, kind: Kind | None = None) -> Draft:
        """The draft of a payload with encoded metadata."""
        found = self.schema.of(type(payload))
        return self.draft_as(found, payload, meta, kind or found.kind)

    def draft_as(self, found: MessageType, payload: Any, meta: bytes, kind: Kind) -> Draft:
        """The draft of a payload whose type is known."""
        clock = self.clock
        tags = found.tags_of(payload) if found.tags and kind == "event" else ()
        data = found.to_bytes(payload)
        if len(data) > SMALL and kind != "timer" and (kind != "command" or found.service != self.service):
            self._check_size(found.name, data)
        return Draft(kind, clock.new_id(), found.name, found.version, JSON, clock.now(), data, meta, tags)

    def _check_size(self, name: str, data: bytes) -> None:
        """Refuse what the channel would not take, while whoever wants it can hear of it."""
        room = self.room()
        if len(data) > room:
            raise SchemaError(
                f"{name}: {len(data):,} bytes is more than the channel takes, which is {room:,}; store the large part elsewhere "
                "and refer to it, or let it go by claim check: HEADWATER_CLAIMS=file:///folder, the same for all services"
            )

    def encoded(self, name: str, version: int, data: bytes, meta: bytes, *, leaves: bool = True) -> Draft:
        """The draft of a command that is encoded already."""
        if leaves:
            self._check_size(name, data)
        return Draft("command", self.clock.new_id(), name, version, JSON, self.clock.now(), data, meta)

    def stream_for(self, payload: Any, consumer: str, key: str, tenant: str = "") -> str:
        """The stream that a message returned by a consumer goes to; `consumer` is its full name."""
        found = self.schema.of(type(payload))
        if found.kind == "command":
            return stream_of(f"{consumer}>{found.service}", key, tenant)
        if found.service != self.service:
            raise DeclarationError(
                f"{consumer} returned {found.name}, an event of {found.service}; only its own service states its facts"
            )
        return stream_of(consumer, key, tenant)

    def timer_stream(self, consumer: str, key: str, tenant: str = "") -> str:
        """The stream of what a consumer tells itself later: not that of its events, which is published without gaps."""
        return stream_of(f"{consumer}>{self.service}", key, tenant)


class Appends:
    """Collects drafts by stream, so that each stream is appended to once."""

    def __init__(self) -> None:
        self._drafts: dict[str, list[Draft]] = {}
        self._expect: dict[str, int] = {}

    def add(self, stream: str, draft: Draft, expect: int = ANY) -> None:
        """Add one draft; the first `expect` of a stream counts."""
        found = self._drafts.get(stream)
        if found is None:
            self._drafts[stream] = [draft]
            self._expect[stream] = expect
        else:
            found.append(draft)

    def expect(self, stream: str, version: int) -> None:
        """Require a version of a stream even where nothing is appended."""
        self._drafts.setdefault(stream, [])
        self._expect.setdefault(stream, version)

    def all(self) -> list[Append]:
        """The appends, in the order their streams were first named."""
        return [Append(stream, self._expect[stream], drafts) for stream, drafts in self._drafts.items()]
