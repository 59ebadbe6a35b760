"""Leases between the processes of one machine: a row with an epoch, and an OS lock that dies with its holder.

Epoch n of a lease has a lock file of its own, so that whoever may hold it is known dead as soon as that lock is free. A
holder that is stopped keeps its lock; it loses the lease when the row expires. All is decided in a write transaction.
Leases go by the machine's clock, since their holders are processes.
"""

from __future__ import annotations

import asyncio
import hashlib
import threading
import time
from pathlib import Path
from typing import Any, Final

import apsw

from headwater import fault
from headwater.adapters.sqlite.faults import translated
from headwater.adapters.sqlite.file import File, fetch
from headwater.adapters.sqlite.lock import FileLock
from headwater.adapters.sqlite.writer import Writer
from headwater.errors import DatabaseError, HeadwaterError, Unknown

READ: Final = "SELECT owner, epoch, expires FROM leases WHERE name = ?"
TAKE: Final = """
INSERT INTO leases VALUES (?, ?, ?, ?)
ON CONFLICT DO UPDATE SET owner = excluded.owner, epoch = excluded.epoch, expires = excluded.expires
"""
RENEW: Final = "UPDATE leases SET expires = ? WHERE name = ? AND epoch = ? AND owner <> '' RETURNING 1"
RELEASE: Final = "UPDATE leases SET owner = '', expires = 0 WHERE name = ? AND epoch = ?"


class SqliteLease:
    """A lease that this process took."""

    def __init__(self, holder: LeaseHolder, name: str, owner: str, epoch: int, ttl: float) -> None:
        self.name = name
        self.owner = owner
        self.epoch = epoch
        self.ttl = ttl
        self._holder = holder
        self._until = time.monotonic() + ttl
        self.lost = False

    @property
    def held(self) -> bool:
        return not self.lost and time.monotonic() < self._until

    async def release(self) -> None:
        await self._holder.release(self)

    def renewed(self, at: float) -> None:
        """It was renewed by a transaction that began at a monotonic time."""
        self._until = at + self.ttl


class LeaseHolder:
    """The leases of one database object, renewed by a thread of its own three times in their time to live."""

    def __init__(self, file: File, writer: Writer[Any, Any]) -> None:
        self._file = file
        self._writer = writer
        self._folder = Path(f"{file.path}.leases")
        self._held: dict[str, tuple[SqliteLease, FileLock]] = {}
        self._guard = threading.Lock()
        self._wake = threading.Event()
        self._closed = False
        self._thread: threading.Thread | None = None

    async def acquire(self, name: str, owner: str, ttl: float) -> SqliteLease | None:
        """Take a lease if it is free, ours, its holder is dead, or it has expired."""
        lock: FileLock | None = None
        try:
            async with self._writer.exclusive() as loan:
                with loan.use() as connection, translated(self._file.path):
                    taken = self._take(connection, name, owner, ttl)
                    if taken is None:
                        return None
                    lease, lock = taken
        except BaseException:
            if lock is not None:
                lock.close()
            raise
        fault.point("lease.taken")
        self._keep(lease, lock)
        self._path(name, lease.epoch - 1).unlink(missing_ok=True)
        return lease

    async def release(self, lease: SqliteLease) -> None:
        """Give a lease up; what another holds by now is not touched."""
        if not self._forget(lease):
            return
        try:
            async with self._writer.exclusive() as loan:
                with loan.use() as connection:
                    connection.execute(RELEASE, (lease.name, lease.epoch))
                    fault.point("lease.releasing")
        except (DatabaseError, Unknown):  # its lock is free, and so is the lease
            return

    async def close(self) -> None:
        """Give all up and end the renewal."""
        for lease, _ in list(self._held.values()):
            await self.release(lease)
        self._closed = True
        self._wake.set()
        if self._thread is not None:
            await asyncio.to_thread(self._thread.join)

    def _take(
        self, connection: apsw.Connection, name: str, owner: str, ttl: float
    ) -> tuple[SqliteLease, FileLock] | None:
        row = fetch(connection, READ, (name,))
        last, epoch, expires = row[0] if row else ("", 0, 0)
        if last and _now() < expires and not self._ours(name, owner, epoch) and self._alive(name, epoch):
            return None
        self._folder.mkdir(exist_ok=True)
        lock = FileLock(self._path(name, epoch + 1))
        if not lock.take():
            lock.close()
            return None
        connection.execute(TAKE, (name, owner, epoch + 1, _now() + round(ttl * 1_000_000)))
        fault.point("lease.taking")
        return SqliteLease(self, name, owner, epoch + 1, ttl), lock

    def _ours(self, name: str, owner: str, epoch: int) -> bool:
        held = self._held.get(name)
        return held is not None and (held[0].owner, held[0].epoch) == (owner, epoch)

    def _alive(self, name: str, epoch: int) -> bool:
        """Whether some process has the lock of an epoch."""
        path = self._path(name, epoch)
        if not path.exists():
            return False
        lock = FileLock(path)
        free = lock.take()
        lock.close()
        return not free

    def _path(self, name: str, epoch: int) -> Path:
        return self._folder / f"{hashlib.blake2b(name.encode(), digest_size=12).hexdigest()}.{epoch}"

    def _keep(self, lease: SqliteLease, lock: FileLock) -> None:
        with self._guard:
            before = self._held.get(lease.name)
            self._held[lease.name] = lease, lock
        if before is not None:
            before[0].lost = True
            before[1].close()
        if self._thread is None:
            self._thread = threading.Thread(target=self._renew_all, name="headwater-leases", daemon=True)
            self._thread.start()
        self._wake.set()

    def _forget(self, lease: SqliteLease) -> bool:
        lease.lost = True
        with self._guard:
            held = self._held.get(lease.name)
            if held is None or held[0] is not lease:
                return False
            del self._held[lease.name]
        held[1].close()
        self._path(lease.name, lease.epoch).unlink(missing_ok=True)
        return True

    # --- in the thread of renewals ---

    def _renew_all(self) -> None:
        means: tuple[FileLock, apsw.Connection] | None = None
        while not self._closed:
            with self._guard:
                leases = [lease for lease, _ in self._held.values()]
            if self._wake.wait(min((lease.ttl for lease in leases), default=60.0) / 3):
                self._wake.clear()  # others came or went: begin anew
                continue
            try:
                means = means or (self._file.lock(), self._file.connect())
                with means[0], translated(self._file.path):
                    self._renew(means[1], leases)
            except HeadwaterError:  # a lease that is not renewed ends by itself
                continue
        for one in means or ():
            one.close()

    def _renew(self, connection: apsw.Connection, leases: list[SqliteLease]) -> None:
        began, expires = time.monotonic(), _now()
        lost: list[SqliteLease] = []
        connection.execute("BEGIN IMMEDIATE")
        try:
            for lease in leases:
                until = expires + round(lease.ttl * 1_000_000)
                if not fetch(connection, RENEW, (until, lease.name, lease.epoch)):
                    lost.append(lease)
            fault.point("lease.renewing")
            connection.execute("COMMIT")
            fault.point("lease.renewed")
        except BaseException:
            if connection.in_transaction:
                connection.execute("ROLLBACK")
            raise
        for lease in leases:
            lease.renewed(began)
        for lease in lost:
            self._forget(lease)


def _now() -> int:
    return time.time_ns() // 1000
