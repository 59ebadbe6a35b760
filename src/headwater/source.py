"""A source gives a consumer batches in order: our own log, or a channel."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

from msgspec import Struct

from headwater.checkpoint import Checkpoint
from headwater.message import Recorded


class Malformed(Struct, frozen=True, gc=False):
    """A delivery that is no message: kept raw, with where it was and what is wrong with it."""

    topic: str
    position: int
    partition: int
    headers: dict[str, str]
    body: bytes
    cause: str


Span = tuple[int, int]
"""Of one stream: the version before the first that a tally speaks of, and the last."""


class Tally(Struct, frozen=True, gc=False):
    """What a producer says it has published on a topic: streams with their versions. `message` is it as it was sent."""

    message: Recorded
    topic: str
    streams: dict[str, Span]


class Batch(Struct, frozen=True, gc=False):
    """Messages in order, what could not be decoded, the checkpoint that settles them where the source is our log, and tallies."""

    messages: Sequence[Recorded]
    malformed: Sequence[Malformed] = ()
    checkpoint: Checkpoint | None = None
    tallies: Sequence[Tally] = ()


class Source(Protocol):
    """Feeds consumers. `ours`: our own log, in which nothing is repeated or missing, so that no marks are needed."""

    name: str
    ours: bool

    async def fetch(self, limit: int) -> Batch | None:
        """The next batch that is there now, after those fetched before."""
        ...

    async def acknowledge(self, batch: Batch) -> None:
        """The batch is settled in the consumer's database."""
        ...

    async def release(self) -> None:
        """Forget what was fetched and not acknowledged: it is fetched again."""
        ...

    async def wait(self, timeout: float) -> None:
        """Return when there may be something to fetch, or after so many seconds."""
        ...
