"""Timers and delayed messages, and the states of saga instances that set them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

from msgspec import Struct

from headwater.message import Draft


class Timer(Struct, frozen=True, gc=False):
    """A message that is appended to `stream` at `due` (microseconds). (owner, key, name) is its identity: setting replaces."""

    owner: str
    key: str
    name: str
    due: int
    stream: str
    draft: Draft


class Cancel(Struct, frozen=True, gc=False):
    """Remove a timer. With `must`, the write set stands only if the timer, due at `due`, is still there."""

    owner: str
    key: str
    name: str
    must: bool = False
    due: int = 0


class SagaState(Struct, frozen=True, gc=False):
    """The state of a saga instance: its row moves from version `expect` to `expect + 1`; `ended` keeps it for late messages."""

    saga: str
    key: str
    expect: int
    data: bytes
    ended: bool = False


class Timers(Protocol):
    """Reads of timers and saga states."""

    async def timers_due(self, now: int, limit: int) -> list[Timer]:
        """Timers that are due, earliest first."""
        ...

    async def timers_list(self, limit: int) -> list[Timer]:
        """The timers that are set, earliest first."""
        ...

    async def next_timer(self) -> int | None:
        """When the next timer is due, in microseconds."""
        ...

    async def sagas(self, saga: str, keys: Sequence[str]) -> dict[str, SagaState]:
        """The states of those instances that exist; `expect` is the version they are at."""
        ...
