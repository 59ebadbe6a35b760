"""Hints: directly, by datagram, and without any."""

from __future__ import annotations

import asyncio
import os
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from headwater.adapters.sqlite import wake as module
from headwater.adapters.sqlite.file import File, Reader
from headwater.adapters.sqlite.migrations import migrate
from headwater.adapters.sqlite.wake import Wake
from headwater.errors import DatabaseError


class Ear:
    """A file with one number in it, its reader and its wake."""

    def __init__(self, path: Path) -> None:
        self.file = File(path / "a.db")
        migrate(self.file, "test", ["CREATE TABLE one (n INTEGER); INSERT INTO one VALUES (0)"], now=1)
        self.reader = Reader(self.file)
        self.wake = Wake(self.file, self.reader.version)
        self.asked = 0

    def waiting(self) -> bool:
        self.asked += 1
        return bool(self.reader.value("SELECT n FROM one") == 0)

    def write(self, number: int = 1) -> None:
        connection = self.file.connect()
        connection.execute("UPDATE one SET n = ?", (number,))
        connection.close()

    def close(self) -> None:
        self.wake.close()
        self.reader.close()


@pytest.fixture
def ear(tmp_path: Path) -> Iterator[Ear]:
    made = Ear(tmp_path)
    yield made
    made.close()


def test_what_is_so_already_is_not_waited_for(ear: Ear) -> None:
    ear.write()
    assert asyncio.run(ear.wake.wait(ear.waiting, 0)) is True
    assert asyncio.run(ear.wake.wait(ear.waiting, 5)) is True


def test_a_wait_ends_with_its_time(ear: Ear) -> None:
    assert asyncio.run(ear.wake.wait(ear.waiting, 0)) is False
    assert asyncio.run(ear.wake.wait(ear.waiting, 0.02)) is False


def test_a_hint_of_a_thread_wakes_at_once(ear: Ear, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "POLL", 30.0)

    def act() -> None:
        time.sleep(0.05)
        ear.write()
        ear.wake.hint()

    async def main() -> None:
        acting = asyncio.create_task(asyncio.to_thread(act))
        assert await ear.wake.wait(ear.waiting, 20)
        await acting

    asyncio.run(main())


CHILD = """
import sys, time
from headwater.adapters.sqlite.file import File
from headwater.adapters.sqlite.wake import Wake
from headwater.errors import DatabaseError
file = File(sys.argv[1])
wake = Wake(file, lambda: 0)
connection = file.connect()
sys.stdin.readline()
connection.execute("UPDATE one SET n = 1")
print(time.monotonic(), flush=True)
wake.hint()
sys.stdin.readline()
"""


def test_a_hint_of_another_process_wakes_at_once(ear: Ear, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "POLL", 30.0)

    async def main() -> None:
        child = subprocess.Popen(  # noqa: ASYNC220 - it starts before anything waits
            [sys.executable, "-c", CHILD, str(ear.file.path)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )
        assert child.stdin is not None
        assert child.stdout is not None
        task = asyncio.create_task(ear.wake.wait(ear.waiting, 20))
        await asyncio.sleep(0.05)
        child.stdin.write("\n")
        child.stdin.flush()
        assert await task is True
        child.communicate("\n")

    asyncio.run(main())


def test_without_hints_a_look_now_and_then_finds_it(ear: Ear) -> None:
    ear.wake._folder = None

    async def main() -> None:
        task = asyncio.create_task(ear.wake.wait(ear.waiting, 3_600))
        await asyncio.sleep(0.05)
        ear.write()
        done, _ = await asyncio.wait([task], timeout=5)
        task.cancel()
        assert done, "nobody looked"
        assert task.result() is True

    asyncio.run(main())


def test_waiters_are_asked_only_when_the_file_has_changed(ear: Ear) -> None:
    async def main() -> None:
        waiters = [asyncio.create_task(ear.wake.wait(ear.waiting, 20)) for _ in range(10)]
        await asyncio.sleep(2.2 * module.POLL)
        assert ear.asked == 10  # each once, when it has its place
        ear.wake.hint()
        await asyncio.sleep(0.02)
        assert ear.asked == 20
        ear.wake.close()
        assert await asyncio.gather(*waiters) == [False] * 10

    asyncio.run(main())


def test_a_hint_of_other_subjects_asks_nobody(ear: Ear, monkeypatch: pytest.MonkeyPatch) -> None:
    mine, other = module.subjects_of(["mail.commands"]), module.subjects_of(["orders.Order"])
    assert not mine & other
    monkeypatch.setattr(module, "POLL", 30.0)
    neighbour = Wake(ear.file, ear.reader.version)  # as of another process: it finds the socket in the folder

    async def main() -> None:
        waiter = asyncio.create_task(ear.wake.wait(ear.waiting, 20, mine))
        await asyncio.sleep(0.02)
        for hint in (ear.wake.hint, neighbour.hint):
            hint(other)
            await asyncio.sleep(0.02)
            assert ear.asked == 1
        neighbour.hint(mine | other)
        await asyncio.sleep(0.02)
        assert ear.asked == 2
        ear.write()
        ear.wake.hint(mine)
        assert await waiter is True

    asyncio.run(main())
    neighbour.close()


def test_a_socket_says_all_that_is_waited_for_and_who_has_not_seen_it_yet_finds_it(ear: Ear) -> None:
    first, second = module.subjects_of(["a"]), module.subjects_of(["b"])
    neighbour = Wake(ear.file, ear.reader.version)

    async def main() -> None:
        waiters = [asyncio.create_task(ear.wake.wait(ear.waiting, 5, first))]
        await asyncio.sleep(0.02)
        neighbour.hint(first)
        waiters.append(asyncio.create_task(ear.wake.wait(ear.waiting, 5, second)))
        await asyncio.sleep(0.02)
        assert ear.wake._folder is not None
        (path,) = ear.wake._folder.iterdir()
        assert module.waits_for(path.name) == first | second
        neighbour.hint(first)  # the socket it knew is gone
        ear.asked = 0
        neighbour.hint(second)
        await asyncio.sleep(0.02)
        assert ear.asked == 1
        ear.wake.close()
        assert await asyncio.gather(*waiters) == [False, False]

    asyncio.run(main())
    neighbour.close()


def test_an_error_of_the_condition_is_the_waiters(ear: Ear) -> None:
    async def main() -> None:
        task = asyncio.create_task(ear.wake.wait(ear.waiting, 5))
        await asyncio.sleep(0.02)
        ear.reader.close()
        ear.wake.hint()
        with pytest.raises(DatabaseError, match="closed"):
            await task

    asyncio.run(main())


def test_the_socket_of_a_dead_process_is_removed_when_it_is_old(ear: Ear, monkeypatch: pytest.MonkeyPatch) -> None:
    assert ear.wake._folder is not None
    path = ear.wake._folder / "99999-dead"
    dead = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
    dead.bind(str(path))
    dead.close()
    ear.wake.hint()
    assert path.exists()  # it is young: its owner may be about to listen
    monkeypatch.setattr(module, "STALE", 0.0)
    monkeypatch.setattr(module, "RELIST", 0.0)
    ear.wake.hint()
    assert not path.exists()


def test_a_full_queue_blocks_nobody(ear: Ear) -> None:
    assert ear.wake._folder is not None
    path = ear.wake._folder / "1-busy"
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as busy:
        busy.bind(str(path))
        started = time.monotonic()
        for _ in range(1000):
            ear.wake.hint()
        assert time.monotonic() - started < 1.0
    path.unlink()


def test_a_socket_that_was_cleaned_away_is_made_anew_and_the_last_one_removed(ear: Ear) -> None:
    async def main() -> None:
        task = asyncio.create_task(ear.wake.wait(ear.waiting, 5))
        await asyncio.sleep(0.02)
        assert ear.wake._folder is not None
        (path,) = ear.wake._folder.iterdir()
        path.unlink()
        await asyncio.sleep(module.POLL + 0.1)
        assert path.is_socket()
        ear.wake.close()
        assert await task is False
        assert not path.exists()

    asyncio.run(main())


def test_a_folder_that_others_can_enter_is_not_used(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with tempfile.TemporaryDirectory() as short:
        monkeypatch.setattr(tempfile, "tempdir", short)
        assert module._folder(tmp_path / "a.db") is not None
        (Path(short) / f"headwater-{os.getuid()}").chmod(0o777)
        assert module._folder(tmp_path / "a.db") is None


def test_a_folder_whose_sockets_would_have_too_long_a_path_is_not_used(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    long = tmp_path / ("x" * 100)
    long.mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(long))
    assert module._folder(tmp_path / "a.db") is None
