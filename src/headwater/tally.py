"""A tally: what a service says it has published on a topic, so that a lost last message shows as well. ADR 0012.

It names the streams published on its topic from messages of the log above one position up to another, with their last
versions. It stands in a chain: its stream is that of the relay and the topic, its version the later position, its `previous`
the earlier one, where the tally before it ended. So a lost tally shows by the next one, and its span is asked for again.
"""

from __future__ import annotations

from typing import Final

import msgspec
from msgspec import Struct

from headwater.clock import Clock
from headwater.errors import SchemaError
from headwater.message import JSON, Metadata, Recorded, encode_metadata, stream_category, stream_key
from headwater.outbox import service_of
from headwater.source import Span, Tally

TYPE: Final = "headwater.Tally"
CATEGORY: Final = "relay"
MOST: Final = 1_000
"""Streams in one tally, at most."""
BYTES: Final = 64 << 10
"""About the size of a tally, at most."""
LAST: Final = 2**63 - 1
MOST_BYTES_A_LETTER: Final = 4
AROUND: Final = 16
"""Bytes that a stream takes in a tally besides its name and its versions' digits."""


class Body(Struct, frozen=True):
    """The body of a tally."""

    streams: dict[str, Span]


_decode = msgspec.json.Decoder(Body).decode
_encode = msgspec.json.Encoder().encode


def stream_of_tallies(service: str, topic: str) -> str:
    """The chain of a service's tallies on a topic: `orders.relay/orders.Order`."""
    return f"{service}.{CATEGORY}/{topic}"


def topic_of_tallies(stream: str) -> str:
    """The topic of a chain of tallies; empty if the stream is none."""
    return stream_key(stream) if stream_category(stream) == f"{service_of(stream)}.{CATEGORY}" else ""


def read_tally(message: Recorded, topic: str) -> Tally:
    """The tally of a control message that came on a topic. Raises SchemaError where it is none of that topic."""
    if message.type != TYPE or topic_of_tallies(message.stream) != topic:
        raise SchemaError(f"{message.type} of {message.stream!r} is no tally of topic {topic!r}")
    streams = read_streams(message.data)
    service = service_of(message.stream)
    mine = f"{service}."
    if not all(0 <= since < last <= LAST for since, last in streams.values()):
        raise SchemaError("a tally is malformed: of a stream it tells of versions that cannot be")
    for stream in streams:
        if not stream.startswith(mine) and service_of(stream) != service:
            raise SchemaError(f"a tally of {service} tells of {stream[:200]!r}, which is not its own")
    return Tally(message, topic, streams)


def read_streams(body: bytes) -> dict[str, Span]:
    """The streams of a tally's body. Raises SchemaError."""
    try:
        streams = _decode(body).streams
        names = "".join(streams)
        names.encode()
    except (msgspec.MsgspecError, UnicodeError, RecursionError) as error:
        raise SchemaError(f"a tally is malformed: {error}") from error
    if "\0" in names:
        raise SchemaError("a tally is malformed: no stream has a NUL in its name")
    return streams


def body_of(streams: dict[str, Span]) -> bytes:
    """The body of a tally of these streams."""
    return _encode(Body(streams))


class Count:
    """What was published on one topic since the tally before; `full`: it is as much as one tally holds."""

    __slots__ = ("_last", "_left", "_most_bytes", "_since", "full", "prior")

    def __init__(self, prior: int, most_bytes: int = BYTES) -> None:
        self.prior = prior
        self._most_bytes = most_bytes
        self._empty()

    def _empty(self) -> None:
        self._since: dict[str, int] = {}
        self._last: dict[str, int] = {}
        self._left = self._most_bytes
        self.full = False

    def __len__(self) -> int:
        return len(self._last)

    def add(self, message: Recorded) -> None:
        """A message was published."""
        stream, version = message.stream, message.version
        known = self._last.get(stream)
        if known is None:
            self._since[stream] = message.previous
            self._left -= (1 if stream.isascii() else MOST_BYTES_A_LETTER) * len(stream) + AROUND
            self.full = self._left <= 0 or len(self._since) >= MOST
        elif version <= known:
            return
        self._last[stream] = version

    def close(self, service: str, topic: str, position: int, clock: Clock) -> Recorded:
        """The tally of all that was added, up to a position; from there on it counts anew."""
        tally = Recorded(
            position,
            stream_of_tallies(service, topic),
            position,
            "control",
            clock.new_id(),
            TYPE,
            1,
            JSON,
            clock.now(),
            self.prior,
            body_of({stream: (since, self._last[stream]) for stream, since in self._since.items()}),
            encode_metadata(Metadata()),
        )
        self.prior = position
        self._empty()
        return tally
