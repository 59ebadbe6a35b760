"""Counted bounds on the hot paths: a slip shows without a clock. `./dev bench` measures the same paths in time.

A bound stands a little above what was counted when it was set; whoever makes a path cheaper lowers it.
"""

from __future__ import annotations

import asyncio
import sys
from collections import Counter
from collections.abc import Callable, Coroutine, Iterator
from contextlib import contextmanager
from pathlib import Path
from types import FrameType
from typing import Any

import apsw
import pytest

from headwater import Aggregate, App, Command, Event, ReadModel, SystemClock, decide, evolve
from headwater.adapters.memory import MemoryChannel
from headwater.adapters.sqlite import SqliteChannel, SqliteDatabase
from headwater.adapters.sqlite.wake import EVERYTHING, Wake, subjects_of
from headwater.channel import Publication
from headwater.database import WriteSet, stands
from headwater.inbox import Mark, Note
from headwater.message import Draft, Recorded
from headwater.store import Append
from headwater.wire import to_headers

BATCH = 500


class Counted(Event, service="shop", category="Order"):
    order: str
    cents: int


class Add(Command):
    order: str
    cents: int


class Added(Event):
    order: str
    cents: int


class Order(Aggregate, key="order"):
    cents: int = 0

    @decide
    def add(self, command: Add) -> Added:
        return Added(command.order, command.cents)

    @evolve
    def added(self, event: Added) -> None:
        self.cents += event.cents


class Total(ReadModel, key="order"):
    cents: int = 0

    @evolve
    def added(self, event: Added) -> None:
        self.cents += event.cents


class Statements:
    """The SQL that every connection opened meanwhile runs, by its first two words."""

    def __init__(self) -> None:
        self.seen: Counter[str] = Counter()

    def opened(self, connection: apsw.Connection) -> None:
        connection.trace_v2(apsw.SQLITE_TRACE_STMT, self.ran)

    def ran(self, event: dict[str, Any]) -> None:
        self.seen[" ".join(event["sql"].split()[:3])] += 1

    @property
    def count(self) -> int:
        return self.seen.total()


@pytest.fixture
def statements() -> Iterator[Statements]:
    found = Statements()
    apsw.connection_hooks.append(found.opened)
    yield found
    apsw.connection_hooks.remove(found.opened)


@contextmanager
def calls() -> Iterator[Counter[str]]:
    """Calls of our own Python functions in this thread, by module."""
    found: Counter[str] = Counter()

    def count(frame: FrameType, event: str, _: Any) -> None:
        if event == "call" and (name := frame.f_globals.get("__name__", "")).startswith("headwater."):
            found[name] += 1

    sys.setprofile(count)
    try:
        yield found
    finally:
        sys.setprofile(None)


def run(main: Callable[[], Coroutine[Any, Any, None]]) -> None:
    asyncio.run(main())


def append(order: int, clock: SystemClock) -> WriteSet:
    draft = Draft("event", clock.new_id(), "shop.Added", 1, 0, clock.now(), b'{"order":"1","cents":1}', b"{}")
    return WriteSet(appends=[Append(f"shop.Order/{order}", 0, [draft])])


def test_an_append_is_a_transaction_of_a_few_statements(tmp_path: Path, statements: Statements) -> None:
    async def main() -> None:
        clock = SystemClock()
        database = SqliteDatabase(tmp_path / "a.db", clock)
        await database.open()
        statements.seen.clear()
        [answer] = await database.commit([append(1, clock)])
        stands(answer)
        assert statements.count <= 4, statements.seen  # BEGIN, the position and the version, INSERT, COMMIT
        await database.close()

    run(main)


def test_the_calls_for_a_set_within_a_commit(tmp_path: Path) -> None:
    async def main() -> None:
        clock = SystemClock()
        database = SqliteDatabase(tmp_path / "a.db", clock)
        await database.open()
        writes = [append(order, clock) for order in range(BATCH)]
        async with database.transaction() as transaction:
            with calls() as called:
                for answer in transaction.write(writes):
                    stands(answer)
        assert called.total() <= 10.2 * BATCH, called.most_common(8)  # of which the judge's are 4
        await database.close()

    run(main)


def test_the_statements_of_a_commit_do_not_grow_with_its_sets(tmp_path: Path, statements: Statements) -> None:
    async def main() -> None:
        clock = SystemClock()
        database = SqliteDatabase(tmp_path / "a.db", clock)
        await database.open()
        statements.seen.clear()
        with calls() as called:
            for answer in await database.commit([append(order, clock) for order in range(BATCH)]):
                stands(answer)
        assert statements.count <= 12, statements.seen  # 8 of them INSERTs: 500 rows are 256 + 3 x 64 + 3 x 16 + 4
        assert called.total() <= 4.1 * BATCH, called.most_common(
            8
        )  # making the sets; the writer's thread is not counted
        await database.close()

    run(main)


def test_a_command_on_a_warm_aggregate_reads_nothing_outside_its_commit(tmp_path: Path, statements: Statements) -> None:
    async def main() -> None:
        app = App("shop", store=f"sqlite:///{tmp_path}/a.db", channel="memory://")
        app.add(Order)
        async with app.client():
            await app.send(Add("1", 5), key="first")
            writer = app.wiring.database._parts[0]
            writer._quick, writer._alone = 3600.0, 100  # written in this thread, where calls are counted
            statements.seen.clear()
            with calls() as called:
                await app.send(Add("1", 5), key="second")
            assert statements.count <= 6, statements.seen  # and the command keys: one SELECT, one INSERT
            assert called.total() <= 88, called.most_common(8)

    run(main)


def published(count: int) -> list[Publication]:
    found = []
    for number in range(count):
        recorded = Recorded(
            number + 1, f"shop.Order/{number}", 1, "event", f"id-{number}", "shop.Counted", 1, 0,
            1_767_225_600_000_000, 0, b'{"order":"1","cents":1}', b"{}",
        )  # fmt: skip
        found.append(Publication("shop.Order", recorded.key, to_headers(recorded, "shop"), recorded.data))
    return found


def consumer(store: str, *, with_async: bool, batch: int = BATCH) -> App:
    app = App("mail", store=store, channel="memory://", batch=batch)

    def count(event: Counted) -> None: ...

    async def count_async(event: Counted) -> None: ...

    app.on(Counted, name="count")(count_async if with_async else count)
    return app


async def consume(app: App, messages: int) -> tuple[Any, Any]:
    """The feed of an app whose channel has so many messages, and what is to be closed."""
    clock = SystemClock()
    channel = MemoryChannel(clock)
    wiring = await app.connect(channel=channel)
    await channel.open()
    flows = await wiring.flows("test", lambda name: lambda: None)
    await channel.publish(published(messages))
    [feed] = [wired.flow for wired in flows if wired.name == "mail.channel"]
    return wiring, feed


def test_the_statements_of_a_batch_of_500_messages(tmp_path: Path, statements: Statements) -> None:
    async def main() -> None:
        app = consumer(f"sqlite:///{tmp_path}/a.db", with_async=False)
        wiring, feed = await consume(app, 3 * BATCH)
        await feed.step()  # the first one notes that it runs
        statements.seen.clear()
        await feed.step()
        assert statements.count <= 15, statements.seen  # of which the marks are 8
        await wiring.leave()
        await app.stop()

    run(main)


def test_a_batch_of_one_message_is_one_transaction_of_a_few_statements(tmp_path: Path, statements: Statements) -> None:
    async def main() -> None:
        app = consumer(f"sqlite:///{tmp_path}/a.db", with_async=False, batch=1)
        wiring, feed = await consume(app, 3)
        await feed.step()
        statements.seen.clear()
        await feed.step()
        assert statements.seen["COMMIT"] == 1
        assert statements.count <= 7, statements.seen  # of which two are reads of marks and of held keys
        await wiring.leave()
        await app.stop()

    run(main)


def test_what_nobody_wants_and_an_idle_feed_cost_no_transaction(tmp_path: Path, statements: Statements) -> None:
    async def main() -> None:
        clock = SystemClock()
        app = App("shop", store=f"sqlite:///{tmp_path}/a.db", channel="memory://")
        app.add(Total, Order)
        wiring = await app.connect()
        await wiring.channel.open()
        flows = await wiring.flows("test", lambda name: lambda: None)
        [feed] = [wired.flow for wired in flows if wired.name == "shop.total/log"]
        for order in range(3):
            draft = Draft("event", clock.new_id(), "shop.Else", 1, 0, clock.now(), b"{}", b"{}")
            await wiring.database.commit([WriteSet(appends=[Append(f"shop.Else/{order}", 0, [draft])])])
            statements.seen.clear()
            assert not await feed.step()
            assert statements.seen["BEGIN IMMEDIATE"] == 0, statements.seen
        await wiring.leave()
        await app.stop()

    run(main)


def test_a_commit_that_adds_nothing_to_the_log_wakes_nobody(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    hints: list[int] = []
    monkeypatch.setattr(Wake, "hint", lambda _, subjects=EVERYTHING: hints.append(subjects))

    async def main() -> None:
        clock = SystemClock()
        database = SqliteDatabase(tmp_path / "a.db", clock)
        await database.open()
        await database.commit([WriteSet(note=Note("feed", ()), marks=[Mark("c", "s", 1, 0)])])
        assert hints == []
        await database.commit([append(1, clock)])
        assert hints == [EVERYTHING]
        await database.close()
        channel = SqliteChannel(tmp_path / "c.db", clock)
        await channel.open()
        await channel.publish([], producer="shop", position=1)
        await channel.publish(published(2))
        assert hints == [EVERYTHING, subjects_of(["shop.Order"])]
        await channel.close()

    run(main)


@pytest.mark.parametrize(("with_async", "most"), [(False, 21), (True, 31.5)], ids=["def", "async-def"])
def test_the_calls_for_a_message(with_async: bool, most: float) -> None:
    async def main() -> None:
        app = consumer("memory://", with_async=with_async)
        wiring, feed = await consume(app, 3 * BATCH)
        await feed.step()
        with calls() as called:
            await feed.step()
        assert called.total() / BATCH <= most, called.most_common(12)
        await wiring.leave()
        await app.stop()

    run(main)


def test_catching_up_a_read_model_is_a_few_statements_and_calls_an_event(
    tmp_path: Path, statements: Statements
) -> None:
    async def main() -> None:
        clock = SystemClock()
        app = App("shop", store=f"sqlite:///{tmp_path}/a.db", channel="memory://")
        app.add(Total)
        wiring = await app.connect()
        await wiring.channel.open()
        await wiring.database.commit([append(order, clock) for order in range(3 * BATCH)])
        flows = await wiring.flows("test", lambda name: lambda: None)
        [feed] = [wired.flow for wired in flows if wired.name == "shop.total/log"]
        await feed.step()
        statements.seen.clear()
        with calls() as called:
            await feed.step()
        assert statements.count <= 10, statements.seen
        assert called.total() / BATCH <= 16.5, called.most_common(12)
        await wiring.leave()
        await app.stop()

    run(main)
