"""Leases between processes and machines: a row with an epoch that lasts by the server's clock, and no longer than its process.

A process that listens holds a lock of its own there: one that was killed is seen to be gone at once, one that is stopped
when its lease expires. Who is cut off for a moment may lose a lease, and no more than that. Who writes under a fence holds
its lease's lock shared until the end; who takes the lease over waits for that, so that no write of an old epoch ends after
the new one has begun. Renewal has a thread of its own: a busy loop loses no lease.
"""

from __future__ import annotations

import asyncio
import threading
import time
from typing import Final

import psycopg

from headwater import fault
from headwater.adapters.postgres.bell import Bell, heard
from headwater.adapters.postgres.facts import columns, locking
from headwater.adapters.postgres.schema import LEASES, PRESENCE
from headwater.adapters.postgres.server import Blocking, Pool
from headwater.adapters.postgres.statement import Plan, Statement
from headwater.errors import HeadwaterError

TAKE: Final = f"""
INSERT INTO headwater.leases AS l VALUES (%s, %s, 1, clock_timestamp() + make_interval(secs => %s), %s)
ON CONFLICT (name) DO UPDATE
    SET owner = excluded.owner, epoch = l.epoch + 1, expires = excluded.expires, process = excluded.process
WHERE l.owner IN ('', excluded.owner) OR l.expires <= clock_timestamp() OR l.process <> 0 AND NOT EXISTS (
    SELECT FROM pg_locks WHERE locktype = 'advisory' AND classid = {PRESENCE} AND objid::bigint = l.process AND objsubid = 2
        AND database = (SELECT oid FROM pg_database WHERE datname = current_database())
) RETURNING epoch
"""
RENEW: Final = """
UPDATE headwater.leases l SET expires = clock_timestamp() + make_interval(secs => w.ttl)
FROM unnest(%s::text[], %s::bigint[], %s::float8[]) AS w (name, epoch, ttl)
WHERE l.name = w.name AND l.epoch = w.epoch AND l.owner <> '' RETURNING l.name
"""
RELEASE: Final = "UPDATE headwater.leases SET owner = '', expires = '-infinity' WHERE name = %s AND epoch = %s"
LISTENING: Final = 1.0
"""Seconds for which a lease that is taken waits until its process listens."""


class PostgresLease:
    """A lease that this process took."""

    def __init__(self, holder: LeaseHolder, name: str, epoch: int, ttl: float, began: float) -> None:
        self.name = name
        self.epoch = epoch
        self.ttl = ttl
        self._holder = holder
        self._until = began + ttl
        self.lost = False

    @property
    def held(self) -> bool:
        return not self.lost and time.monotonic() < self._until

    async def release(self) -> None:
        await self._holder.release(self)

    def renewed(self, at: float) -> None:
        """It was renewed by a statement that was sent at a monotonic time."""
        self._until = at + self.ttl


class LeaseHolder:
    """The leases of one database object, renewed three times in their time to live. `bell` shows that its process lives."""

    def __init__(self, pool: Pool, bell: Bell, process: int) -> None:
        self._pool = pool
        self._bell = bell
        self._process = process
        self._held: dict[str, PostgresLease] = {}
        self._guard = threading.Lock()
        self._wake = threading.Event()
        self._closed = False
        self._thread: threading.Thread | None = None

    async def acquire(self, name: str, owner: str, ttl: float) -> PostgresLease | None:
        """Take a lease if it is free, its owner's own, or has expired."""
        await heard(self._bell.listening, LISTENING)
        process = self._process if self._bell.listening.is_set() else 0
        began = time.monotonic()
        epoch = await self._pool.settle(lambda: _taking(name, owner, ttl, process))
        if epoch is None:
            return None
        fault.point("lease.taken")
        lease = PostgresLease(self, name, epoch, ttl, began)
        with self._guard:
            before = self._held.get(name)
            self._held[name] = lease
        if before is not None:
            before.lost = True
        if self._thread is None:
            self._thread = threading.Thread(target=self._renew_all, name="headwater-leases", daemon=True)
            self._thread.start()
        self._wake.set()
        return lease

    async def release(self, lease: PostgresLease) -> None:
        """Give a lease up; what another holds by now is not touched."""
        if not self._forget(lease):
            return
        try:
            await self._pool.rows(Statement(RELEASE, (lease.name, lease.epoch)))
        except HeadwaterError:  # it ends by itself
            return

    async def close(self) -> None:
        """Give all up and end the renewal."""
        for lease in list(self._held.values()):
            await self.release(lease)
        self._closed = True
        self._wake.set()
        if self._thread is not None:
            await asyncio.to_thread(self._thread.join)

    def _forget(self, lease: PostgresLease) -> bool:
        lease.lost = True
        with self._guard:
            if self._held.get(lease.name) is not lease:
                return False
            del self._held[lease.name]
        return True

    # --- in the thread of renewals ---

    def _renew_all(self) -> None:
        connection: Blocking | None = None
        while not self._closed:
            with self._guard:
                leases = list(self._held.values())
            if self._wake.wait(min((lease.ttl for lease in leases), default=60.0) / 3):
                self._wake.clear()  # others came or went: begin anew
                continue
            connection = self._renewed(connection, leases) or self._renewed(None, leases)
        if connection is not None:
            connection.close()

    def _renewed(self, connection: Blocking | None, leases: list[PostgresLease]) -> Blocking | None:
        """Renew; the connection, or None if it broke. A lease that is not renewed ends by itself."""
        try:
            connection = connection or self._pool.server.connect_now()
            self._renew(connection, leases)
        except (HeadwaterError, psycopg.Error):
            if connection is not None:
                connection.close()
            return None
        return connection

    def _renew(self, connection: Blocking, leases: list[PostgresLease]) -> None:
        if not leases:
            return
        began = time.monotonic()
        given = columns(sorted((lease.name, lease.epoch, lease.ttl) for lease in leases))
        renewed = {name for (name,) in connection.execute(RENEW, given).fetchall()}
        fault.point("lease.renewed")
        for lease in leases:
            if lease.name in renewed:
                lease.renewed(began)
            else:
                self._forget(lease)


def present(process: int) -> list[Statement]:
    """What a process that listens does first, to show that it lives; nothing for the process 0."""
    return [Statement("SELECT pg_advisory_lock_shared(%s, %s)", (PRESENCE, process))] if process else []


def _taking(name: str, owner: str, ttl: float, process: int) -> Plan[int | None]:
    _, taken = yield [*locking(LEASES, [name]), Statement(TAKE, (name, owner, ttl, process))]
    fault.point("lease.taking")
    return taken[0][0] if taken else None
