"""A handler that asks for the transaction: its own rows and its mark are written together, or not at all."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from headwater import App, Event, Retry, Transaction
from headwater.adapters.memory import MemoryBroker, MemoryChannel
from headwater.adapters.sqlite import SqliteDatabase
from headwater.clock import SystemClock
from headwater.inbox import Held, Reason
from tests.flow.rig import played, publication
from tests.flow.shop import Bumped, Noted


class Alien(Event, service="elsewhere", category="x"):
    key: str


class Desk:
    """A service on SQLite with a handler that writes rows of its own."""

    def __init__(self, path: Path, **options: Any) -> None:
        self.path = path
        self.broker = MemoryBroker()
        self.app = App("mail", retry=Retry(attempts=2, base=0.01), **options)
        self.calls: list[tuple[str, int]] = []
        self.faults: dict[tuple[str, int], Callable[[Transaction], object]] = {}

        @self.app.on(Bumped)
        async def note(event: Bumped, transaction: Transaction) -> object:
            self.calls.append((event.key, event.n))
            transaction.execute("INSERT INTO remarks (key, n) VALUES (?, ?)", (event.key, event.n))
            fault = self.faults.get((event.key, event.n))
            found = fault(transaction) if fault else None
            return found or Noted(event.key, event.n)

    async def __aenter__(self) -> Desk:
        clock = SystemClock()
        self.database = SqliteDatabase.from_url(f"sqlite:///{self.path}", clock)
        self.channel = MemoryChannel(clock, self.broker)
        await self.database.open()
        async with self.database.transaction() as transaction:
            transaction.execute("CREATE TABLE IF NOT EXISTS remarks (key TEXT, n INTEGER, UNIQUE (key, n))")
            transaction.execute("CREATE TABLE IF NOT EXISTS parents (id INTEGER PRIMARY KEY)")
            transaction.execute(
                "CREATE TABLE IF NOT EXISTS children (id INTEGER REFERENCES parents DEFERRABLE INITIALLY DEFERRED)"
            )
        await self.app.connect(self.database, self.channel)
        await self.app.start()
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.app.stop()

    async def send(self, *places: tuple[str, int]) -> None:
        await self.channel.publish(
            [publication(f"shop.Counter/{key}", n, "shop.Bumped", Bumped(key, n)) for key, n in places]
        )

    async def rows(self) -> list[tuple[str, int]]:
        return await self.database.query("SELECT key, n FROM remarks ORDER BY rowid")

    async def held(self) -> list[Held]:
        return await self.database.held_list(None, list(Reason), 100)

    async def settled(self, condition: Callable[[list[tuple[str, int]], list[Held]], bool]) -> None:
        for _ in range(1000):
            if condition(await self.rows(), await self.held()):
                return
            await asyncio.sleep(0.005)
        raise AssertionError((await self.rows(), await self.held()))

    async def noted(self) -> int:
        return sum(one.type == "mail.Noted" for one in await self.database.read(0, 1000))


@played
async def test_rows_and_messages_of_a_handler_are_written_with_its_marks(tmp_path):
    async with Desk(tmp_path / "mail.db") as desk:
        places = [(key, n) for n in (1, 2, 3) for key in "abc"]
        await desk.send(*places, *places)
        await desk.settled(lambda rows, held: len(rows) == 9)
        assert sorted(desk.calls) == sorted(places)
        assert await desk.noted() == 9
        assert await desk.held() == []


@pytest.mark.parametrize("how", ["raises", "bad sql", "returns what it may not", "is cancelled from within"])
@played
async def test_what_a_failed_message_wrote_is_undone_and_others_stand(tmp_path, how):
    def fail(transaction: Transaction) -> object:
        if how == "raises":
            raise RuntimeError("bad")
        if how == "is cancelled from within":
            raise asyncio.CancelledError
        if how == "bad sql":
            return transaction.execute("INSERT INTO nowhere VALUES (1)")
        return Alien("x")

    async with Desk(tmp_path / "mail.db") as desk:
        desk.faults["b", 1] = fail
        await desk.send(("a", 1), ("b", 1), ("b", 2), ("c", 1))
        await desk.settled(lambda rows, held: len(rows) == 2 and any(row.reason is Reason.DEAD for row in held))
        assert sorted(await desk.rows()) == [("a", 1), ("c", 1)]
        assert [(row.message.version, row.reason) for row in await desk.held()] == [
            (1, Reason.DEAD),
            (2, Reason.BEHIND),
        ]
        assert await desk.noted() == 2


@pytest.mark.parametrize("how", ["at the commit", "rolls back"])
@played
async def test_a_transaction_that_falls_as_a_whole_is_run_one_message_at_a_time(tmp_path, how):
    def fail(transaction: Transaction) -> object:
        if how == "at the commit":
            return transaction.execute("INSERT INTO children VALUES (7)") and None
        return transaction.execute("ROLLBACK") and None

    async with Desk(tmp_path / "mail.db") as desk:
        desk.faults["b", 1] = fail
        await desk.send(("a", 1), ("b", 1), ("b", 2), ("c", 1), ("a", 2))
        await desk.settled(lambda rows, held: len(rows) == 3 and any(row.reason is Reason.DEAD for row in held))
        assert sorted(await desk.rows()) == [("a", 1), ("a", 2), ("c", 1)]
        assert [(row.message.version, row.reason, row.attempts) for row in await desk.held()] == [
            (1, Reason.DEAD, 2),
            (2, Reason.BEHIND, 0),
        ]
        assert await desk.noted() == 3


@played
async def test_a_retry_writes_its_rows_once(tmp_path):
    async with Desk(tmp_path / "mail.db") as desk:
        bad = [1]

        def fail(transaction: Transaction) -> None:
            if bad:
                bad.pop()
                raise RuntimeError("once")

        desk.faults["a", 1] = fail
        await desk.send(("a", 1), ("a", 2), ("b", 1))
        await desk.settled(lambda rows, held: len(rows) == 3 and not held)
        assert [row for row in await desk.rows() if row[0] == "a"] == [("a", 1), ("a", 2)]
        assert desk.calls.count(("a", 1)) == 2
        assert await desk.noted() == 3


@played
async def test_it_reads_what_it_wrote_for_messages_before_in_order(tmp_path):
    async with Desk(tmp_path / "mail.db") as desk:
        counts: list[int] = []

        def count(transaction: Transaction) -> None:
            counts.append(transaction.execute("SELECT count(*) FROM remarks WHERE key = 'a'")[0][0])

        desk.faults = {("a", n): count for n in range(1, 6)}
        await desk.send(*[("a", n) for n in range(1, 6)])
        await desk.settled(lambda rows, held: len(rows) == 5)
        assert counts == [1, 2, 3, 4, 5]
