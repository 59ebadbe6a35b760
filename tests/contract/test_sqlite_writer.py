"""The writer: groups in its thread, one that is alone in the loop, the guilty alone, the unknown, loans."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import apsw
import pytest

from headwater.adapters.sqlite.file import File, Reader
from headwater.adapters.sqlite.migrations import migrate
from headwater.adapters.sqlite.writer import ALONE, LOOK, Writer
from headwater.errors import DatabaseError, DatabaseFull, HeadwaterError, SchemaError, Unknown

TABLE = "CREATE TABLE numbers (number INTEGER NOT NULL) STRICT"


class Desk:
    """A writer of numbers, and what it did."""

    def __init__(self, path: Path, **options: Any) -> None:
        self.file = File(path / "a.db")
        migrate(self.file, "test", [TABLE], now=1)
        self.groups: list[list[Any]] = []
        self.threads: list[int] = []
        self.hints = 0
        self.writer: Writer[Any, int] = Writer(self.file, self.work, self.hint, **options)
        self.reader = Reader(self.file)

    def work(self, connection: apsw.Connection, requests: Sequence[Any]) -> list[int]:
        self.groups.append(list(requests))
        self.threads.append(threading.get_ident())
        for request in requests:
            if isinstance(request, threading.Event):
                request.wait(5)
            else:
                connection.execute("INSERT INTO numbers VALUES (?)", (request,))
        return [id(request) for request in requests]

    def hint(self) -> None:
        self.hints += 1

    async def write_alone(self) -> None:
        """Write 0, and be alone for so long that the next is written in the loop."""
        await self.writer.submit([0])
        for _ in range(ALONE - 1):
            await self.writer.submit([])

    @property
    def in_loop(self) -> list[bool]:
        """Of each call of `work`, whether it was in the thread of the test."""
        return [one == threading.get_ident() for one in self.threads]

    @property
    def numbers(self) -> list[int]:
        return [number for (number,) in self.reader.rows("SELECT number FROM numbers ORDER BY rowid")]


@asynccontextmanager
async def desk_at(path: Path, **options: Any) -> AsyncIterator[Desk]:
    desk = Desk(path, **options)
    try:
        yield desk
    finally:
        await desk.writer.close()
        desk.reader.close()


class BrokenConnection(apsw.Connection):
    """Fails at COMMIT, before it or after it is done."""

    broken: str = ""

    def execute(self, sql: str, *args: Any, **options: Any) -> Any:  # type: ignore[override]
        if sql == "COMMIT" and self.broken:
            if self.broken == "after":
                super().execute("COMMIT")
            raise apsw.IOError("disk I/O error")
        return super().execute(sql, *args, **options)


def test_what_is_queued_is_written_in_one_transaction_in_order(tmp_path: Path) -> None:
    async def main() -> None:
        async with desk_at(tmp_path) as desk:
            gate = threading.Event()
            first = asyncio.create_task(desk.writer.submit([gate]))
            await asyncio.sleep(0.05)
            rest = [asyncio.create_task(desk.writer.submit([number, number + 1])) for number in range(0, 20, 2)]
            await asyncio.sleep(0.05)
            gate.set()
            await asyncio.gather(first, *rest)
            assert desk.groups == [[gate], list(range(20))]
            assert desk.numbers == list(range(20))
            assert desk.hints == 1

    asyncio.run(main())


def test_a_group_is_bounded(tmp_path: Path) -> None:
    async def main() -> None:
        async with desk_at(tmp_path, limit=5) as desk:
            gate = threading.Event()
            tasks = [asyncio.create_task(desk.writer.submit([gate]))]
            await asyncio.sleep(0.05)
            tasks += [asyncio.create_task(desk.writer.submit([number])) for number in range(12)]
            await asyncio.sleep(0.05)
            gate.set()
            await asyncio.gather(*tasks)
            assert [len(group) for group in desk.groups] == [1, 5, 5, 2]

    asyncio.run(main())


def test_the_guilty_fall_alone(tmp_path: Path) -> None:
    async def main() -> None:
        async with desk_at(tmp_path) as desk:
            answers = await desk.writer.submit([1, "two", 3, 4, "five", 6])
            assert [isinstance(answer, SchemaError) for answer in answers] == [False, True, False, False, True, False]
            assert "number" in str(answers[1])
            assert desk.numbers == [1, 3, 4, 6]

    asyncio.run(main())


@pytest.mark.parametrize(("broken", "left"), [("before", []), ("after", [1, 2])])
def test_an_error_of_the_disk_at_commit_is_unknown_for_all(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, broken: str, left: list[int]
) -> None:
    async def main() -> None:
        monkeypatch.setattr(apsw, "Connection", BrokenConnection)
        async with desk_at(tmp_path) as desk:
            monkeypatch.setattr(BrokenConnection, "broken", broken)
            answers = await desk.writer.submit([1, 2])
            assert [type(answer) for answer in answers] == [Unknown, Unknown]
            with pytest.raises(Unknown):
                async with desk.writer.exclusive() as loan:
                    with loan.use() as connection:
                        connection.execute("UPDATE numbers SET number = number")
            assert desk.numbers == left
            monkeypatch.setattr(BrokenConnection, "broken", "")
            await desk.writer.submit([3])
            assert desk.numbers == [*left, 3]

    asyncio.run(main())


def test_a_full_disk_fells_what_does_not_fit_and_work_goes_on(tmp_path: Path) -> None:
    async def main() -> None:
        async with desk_at(tmp_path) as desk:
            connection = desk.writer._session._connection
            assert connection is not None
            connection.pragma("max_page_count", 5)
            answers = await desk.writer.submit(range(10_000))
            full = [answer for answer in answers if isinstance(answer, HeadwaterError)]
            assert full
            assert all(type(answer) is DatabaseFull and answer.retryable for answer in full)
            assert len(desk.numbers) == len(answers) - len(full)
            connection.pragma("max_page_count", 500)
            await desk.writer.submit([77])
            assert desk.numbers[-1] == 77

    asyncio.run(main())


def test_a_caller_that_went_away_is_not_written_for(tmp_path: Path) -> None:
    async def main() -> None:
        async with desk_at(tmp_path) as desk:
            gate = threading.Event()
            first = asyncio.create_task(desk.writer.submit([gate]))
            await asyncio.sleep(0.05)
            gone, stays = (asyncio.create_task(desk.writer.submit([number])) for number in (1, 2))
            await asyncio.sleep(0.01)
            gone.cancel()
            await asyncio.sleep(0)
            gate.set()
            await asyncio.gather(first, stays)
            assert desk.numbers == [2]

    asyncio.run(main())


def test_close_writes_what_is_queued_and_refuses_more(tmp_path: Path) -> None:
    async def main() -> None:
        async with desk_at(tmp_path) as desk:
            tasks = [asyncio.create_task(desk.writer.submit([number])) for number in range(50)]
            await asyncio.sleep(0)
            await desk.writer.close()
            await asyncio.gather(*tasks)
            assert desk.numbers == list(range(50))
            with pytest.raises(DatabaseError, match="closed"):
                await desk.writer.submit([1])
            with pytest.raises(DatabaseError, match="closed"):
                async with desk.writer.exclusive():
                    pass

    asyncio.run(main())


def test_several_loops_may_use_a_writer_one_after_the_other_and_side_by_side(tmp_path: Path) -> None:
    desk = Desk(tmp_path)

    async def some(start: int) -> None:
        await asyncio.gather(*(desk.writer.submit([start + number]) for number in range(20)))

    asyncio.run(some(0))
    threads = [threading.Thread(target=lambda start=start: asyncio.run(some(start))) for start in (100, 200)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    asyncio.run(desk.writer.close())
    assert sorted(desk.numbers) == [*range(20), *range(100, 120), *range(200, 220)]
    desk.reader.close()


def test_a_loan_has_the_transaction_to_itself(tmp_path: Path) -> None:
    async def main() -> None:
        async with desk_at(tmp_path) as desk:
            async with desk.writer.exclusive() as loan:
                other = asyncio.create_task(desk.writer.submit([2]))
                with loan.use() as connection:
                    connection.execute("INSERT INTO numbers VALUES (1)")
                await asyncio.sleep(0.05)
                assert not other.done()
                assert desk.numbers == []
            await other
            assert desk.numbers == [1, 2]
            with pytest.raises(DatabaseError, match="undone"), loan.use():
                pass

    asyncio.run(main())


def test_a_loan_whose_borrower_raises_or_is_cancelled_is_undone(tmp_path: Path) -> None:
    async def main() -> None:
        async with desk_at(tmp_path) as desk:

            async def borrow(number: int, seconds: float) -> None:
                async with desk.writer.exclusive() as loan:
                    with loan.use() as connection:
                        connection.execute("INSERT INTO numbers VALUES (?)", (number,))
                    await asyncio.sleep(seconds)
                    raise KeyError

            with pytest.raises(KeyError):
                await borrow(1, 0)
            inside, waiting = (asyncio.create_task(borrow(number, 5)) for number in (2, 3))
            await asyncio.sleep(0.05)
            waiting.cancel()
            inside.cancel()
            await desk.writer.submit([4])
            assert desk.numbers == [4]

    asyncio.run(main())


def test_a_loan_that_takes_too_long_is_undone(tmp_path: Path) -> None:
    async def main() -> None:
        async with desk_at(tmp_path, patience=0.05) as desk:
            with pytest.raises(DatabaseError, match="too long"):
                async with desk.writer.exclusive() as loan:
                    with loan.use() as connection:
                        connection.execute("INSERT INTO numbers VALUES (1)")
                    await desk.writer.submit([2])
                    with pytest.raises(DatabaseError, match="too long"), loan.use():
                        pass
            assert desk.numbers == [2]

    asyncio.run(main())


def test_a_loan_that_fell_as_a_whole_writes_nothing_outside_a_transaction(tmp_path: Path) -> None:
    async def main() -> None:
        async with desk_at(tmp_path) as desk:
            with pytest.raises(DatabaseError, match="undone"):
                async with desk.writer.exclusive() as loan:
                    with loan.use() as connection:
                        connection.execute("INSERT INTO numbers VALUES (1); ROLLBACK")
                    with pytest.raises(DatabaseError, match="undone"), loan.use():
                        pass
            assert desk.numbers == []

    asyncio.run(main())


def test_a_writer_has_the_lock_of_its_file_for_as_long_as_its_transaction(tmp_path: Path) -> None:
    async def main() -> None:
        async with desk_at(tmp_path) as desk:
            other, free = desk.file.lock(), []
            work = desk.work

            def look(connection: apsw.Connection, requests: Sequence[Any]) -> list[int]:
                free.append(other.take())
                return work(connection, requests)

            desk.writer._work = look
            await desk.writer.submit([1])
            async with desk.writer.exclusive():
                free.append(other.take())
            other.close()
            assert free == [False, False]

    asyncio.run(main())


def test_a_program_that_does_not_take_our_lock_is_waited_for(tmp_path: Path) -> None:
    async def main() -> None:
        async with desk_at(tmp_path) as desk:
            other = apsw.Connection(str(desk.file.path))
            other.execute("BEGIN IMMEDIATE")
            task = asyncio.create_task(desk.writer.submit([1]))
            await asyncio.sleep(0.1)
            assert not task.done()
            other.execute("ROLLBACK")
            other.close()
            assert not isinstance((await task)[0], HeadwaterError)

    asyncio.run(main())


# --- alone: in the loop ---

ALWAYS = 3600.0
"""So quick is every transaction of a test."""
NEVER = 1e-9


def test_what_is_alone_is_written_in_the_loop_once_the_disk_was_quick(tmp_path: Path) -> None:
    async def main() -> None:
        async with desk_at(tmp_path, quick=ALWAYS) as desk:
            await desk.write_alone()
            for number in range(1, 4):
                [answer] = await desk.writer.submit([number])
                assert not isinstance(answer, HeadwaterError)
            assert desk.in_loop == [False, True, True, True]
            assert desk.numbers == [0, 1, 2, 3]
            assert desk.hints == 4

    asyncio.run(main())


def test_on_a_slow_disk_the_loop_is_never_blocked(tmp_path: Path) -> None:
    async def main() -> None:
        async with desk_at(tmp_path, quick=NEVER) as desk:
            await desk.write_alone()
            for number in range(1, 4):
                await desk.writer.submit([number])
            assert desk.in_loop == [False] * 4

    asyncio.run(main())


@pytest.mark.parametrize("alone", range(LOOK))
def test_company_is_written_together_in_the_thread_once_one_has_looked_around(alone: int, tmp_path: Path) -> None:
    async def main() -> None:
        async with desk_at(tmp_path, quick=ALWAYS) as desk:
            await desk.write_alone()
            for number in range(1, 1 + alone):
                await desk.writer.submit([number])
            assert desk.in_loop == [False, *[True] * alone]
            await asyncio.gather(*(desk.writer.submit([number]) for number in range(10, 30)))
            *before, company = desk.groups
            assert company == [*range(10 + len(before) - alone - 1, 30)]
            assert len(before) - alone - 1 < LOOK
            for number in range(30, 30 + ALONE + 1):
                await desk.writer.submit([number])
            assert desk.in_loop[len(before) :] == [False] * (ALONE + 1) + [True]

    asyncio.run(main())


def test_what_comes_while_the_thread_writes_waits_its_turn(tmp_path: Path) -> None:
    async def main() -> None:
        async with desk_at(tmp_path, quick=ALWAYS) as desk:
            await desk.write_alone()
            gate = threading.Event()
            together = [asyncio.create_task(desk.writer.submit([one])) for one in (gate, 1)]
            await asyncio.sleep(0.05)
            later = asyncio.create_task(desk.writer.submit([2]))
            await asyncio.sleep(0.05)
            assert not later.done()
            gate.set()
            await asyncio.gather(*together, later)
            assert desk.groups == [[0], [gate, 1], [2]]
            assert desk.in_loop == [False] * 3

    asyncio.run(main())


def test_the_loop_waits_for_no_other_process(tmp_path: Path) -> None:
    async def main() -> None:
        async with desk_at(tmp_path, quick=ALWAYS) as desk:
            await desk.write_alone()
            with desk.file.lock():
                task = asyncio.create_task(desk.writer.submit([1]))
                await asyncio.sleep(0.05)
                assert not task.done()
            await task
            assert desk.in_loop == [False, False]
            assert desk.numbers == [0, 1]

    asyncio.run(main())


def test_the_loop_waits_for_no_program_that_does_not_take_our_lock(tmp_path: Path) -> None:
    async def main() -> None:
        async with desk_at(tmp_path, quick=ALWAYS) as desk:
            await desk.write_alone()
            other = apsw.Connection(str(desk.file.path))
            other.execute("BEGIN IMMEDIATE")
            task = asyncio.create_task(desk.writer.submit([1]))
            await asyncio.sleep(0.1)
            assert not task.done()
            other.execute("ROLLBACK")
            other.close()
            await task
            assert desk.in_loop == [False, False]
            assert desk.numbers == [0, 1]

    asyncio.run(main())


def test_what_falls_in_the_loop_is_tried_in_the_thread_and_the_guilty_fall_alone(tmp_path: Path) -> None:
    async def main() -> None:
        async with desk_at(tmp_path, quick=ALWAYS) as desk:
            await desk.write_alone()
            answers = await desk.writer.submit([1, "two", 3])
            assert [isinstance(answer, SchemaError) for answer in answers] == [False, True, False]
            assert desk.in_loop[:3] == [False, True, False]
            assert desk.numbers == [0, 1, 3]

    asyncio.run(main())


@pytest.mark.parametrize(("broken", "left"), [("before", [0, 3]), ("after", [0, 1, 2, 3])])
def test_an_error_of_the_disk_in_the_loop_is_unknown_and_not_tried_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, broken: str, left: list[int]
) -> None:
    async def main() -> None:
        monkeypatch.setattr(apsw, "Connection", BrokenConnection)
        async with desk_at(tmp_path, quick=ALWAYS) as desk:
            await desk.write_alone()
            monkeypatch.setattr(BrokenConnection, "broken", broken)
            answers = await desk.writer.submit([1, 2])
            assert [type(answer) for answer in answers] == [Unknown, Unknown]
            monkeypatch.setattr(BrokenConnection, "broken", "")
            await desk.writer.submit([3])
            assert desk.groups == [[0], [1, 2], [3]]
            assert desk.in_loop == [False, True, True]
            assert desk.numbers == left

    asyncio.run(main())


def test_one_that_is_cancelled_before_it_is_written_is_dropped_and_takes_nobody_along(tmp_path: Path) -> None:
    async def main() -> None:
        async with desk_at(tmp_path, quick=ALWAYS) as desk:
            await desk.write_alone()
            first, second, third = (asyncio.create_task(desk.writer.submit([number])) for number in (1, 2, 3))
            await asyncio.sleep(0)
            first.cancel()
            await asyncio.gather(second, third)
            assert first.cancelled()
            alone = asyncio.create_task(desk.writer.submit([4]))
            await asyncio.sleep(0)
            alone.cancel()
            await desk.writer.submit([5])
            assert desk.numbers == [0, 2, 3, 5]

    asyncio.run(main())


def test_a_loan_comes_after_what_was_submitted_before_it(tmp_path: Path) -> None:
    async def main() -> None:
        async with desk_at(tmp_path, quick=ALWAYS) as desk:
            await desk.write_alone()
            before = asyncio.create_task(desk.writer.submit([1]))
            await asyncio.sleep(0)
            async with desk.writer.exclusive() as loan:
                after = asyncio.create_task(desk.writer.submit([3]))
                with loan.use() as connection:
                    connection.execute("INSERT INTO numbers VALUES (2)")
                await asyncio.sleep(0.05)
                assert not after.done()
            await asyncio.gather(before, after)
            assert desk.numbers == [0, 1, 2, 3]

    asyncio.run(main())


def test_a_loop_that_writes_alone_lets_its_other_tasks_run(tmp_path: Path) -> None:
    async def main() -> None:
        async with desk_at(tmp_path, quick=ALWAYS) as desk:
            turns = 0

            async def other() -> None:
                nonlocal turns
                while True:
                    turns += 1
                    await asyncio.sleep(0)

            task = asyncio.create_task(other())
            await desk.write_alone()
            turns = 0
            for number in range(20):
                await desk.writer.submit([number])
            task.cancel()
            assert turns >= 20 // LOOK
            assert desk.in_loop.count(True) == 20

    asyncio.run(main())
