"""The log of a service: streams of messages with versions, in one order of positions; and the answers to command keys.

Events may carry tags. A condition (dynamic consistency boundary) names events by type and tag wherever they stand, and what
its reader has seen of them; it holds as long as no other has come.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from typing import Final, Protocol

from msgspec import Struct

from headwater.errors import DeclarationError
from headwater.message import Draft, Recorded

ANY: Final = -1
"""Expect no particular version: the append goes to the end of the stream."""


Past = tuple[int, str, str, int, bytes]
"""What an aggregate is made of again: a message's version, kind, type, version of the type, and data."""


def past(one: Recorded) -> Past:
    """What an aggregate needs of a message."""
    return one.version, one.kind, one.type, one.type_version, one.data


class Append(Struct, frozen=True, gc=False):
    """Messages for the end of a stream, which must be at version `expect` (0: it does not exist yet; `ANY`: wherever it is)."""

    stream: str
    expect: int
    drafts: Sequence[Draft]


class Item(Struct, frozen=True):
    """Events of one of these types (none given: of any) that carry all of these tags. It names a type or a tag."""

    types: tuple[str, ...] = ()
    tags: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        if not self.types and not self.tags:
            raise DeclarationError("an item of a query names a type or a tag: all events there are, are no boundary")

    def takes(self, name: str, tags: Collection[str]) -> bool:
        """Whether an event is one of these, by the name of its type and its tags."""
        return (not self.types or name in self.types) and all(tag in tags for tag in self.tags)


class Seen(Struct, frozen=True):
    """What a reader has seen of the events that it asked for: all up to the position `safe`, and those `above` it."""

    safe: int = 0
    above: tuple[int, ...] = ()


class Condition(Struct, frozen=True):
    """Of the events that one of the items takes, none stands but those that were seen."""

    items: tuple[Item, ...]
    seen: Seen


class Relevant(Struct, frozen=True):
    """Events that a query takes, in the order of the log, and what has now been seen of them.

    With each are the places (from 0, rising) of the items that take it.
    """

    events: Sequence[tuple[Recorded, Sequence[int]]]
    seen: Seen


class CommandKey(Struct, frozen=True, gc=False):
    """The name under which a command is known: a second command of the same (tenant, key) is answered as the first was.

    `hash` is of the command's type and data; the same key with another hash is an error. `time` is in microseconds.
    """

    tenant: str
    key: str
    hash: bytes
    time: int


class Committed(Struct, frozen=True, gc=False):
    """On disk: the position of the last message written and its version in its stream; `repeated`: it was already there."""

    position: int
    version: int
    repeated: bool = False


class Settled(Struct, frozen=True, gc=False):
    """What is stored of a command key: the hash of its command and the answer."""

    hash: bytes
    position: int
    version: int


class Store(Protocol):
    """Reads of the log. Positions rise in commit order; a reader that has seen position n never misses one below."""

    async def read(self, after: int, limit: int, *, backwards: bool = False) -> list[Recorded]:
        """Up to `limit` messages with positions above `after` (or below it, falling), in order."""
        ...

    async def read_streams(self, after: Mapping[str, int]) -> dict[str, list[Past]]:
        """All messages of each stream above the version given for it, in order; nothing of streams without any."""
        ...

    async def read_stream(self, stream: str, after: int, limit: int) -> list[Recorded]:
        """Up to `limit` messages of one stream above a version."""
        ...

    async def read_relevant(self, items: Sequence[Item], seen: Seen) -> Relevant:
        """The events that one of the items takes and that were not seen before, all of them."""
        ...

    async def head(self) -> int:
        """The last position of the log, 0 when it is empty."""
        ...

    async def settled(self, tenant: str, key: str) -> Settled | None:
        """The stored answer to a command key."""
        ...

    async def forget_keys(self, before: int) -> int:
        """Delete command keys older than a time in microseconds; how many went."""
        ...
