"""The writer thread: groups, the guilty alone, the unknown, loans."""

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
from headwater.adapters.sqlite.writer import Writer
from headwater.errors import DatabaseError, DatabaseFull, HeadwaterError, SchemaError, Unknown

TABLE = "CREATE TABLE numbers (number INTEGER NOT NULL) STRICT"


class Desk:
    """A writer of numbers, and what it did."""

    def __init__(self, path: Path, **options: Any) -> None:
        self.file = File(path / "a.db")
        migrate(self.file, "test", [TABLE], now=1)
        self.groups: list[list[Any]] = []
        self.hints = 0
        self.writer: Writer[Any, int] = Writer(self.file, self.work, self.hint, **options)
        self.reader = Reader(self.file)

    def work(self, connection: apsw.Connection, requests: Sequence[Any]) -> list[int]:
        self.groups.append(list(requests))
        for request in requests:
            if isinstance(request, threading.Event):
                request.wait(5)
            else:
                connection.execute("INSERT INTO numbers VALUES (?)", (request,))
        return [id(request) for request in requests]

    def hint(self) -> None:
        self.hints += 1

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
            connection = desk.writer._connection
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
