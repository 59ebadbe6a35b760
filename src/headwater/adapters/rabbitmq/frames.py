"""The frames of AMQP 0-9-1 that carry messages, as bytes: what runs once a message is written here, all else by pamqp.

A frame is its kind, the number of its session, its size, the payload, and an end mark. A message is a method frame, a header
frame with its properties, and as many body frames as it needs.
"""

from __future__ import annotations

from functools import lru_cache
from struct import Struct
from typing import Final

METHOD: Final = 1
HEADER: Final = 2
BODY: Final = 3
HEARTBEAT: Final = 8
END: Final = 0xCE
OVERHEAD: Final = 8
"""Bytes of a frame around its payload."""

PUBLISH: Final = b"\x00\x3c\x00\x28"
RETURN: Final = b"\x00\x3c\x00\x32"
DELIVER: Final = b"\x00\x3c\x00\x3c"
ACK: Final = b"\x00\x3c\x00\x50"
NACK: Final = b"\x00\x3c\x00\x78"
"""Methods of the class `basic`, of which there is one a message."""

HEAD: Final = Struct(">BHI")
_CONTENT: Final = Struct(">BHIHHQ")
_BASIC: Final = 60
_MANDATORY: Final = b"\x01"
_ACKNOWLEDGE: Final = Struct(">BHI4sQBB")

BEAT: Final = HEAD.pack(HEARTBEAT, 0, 0) + b"\xce"


def short(text: str) -> bytes:
    """A short string: at most 255 bytes. Raises ValueError."""
    data = text.encode()
    return bytes((len(data),)) + data


def frame(kind: int, number: int, payload: bytes) -> bytes:
    """A frame of a session."""
    return b"%b%b\xce" % (HEAD.pack(kind, number, len(payload)), payload)


@lru_cache(maxsize=4096)
def publishing(number: int, exchange: str, routing_key: str) -> bytes:
    """The method frame of a message that must be routed, or it comes back."""
    payload = b"%b\x00\x00%b%b%b" % (PUBLISH, short(exchange), short(routing_key), _MANDATORY)
    return frame(METHOD, number, payload)


def content(number: int, properties: bytes, body: bytes, most: int) -> bytes:
    """The header frame and the body frames of a message, none larger than `most` bytes."""
    size, room = len(body), most - OVERHEAD
    head = _CONTENT.pack(HEADER, number, len(properties) + 12, _BASIC, 0, size)
    if 0 < size <= room:
        return b"%b%b\xce%b%b\xce" % (head, properties, HEAD.pack(BODY, number, size), body)
    parts = [body[at : at + room] for at in range(0, size, room)]
    return b"%b%b\xce%b" % (head, properties, b"".join(frame(BODY, number, part) for part in parts))


def acknowledging(number: int, tag: int) -> bytes:
    """The frame that settles all deliveries of a session up to a tag."""
    return _ACKNOWLEDGE.pack(METHOD, number, 13, ACK, tag, 1, END)
