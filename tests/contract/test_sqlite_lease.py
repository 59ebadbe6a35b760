"""Leases between processes: the killed free them at once, the stopped after their time to live."""

from __future__ import annotations

import asyncio
import signal
import subprocess
import sys
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path

from headwater.adapters.sqlite import SqliteDatabase
from headwater.adapters.sqlite.lease import SqliteLease
from headwater.clock import SystemClock
from headwater.lease import Lease

CHILD = """
import asyncio, sys
from headwater.adapters.sqlite import SqliteDatabase
from headwater.clock import SystemClock

async def main():
    database = SqliteDatabase(sys.argv[1], SystemClock())
    await database.open()
    lease = await database.acquire("relay", "child", float(sys.argv[2]))
    print(lease.epoch, flush=True)
    while lease.held:
        await asyncio.sleep(0.01)
    print("lost", flush=True)

asyncio.run(main())
"""


@asynccontextmanager
async def opened(path: Path) -> AsyncIterator[SqliteDatabase]:
    database = SqliteDatabase(path / "a.db", SystemClock())
    await database.open()
    try:
        yield database
    finally:
        await database.close()


@asynccontextmanager
async def holder(database: SqliteDatabase, ttl: float) -> AsyncIterator[subprocess.Popen[str]]:
    """Another process that holds the lease."""
    child = subprocess.Popen(  # noqa: ASYNC220 - it starts before anything waits
        [sys.executable, "-c", CHILD, str(database.file.path), str(ttl)], stdout=subprocess.PIPE, text=True
    )
    try:
        assert child.stdout is not None
        assert child.stdout.readline() == "1\n"
        yield child
    finally:
        child.kill()
        child.communicate()


async def soon(take: Callable[[], Awaitable[Lease | None]]) -> Lease:
    """The lease, as soon as it is free; well before its time to live is over."""
    async with asyncio.timeout(20):
        while (lease := await take()) is None:
            await asyncio.sleep(0.005)
    return lease


async def until(so: Callable[[], bool]) -> None:
    """Wait until it is so."""
    async with asyncio.timeout(20):
        while not so():
            await asyncio.sleep(0.005)


def test_the_lease_of_a_killed_process_is_free_at_once(tmp_path: Path) -> None:
    async def main() -> None:
        async with opened(tmp_path) as database, holder(database, 60.0) as child:
            assert await database.acquire("relay", "me", 60.0) is None
            child.kill()
            lease = await soon(lambda: database.acquire("relay", "me", 60.0))
            assert (lease.epoch, lease.held) == (2, True)

    asyncio.run(main())


def test_a_stopped_process_loses_its_lease_after_its_time_to_live(tmp_path: Path) -> None:
    async def main() -> None:
        async with opened(tmp_path) as database, holder(database, 1.0) as child:
            child.send_signal(signal.SIGSTOP)
            lease = await soon(lambda: database.acquire("relay", "me", 1.0))
            child.send_signal(signal.SIGCONT)
            assert child.stdout is not None
            assert child.stdout.readline() == "lost\n"
            await asyncio.sleep(1.0)
            await until(lambda: lease.held)
            assert lease.epoch == 2

    asyncio.run(main())


def test_a_lease_that_cannot_be_renewed_is_not_held_for_long(tmp_path: Path) -> None:
    async def main() -> None:
        async with opened(tmp_path) as database:
            lease = await database.acquire("relay", "me", 0.1)
            assert lease is not None
            async with database.transaction():
                await asyncio.sleep(0.3)
                assert not lease.held
            await until(lambda: lease.held)

    asyncio.run(main())


def test_the_same_owner_may_take_its_lease_again(tmp_path: Path) -> None:
    async def main() -> None:
        async with opened(tmp_path) as database:
            first = await database.acquire("relay", "me", 5.0)
            second = await database.acquire("relay", "me", 5.0)
            assert isinstance(first, SqliteLease)
            assert isinstance(second, SqliteLease)
            assert (second.epoch, second.held, first.held) == (first.epoch + 1, True, False)
            await first.release()
            assert second.held
            assert await database.acquire("relay", "other", 5.0) is None

    asyncio.run(main())


def test_a_closed_database_leaves_no_lock_files(tmp_path: Path) -> None:
    async def main() -> None:
        async with opened(tmp_path) as database:
            for number in range(3):
                lease = await database.acquire(f"{number}/ü", "me", 5.0)
                assert lease is not None
        assert list((tmp_path / "a.db.leases").iterdir()) == []

    asyncio.run(main())
