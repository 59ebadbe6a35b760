"""CloudEvents 1.0 over AMQP, in binary mode: attributes are application headers, the body is the data as it is.

Each attribute is a header `cloudEvents_<name>`, but for `datacontenttype`, which is the content type. The key of a message is
the attribute `partitionkey`. Headers of others may be written with a colon (`cloudEvents:<name>`), and may be numbers.
"""

from __future__ import annotations

import struct
from collections.abc import Mapping
from datetime import datetime
from functools import lru_cache
from typing import Any, Final

from msgspec import Struct
from pamqp import decode

from headwater.adapters.rabbitmq.frames import short
from headwater.clock import iso

PREFIX: Final = "cloudEvents_"
PREFIXES: Final = (PREFIX, "cloudEvents:")
KEY: Final = "partitionkey"
TYPE: Final = "datacontenttype"
SERVERS: Final = "x-"
"""What headers begin with that servers add."""
SHORTEST: Final = 255
"""Bytes of a name, and of a content type."""

_TEXT: Final = 0x53
_CONTENT_TYPE: Final = 0x8000
_CONTENT_ENCODING: Final = 0x4000
_HEADERS: Final = 0x2000
_DELIVERY_MODE: Final = 0x1000
_PRIORITY: Final = 0x0800
_TEXTS: Final = (0x0400, 0x0200, 0x0100, 0x0080)
_TIMESTAMP: Final = 0x0040
_PERSISTENT: Final = b"\x02"


class Content(Struct, frozen=True, gc=False):
    """What the properties of a message say; `time` in seconds since 1970, 0 where it is not known."""

    headers: dict[str, str]
    key: str
    time: int


# --- writing ---


def properties(key: str, headers: Mapping[str, str], time: int) -> bytes:
    """The properties of a message that is published at a time (in seconds). Raises ValueError, saying why it cannot be."""
    found = [_pair(KEY, key)]
    flags, kind = _HEADERS | _DELIVERY_MODE | _TIMESTAMP, b""
    for name, value in headers.items():
        if name == TYPE and len(value) <= SHORTEST and value.isascii():
            flags |= _CONTENT_TYPE
            kind = short(value)
        elif name == KEY:
            raise ValueError(f"its header {KEY} is what its key is called on the wire: give it another name")
        else:
            found.append(_pair(name, value))
    table = b"".join(found)
    return b"%b%b%b%b%b%b" % (
        flags.to_bytes(2),
        kind,
        len(table).to_bytes(4),
        table,
        _PERSISTENT,
        time.to_bytes(8),
    )


def _pair(name: str, value: str) -> bytes:
    data = value.encode()
    return b"%b%b%b" % (_name(name), len(data).to_bytes(4), data)


@lru_cache(maxsize=4096)
def _name(attribute: str) -> bytes:
    name = f"{PREFIX}{attribute}"
    if len(name.encode()) > SHORTEST:
        raise ValueError(f"the name of its header {attribute[:40]!r}… is too long")
    return short(name) + b"S"


# --- reading ---


def read(raw: bytes) -> Content:
    """What the properties of a message say, whoever has written them; what cannot be read is told as `malformed`."""
    try:
        return _read(raw)
    except (ValueError, IndexError, struct.error) as error:
        return Content({"malformed": f"{error}: {raw.hex()}"}, "", 0)


def _read(raw: bytes) -> Content:
    flags, at = int.from_bytes(raw[:2]), 2
    headers: dict[str, str] = {}
    others: dict[str, str] = {}
    if flags & _CONTENT_TYPE:
        headers[TYPE], at = _short(raw, at)
    if flags & _CONTENT_ENCODING:
        _, at = _short(raw, at)
    if flags & _HEADERS:
        end = at + 4 + int.from_bytes(raw[at : at + 4])
        at += 4
        while at < end:
            start = at + 1 + raw[at]
            attribute, name = _attribute(raw[at + 1 : start])
            if raw[start] == _TEXT:
                at = start + 5 + int.from_bytes(raw[start + 1 : start + 5])
                value = raw[start + 5 : at].decode("utf-8", "backslashreplace")
            else:
                used, found = decode.embedded_value(raw[start:])
                at, value = start + used, _text(found)
            if attribute is not None:
                headers[attribute] = value
            elif not name.startswith(SERVERS):
                others[name] = value
    key = headers.pop(KEY, None)
    if key is None and not headers.keys() - {TYPE}:  # no CloudEvent
        headers |= others
    return Content(headers, key or "", _timestamp(raw, at, flags))


def _short(raw: bytes, at: int) -> tuple[str, int]:
    end = at + 1 + raw[at]
    return raw[at + 1 : end].decode("utf-8", "backslashreplace"), end


@lru_cache(maxsize=4096)
def _attribute(data: bytes) -> tuple[str | None, str]:
    """The attribute that a header is, if it is one; and the header's own name."""
    name = data.decode("utf-8", "backslashreplace")
    return name[len(PREFIX) :] if name.startswith(PREFIXES) else None, name


def _text(value: Any) -> str:
    """A value in the form that CloudEvents gives it as text."""
    match value:
        case bool():
            return "true" if value else "false"
        case bytes() | bytearray():
            return value.decode("utf-8", "backslashreplace")
        case datetime():
            return iso(round(value.timestamp() * 1_000_000))
        case _:
            return str(value)


def _timestamp(raw: bytes, at: int, flags: int) -> int:
    if not flags & _TIMESTAMP:
        return 0
    at += bool(flags & _DELIVERY_MODE) + bool(flags & _PRIORITY)
    for flag in _TEXTS:
        if flags & flag:
            _, at = _short(raw, at)
    return int.from_bytes(raw[at : at + 8])
