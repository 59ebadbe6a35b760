"""Leases: who may do what only one may do. The epoch is raised at every take-over and fences stale writers."""

from __future__ import annotations

from typing import Protocol

from msgspec import Struct


class Fence(Struct, frozen=True, gc=False):
    """A write set with a fence stands only while the lease is at this epoch."""

    lease: str
    epoch: int


class Lease(Protocol):
    """A lease that is held until released, or until it is lost to a newer epoch."""

    name: str
    epoch: int

    @property
    def held(self) -> bool:
        """Whether it is still ours, as far as this process knows."""
        ...

    async def release(self) -> None:
        """Give it up at once."""
        ...


class Leases(Protocol):
    """Gives out leases."""

    async def acquire(self, name: str, owner: str, ttl: float = 10.0) -> Lease | None:
        """Take a lease if it is free, its holder is dead, or it was not renewed for `ttl` seconds; None if another holds it."""
        ...
