"""Time, identifiers and chance: the only sources of nondeterminism, injected everywhere."""

from __future__ import annotations

import asyncio
import random
import time
from datetime import UTC, datetime
from functools import lru_cache
from typing import Final, Protocol

CANONICAL: Final = "1970-01-01T00:00:00.000000Z"
"""What `iso` writes."""
UUID_LENGTH: Final = 36
UUID_BYTES: Final = 16


class Clock(Protocol):
    """Gives the time, new ids and random numbers, and waits."""

    def now(self) -> int:
        """The wall clock, in microseconds since 1970 (UTC)."""
        ...

    def monotonic(self) -> float:
        """Seconds that never run backwards; only differences mean something."""
        ...

    def random(self) -> float:
        """A number from 0 to below 1."""
        ...

    def new_id(self) -> str:
        """A new UUIDv7 in its usual text form; ids of one process sort by time."""
        ...

    async def sleep(self, seconds: float) -> None:
        """Wait so many seconds."""
        ...


def uuid7(microseconds: int, chance: int) -> str:
    """The UUIDv7 of a time in microseconds and 62 random bits (RFC 9562; the part of a millisecond goes into `rand_a`)."""
    milliseconds, rest = divmod(microseconds, 1000)
    return "%08x-%04x-7%03x-%04x-%012x" % (  # noqa: UP031 - a third faster, and there is one a message
        milliseconds >> 16,
        milliseconds & 0xFFFF,
        rest * 4096 // 1000,
        0x8000 | chance >> 48,
        chance & 0xFFFF_FFFF_FFFF,
    )


def uuid_bytes(text: str) -> bytes:
    """The 16 bytes of a UUID in its usual form, in which `uuid_text` gives it back. Raises ValueError for any other text."""
    digits = text.replace("-", "")
    found = bytes.fromhex(digits)
    if len(text) != UUID_LENGTH or len(found) != UUID_BYTES or found.hex() != digits or text[8:24:5] != "----":
        raise ValueError(f"{text!r} is no UUID in its usual form")
    return found


def uuid_text(found: bytes) -> str:
    """The usual form of a UUID of 16 bytes."""
    text = found.hex()
    return f"{text[:8]}-{text[8:12]}-{text[12:16]}-{text[16:20]}-{text[20:]}"


def iso(microseconds: int) -> str:
    """A time in microseconds as RFC 3339 text in UTC."""
    seconds, rest = divmod(microseconds, 1_000_000)
    return f"{_to_the_second(seconds)}.{rest:06d}Z"


@lru_cache(maxsize=1024)
def _to_the_second(seconds: int) -> str:
    return time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(seconds))


def parse_iso(text: str) -> int:
    """RFC 3339 text as microseconds since 1970; a text without a zone is taken as UTC. Raises ValueError."""
    rest = text[20:-1]
    if len(text) == len(CANONICAL) and text[19] == "." and text[-1] == "Z" and rest.isdigit() and rest.isascii():
        return _from_the_second(f"{text[:19]}Z") + int(rest)
    return _microseconds(text)


@lru_cache(maxsize=1024)
def _from_the_second(text: str) -> int:
    return _microseconds(text)


def _microseconds(text: str) -> int:
    moment = datetime.fromisoformat(text)
    moment = moment if moment.tzinfo else moment.replace(tzinfo=UTC)
    delta = moment - datetime(1970, 1, 1, tzinfo=UTC)
    return (delta.days * 86_400 + delta.seconds) * 1_000_000 + delta.microseconds


class SystemClock:
    """The machine's own clock and random numbers."""

    def __init__(self) -> None:
        self._random = random.SystemRandom()
        self._bits = random.Random(self._random.getrandbits(128))
        self._last = 0

    def now(self) -> int:
        return time.time_ns() // 1000

    def monotonic(self) -> float:
        return time.monotonic()

    def random(self) -> float:
        return self._bits.random()

    def new_id(self) -> str:
        now = time.time_ns() // 1000
        self._last = last = now if now > self._last else self._last + 1
        return uuid7(last, self._bits.getrandbits(62))

    async def sleep(self, seconds: float) -> None:
        await asyncio.sleep(seconds)
