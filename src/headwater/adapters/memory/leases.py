"""Leases in memory: they last by the clock, and one task of the database object renews those it holds."""

from __future__ import annotations

import asyncio

from headwater.adapters.memory.file import MemoryFile
from headwater.adapters.memory.writing import LEASES
from headwater.clock import Clock

Row = tuple[str, int, int]
"""Owner (empty: nobody), epoch, and when it expires."""


class MemoryLease:
    """A lease that a memory database holds."""

    def __init__(self, holder: LeaseHolder, name: str, owner: str, epoch: int, ttl: float) -> None:
        self.name = name
        self.epoch = epoch
        self.owner = owner
        self.ttl = ttl
        self._holder = holder

    @property
    def held(self) -> bool:
        return self in self._holder.leases and self._holder.row(self.name)[:2] == (self.owner, self.epoch)

    async def release(self) -> None:
        await self._holder.file.turn()
        self._holder.give_up(self)


class LeaseHolder:
    """The leases of one database object."""

    def __init__(self, file: MemoryFile, clock: Clock) -> None:
        self.file = file
        self.clock = clock
        self.leases: list[MemoryLease] = []
        self._renewal: asyncio.Task[None] | None = None

    def row(self, name: str) -> Row:
        found: Row = self.file.table(LEASES).get(name, ("", 0, 0))
        return found

    def write(self, name: str, row: Row) -> None:
        self.file.tables.setdefault(LEASES, {})[name] = row

    def acquire(self, name: str, owner: str, ttl: float) -> MemoryLease | None:
        """Take a lease if it is free, ours or expired."""
        last, epoch, expires = self.row(name)
        if last and last != owner and self.clock.now() < expires:
            return None
        self.leases = [lease for lease in self.leases if lease.name != name]
        lease = MemoryLease(self, name, owner, epoch + 1, ttl)
        self.leases.append(lease)
        self._renew(lease)
        if self._renewal is None or self._renewal.done():
            self._renewal = asyncio.get_running_loop().create_task(self._renew_all())
        return lease

    def give_up(self, lease: MemoryLease) -> None:
        """Free a lease; its epoch stays for the next holder to raise."""
        if lease.held:
            self.write(lease.name, ("", lease.epoch, 0))
            self.leases.remove(lease)

    def forget(self) -> None:
        """Renew nothing any more."""
        self.leases.clear()
        if self._renewal is not None and not self._renewal.done():
            self._renewal.cancel()
        self._renewal = None

    def _renew(self, lease: MemoryLease) -> None:
        self.write(lease.name, (lease.owner, lease.epoch, self.clock.now() + round(lease.ttl * 1_000_000)))

    async def _renew_all(self) -> None:
        while self.leases:
            await self.clock.sleep(min(lease.ttl for lease in self.leases) / 3)
            self.leases = [lease for lease in self.leases if lease.held]
            for lease in self.leases:
                self._renew(lease)
