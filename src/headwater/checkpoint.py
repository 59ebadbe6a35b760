"""How far a reader of the log has come."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

from msgspec import Struct


class Checkpoint(Struct, frozen=True, gc=False):
    """Move a reader's place in the log from `expect` to `position`; it stands only if it is at `expect`."""

    name: str
    position: int
    expect: int


class Consuming(Struct, frozen=True, gc=False):
    """What is known of a consumer from outside: what feeds it (`log` or `channel`), its topics, and its kind."""

    name: str
    source: str
    kind: str
    topics: Sequence[str] = ()


class Checkpoints(Protocol):
    """Reads of checkpoints, and the register of consumers."""

    async def checkpoint(self, name: str) -> int:
        """The position a reader has settled, 0 at first."""
        ...

    async def register(self, consumers: Sequence[Consuming]) -> None:
        """Write down which consumers this service has, so that tools can list them; those no longer named are removed."""
        ...

    async def registered(self) -> list[Consuming]:
        """The consumers written down last."""
        ...
