"""What befalls a server: its disk is full, its clock is off, it is restored from a dump on another machine."""

from __future__ import annotations

import asyncio
import os
import shutil
import subprocess
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import pytest

from headwater.adapters.postgres import PostgresChannel, PostgresDatabase
from headwater.channel import Publication
from headwater.clock import SystemClock
from headwater.database import Answer, Collision, Failed, WriteSet
from headwater.errors import DatabaseFull, Unknown
from headwater.lease import Fence
from headwater.message import JSON, Draft
from headwater.store import ANY, Append, CommandKey, Committed
from tests.fault.test_postgres_outages import opened
from tests.servers.postgres import Databases, PostgresServer, programs, run

CLOCK = SystemClock()


def appending(stream: str = "bank.Account/a", size: int = 2, name: str = "", **parts: Any) -> WriteSet:
    draft = Draft("event", CLOCK.new_id(), "bank.Paid", 1, JSON, 1, os.urandom(size // 2).hex().encode(), b"")
    return WriteSet(
        appends=[Append(stream, ANY, [draft])], key=CommandKey("", name, b"h", 1) if name else None, **parts
    )


# --- a full disk ---


@contextmanager
def small_disk(size: str) -> Iterator[Path]:
    """A folder on a disk of its own."""
    if os.getuid():
        pytest.skip("only root may mount a disk")
    folder = Path(tempfile.mkdtemp(prefix="headwater-disk-"))
    subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={size},mode=777", "tmpfs", folder], check=True)
    try:
        yield folder
    finally:
        subprocess.run(["umount", "--lazy", folder], check=True)
        folder.rmdir()


def enlarge(folder: Path, size: str) -> None:
    subprocess.run(["mount", "-o", f"remount,size={size}", folder], check=True)


async def until(database: PostgresDatabase, wanted: type[Answer], answered: list[str], size: int = 200_000) -> Answer:
    """Append until an answer is of a kind; what is committed is written down."""
    end = time.monotonic() + 30
    while time.monotonic() < end:
        name = CLOCK.new_id()
        (answer,) = await database.commit([appending(size=size, name=name)])
        if isinstance(answer, Committed):
            answered.append(name)
        if isinstance(answer, wanted):
            return answer
        if not isinstance(answer, Committed):
            await asyncio.sleep(0.05)
    raise AssertionError(f"no {wanted.__name__} comes")


def stored(url: str) -> set[str]:
    return {key for (key,) in run(url, "SELECT key FROM headwater.command_keys")}


def test_a_full_disk_is_said_and_work_goes_on_by_itself_when_there_is_space(postgres: Databases) -> None:
    with small_disk("20m") as disk:
        own = PostgresServer.make()
        own.start()
        try:
            shutil.chown(disk, "postgres")
            run(own.url("postgres"), f"CREATE TABLESPACE small LOCATION '{disk}'")
            run(own.url("postgres"), "CREATE DATABASE bank TABLESPACE small")
            asyncio.run(fill_and_free(own.url("bank"), disk))
        finally:
            own.remove()


async def fill_and_free(url: str, disk: Path) -> None:
    answered: list[str] = []
    async with opened(url) as database:
        full = await until(database, Failed, answered)
        assert isinstance(full, Failed)
        assert isinstance(full.error, DatabaseFull)
        assert full.error.retryable
        assert "no space is left on the server" in str(full.error)
        assert len(await database.read(0, 1_000)) == len(answered)
        enlarge(disk, "60m")
        await until(database, Committed, answered)
        assert len(await database.read(0, 1_000)) == len(answered)
        assert await database.verify() == []
    assert stored(url) == set(answered)


def test_a_server_that_dies_of_a_full_disk_has_all_that_was_answered(
    postgres: Databases, monkeypatch: pytest.MonkeyPatch
) -> None:
    with small_disk("110m") as disk:
        with monkeypatch.context() as patch:
            patch.setattr(tempfile, "tempdir", str(disk))
            own = PostgresServer.make()
        own.start()
        try:
            asyncio.run(die_and_come_back(own, disk))
        finally:
            own.remove()


async def die_and_come_back(own: PostgresServer, disk: Path) -> None:
    answered: list[str] = []
    url = own.url("postgres")
    async with opened(url) as database:
        answer = await until(database, Failed | Unknown, answered, 2_000_000)  # type: ignore[arg-type]
        assert isinstance(answer, Unknown) or (isinstance(answer, Failed) and answer.error.retryable)
        enlarge(disk, "400m")
        with suppress(ProcessLookupError):
            own.kill()
        own.restart()
        await until(database, Committed, answered)
        assert await database.verify() == []
    assert stored(url) >= set(answered)


# --- clocks ---


class Off(SystemClock):
    """A clock that is off by an hour or two."""

    def __init__(self, hours: int) -> None:
        super().__init__()
        self._off = hours * 3_600_000_000

    def now(self) -> int:
        return super().now() + self._off


@pytest.mark.parametrize("hours", [-1, 1])
def test_an_hour_between_the_clocks_of_a_machine_and_the_server_is_said_and_moves_no_lease(
    postgres: Databases, hours: int, caplog: pytest.LogCaptureFixture
) -> None:
    async def main() -> None:
        url = postgres.make()
        off = PostgresDatabase(url, Off(hours))
        await off.open()
        [said] = [one for one in caplog.records if one.getMessage() == "database.clock"]
        assert said.fields["seconds"] == pytest.approx(hours * 3_600, abs=60)  # type: ignore[attr-defined]
        async with opened(url) as right:
            assert [one.getMessage() for one in caplog.records].count("database.clock") == 1
            for one, other in ((off, right), (right, off)):
                lease = await one.acquire("relay", "one", 1.0)
                assert lease is not None
                await asyncio.sleep(1.5)
                assert lease.held
                assert await other.acquire("relay", "two", 1.0) is None
                old, own = await one.commit(
                    [
                        appending(fence=Fence("relay", lease.epoch - 1)),
                        appending(fence=Fence("relay", lease.epoch)),
                    ]
                )
                assert (type(old), type(own)) == (Collision, Committed)
                await lease.release()
            assert await right.changed(1, 5.0)
            assert await off.read(0, 10) == await right.read(0, 10)
        await off.close()

    asyncio.run(main())


@pytest.mark.parametrize("hours", [-1, 1])
def test_an_hour_between_the_clocks_of_two_machines_delays_no_message(postgres: Databases, hours: int) -> None:
    async def main() -> None:
        url = postgres.make()
        there, here = PostgresChannel(url, Off(hours)), PostgresChannel(url, CLOCK)
        await there.open()
        await here.open()
        member = await here.subscribe("mail", ["t"], "one")
        for number in range(20):
            await there.publish([Publication("t", str(number % 3), {}, b"%d" % number)])
        seen: list[bytes] = []
        end = time.monotonic() + 10
        while len(seen) < 20 and time.monotonic() < end:
            batch = await member.fetch(100)
            seen += [one.body for one in batch]
            await member.acknowledge(batch)
            await member.wait(0.1)
        assert sorted(seen) == sorted(b"%d" % number for number in range(20))
        await here.close()
        await there.close()

    asyncio.run(main())


# --- another machine ---


def dumped(words: Sequence[object]) -> bytes:
    found = programs()
    assert found is not None
    return subprocess.run([found / str(words[0]), *map(str, words[1:])], check=True, capture_output=True).stdout


def test_a_dump_that_is_restored_on_another_server_goes_on_where_it_was(postgres: Databases, tmp_path: Path) -> None:
    url = postgres.make()
    own = PostgresServer.make()
    own.start()
    there = own.url("bank")

    async def before() -> list[Any]:
        channel = PostgresChannel(url, CLOCK)
        await channel.open()
        member = await channel.subscribe("mail", ["t"], "one")
        async with opened(url) as database:
            assert await database.acquire("relay", "one", 600.0) is not None
            for number in range(50):
                await database.commit([appending(f"bank.Account/{number % 7}", name=f"k{number}")])
                await channel.publish([Publication("t", str(number % 3), {}, b"%d" % number)])
            (tmp_path / "dump").write_bytes(dumped(["pg_dump", url]))  # while all of it is in use
            batch = await member.fetch(100)
            assert len(batch) == 50
            log = await database.read(0, 100)
        await channel.close()
        return log

    async def after(log: list[Any]) -> None:
        async with opened(there) as database:
            assert await database.read(0, 100) == log
            again, new = await database.commit([appending("bank.Account/0", name="k0"), appending("bank.Account/0")])
            assert (again, new) == (Committed(log[0].position, 1, repeated=True), Committed(51, 9))
            assert [one.position for one in await database.read(50, 10)] == [51]
            assert await database.acquire("relay", "two", 10.0) is not None  # its holder is not of this server
            assert await database.verify() == []
        channel = PostgresChannel(there, CLOCK)
        await channel.open()
        member = await channel.subscribe("mail", ["t"], "two")
        batch = await member.fetch(100)
        assert len(batch) == 50
        await channel.close()

    try:
        log = asyncio.run(before())
        run(own.url("postgres"), "CREATE DATABASE bank")
        dumped(["psql", "-q", "-v", "ON_ERROR_STOP=1", "-f", tmp_path / "dump", there])
        asyncio.run(after(log))
    finally:
        own.remove()
