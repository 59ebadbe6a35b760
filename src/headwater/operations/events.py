"""Events as an operator sees them: listed, followed, and shown one at a time with their payload."""

from __future__ import annotations

from collections import deque
from collections.abc import AsyncIterator
from typing import Any, Final

import msgspec
from msgspec import Struct

from headwater.clock import iso
from headwater.database import Database
from headwater.errors import NotFound
from headwater.message import JSON, Recorded, stream_category

PAGE: Final = 1000
POLL: Final = 1.0


class Filter(Struct, frozen=True):
    """Which messages of a log are wanted; what is empty does not matter.

    `category` and `type` are stored names, whole or without their service.
    """

    stream: str = ""
    category: str = ""
    type: str = ""

    @property
    def open(self) -> bool:
        """Whether it lets everything through."""
        return not (self.stream or self.category or self.type)

    def takes(self, recorded: Recorded) -> bool:
        """Whether a message is wanted."""
        return (
            (not self.stream or recorded.stream == self.stream)
            and (not self.category or is_named(stream_category(recorded.stream), self.category))
            and (not self.type or is_named(recorded.type, self.type))
        )


class EventLine(Struct, frozen=True):
    """A message of the log without its payload."""

    position: int
    time: str
    stream: str
    version: int
    kind: str
    type: str
    id: str


class EventDetail(Struct, frozen=True):
    """A message of the log whole; `data` is the payload as plain values, or text where it is not JSON."""

    position: int
    time: str
    stream: str
    version: int
    previous: int
    kind: str
    type: str
    type_version: int
    id: str
    metadata: dict[str, str]
    data: Any


def is_named(full: str, name: str) -> bool:
    """Whether a stored name is the one that is meant: whole, or without its service."""
    return full == name or full.partition(".")[2] == name


def to_line(recorded: Recorded) -> EventLine:
    """A message in one line."""
    return EventLine(
        recorded.position,
        iso(recorded.time),
        recorded.stream,
        recorded.version,
        recorded.kind,
        recorded.type,
        recorded.id,
    )


def to_detail(recorded: Recorded) -> EventDetail:
    """A message with its payload and metadata."""
    return EventDetail(
        recorded.position,
        iso(recorded.time),
        recorded.stream,
        recorded.version,
        recorded.previous,
        recorded.kind,
        recorded.type,
        recorded.type_version,
        recorded.id,
        msgspec.to_builtins(recorded.metadata),
        plain(recorded),
    )


def plain(recorded: Recorded) -> Any:
    """A payload as plain values; as text, with what is no text escaped, where it is not JSON."""
    if recorded.codec == JSON:
        try:
            return msgspec.json.decode(recorded.data)
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
            pass
    return recorded.data.decode("utf-8", "backslashreplace")


async def list_events(
    database: Database, wanted: Filter, *, after: int | None = None, limit: int = 50
) -> list[Recorded]:
    """The first `limit` messages after a position, or without one the last; in the order of the log."""
    if wanted.stream:
        return await _list_stream(database, wanted, after, limit)
    backwards = after is None
    place = await database.head() + 1 if after is None else after
    found: list[Recorded] = []
    size = min(limit, PAGE) if wanted.open else PAGE
    while len(found) < limit and (page := await database.read(place, size, backwards=backwards)):
        found += [one for one in page if wanted.takes(one)]
        place = page[-1].position
    return found[:limit][::-1] if backwards else found[:limit]


async def _list_stream(database: Database, wanted: Filter, after: int | None, limit: int) -> list[Recorded]:
    found: deque[Recorded] = deque(maxlen=limit if after is None else None)
    version = 0
    while page := await database.read_stream(wanted.stream, version, PAGE):
        found.extend(one for one in page if wanted.takes(one) and one.position > (after or 0))
        version = page[-1].version
        if after is not None and len(found) >= limit:
            break
    return list(found)[:limit]


async def tail_events(database: Database, wanted: Filter, *, after: int | None = None) -> AsyncIterator[Recorded]:
    """Messages as they are committed, for ever: from now on, or after a position."""
    place = await database.head() if after is None else after
    while True:
        page = await database.read(place, PAGE)
        for recorded in page:
            if wanted.takes(recorded):
                yield recorded
        if page:
            place = page[-1].position
        else:
            await database.changed(place, POLL)


async def find_event(database: Database, reference: str) -> Recorded:
    """The message at a position, at `stream@version`, or with an id. Raises NotFound."""
    stream, at, version = reference.rpartition("@")
    if reference.isdecimal():
        page = await database.read(int(reference) - 1, 1)
        found = page[0] if page and page[0].position == int(reference) else None
    elif at and version.isdecimal():
        page = await database.read_stream(stream, int(version) - 1, 1)
        found = page[0] if page and page[0].version == int(version) else None
    else:
        found = await _find_id(database, reference)
    if found is None:
        raise NotFound(
            f"no event is {reference!r}; give its position, stream@version or id, as `events list` shows them"
        )
    return found


async def _find_id(database: Database, message_id: str) -> Recorded | None:
    place = await database.head() + 1
    while page := await database.read(place, PAGE, backwards=True):
        for recorded in page:
            if recorded.id == message_id:
                return recorded
        place = page[-1].position
    return None
