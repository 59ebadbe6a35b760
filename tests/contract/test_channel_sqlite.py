import asyncio
import shutil
from collections.abc import Callable, Coroutine
from pathlib import Path
from typing import Any

import apsw
import pytest

from headwater.adapters.sqlite.channel import SqliteChannel
from headwater.adapters.sqlite.channel_options import ChannelOptions
from headwater.adapters.sqlite.channel_writes import Cursor, Settle
from headwater.channel import Channel, Publication, Subscription
from headwater.clock import Clock, SystemClock
from headwater.errors import ChannelError, ConfigurationError
from headwater.testing.contracts.channel import ChannelContract


class TestSqliteChannel(ChannelContract):
    patience = 10.0

    async def make(self, tmp_path: Path, clock: Clock) -> Channel:
        return await opened(SqliteChannel(tmp_path / "channel.db", clock))

    async def reopen(self, channel: Channel) -> Channel:
        assert isinstance(channel, SqliteChannel)
        return await opened(SqliteChannel(channel.path, channel.clock))

    async def make_limited(self, tmp_path: Path, clock: Clock, limit: int) -> Channel:
        return await opened(SqliteChannel(tmp_path.with_suffix(".db"), clock, ChannelOptions(limit=limit)))


async def opened(channel: SqliteChannel) -> SqliteChannel:
    await channel.open()
    return channel


def run(scene: Callable[[Path], Coroutine[Any, Any, None]], tmp_path: Path) -> None:
    asyncio.run(scene(tmp_path / "channel.db"))


def messages(count: int, first: int = 0) -> list[Publication]:
    return [Publication("t", f"k{n % 20}", {"id": str(n)}, b"%d" % n) for n in range(first, first + count)]


def select(path: Path, sql: str) -> list[Any]:
    connection = apsw.Connection(str(path))
    try:
        return connection.execute(sql).fetchall()
    finally:
        connection.close()


async def drain(subscription: Subscription, count: int) -> list[int]:
    found: list[int] = []
    async with asyncio.timeout(10):
        while len(found) < count:
            batch = await subscription.fetch(100)
            await subscription.acknowledge(batch)
            found += [int(delivery.body) for delivery in batch]
            await subscription.wait(0.05)
    return found


def test_an_acknowledgement_rides_on_the_next_publish_or_is_written_soon(tmp_path: Path) -> None:
    async def scene(path: Path) -> None:
        channel = await opened(SqliteChannel(path, SystemClock()))
        member = await channel.subscribe("g", ["t"], "m")
        await channel.publish(messages(1))
        await member.acknowledge(await member.fetch(10))
        assert (await counted(path)) == 1, "it is not written alone at once"
        await channel.publish(messages(1, 20))
        assert (await counted(path)) == 1, "only the new one is left"
        await member.acknowledge(await member.fetch(10))
        await asyncio.sleep(0.3)
        assert (await counted(path)) == 0
        await channel.close()

    async def counted(path: Path) -> int:
        (found,) = select(
            path,
            "SELECT count(*) FROM messages m JOIN cursors c USING (topic, partition) WHERE m.position > c.position",
        )
        return int(found[0])

    run(scene, tmp_path)


def test_an_acknowledgement_that_could_not_be_written_is_tried_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    settle, failures = Settle.apply, [apsw.FullError("full")] * 3

    def failing(self: Settle, connection: apsw.Connection) -> list[Cursor]:
        if failures:
            raise failures.pop()
        return settle(self, connection)

    monkeypatch.setattr(Settle, "apply", failing)
    monkeypatch.setattr("headwater.adapters.sqlite.channel_file.RETRY", 0.05)

    async def scene(path: Path) -> None:
        channel = await opened(SqliteChannel(path, SystemClock()))
        member = await channel.subscribe("g", ["t"], "m")
        await channel.publish(messages(10))
        await member.acknowledge(await member.fetch(100))
        await channel.publish(messages(10, 10))  # what it carries along fails without it
        await asyncio.sleep(0.5)
        assert not failures
        (lag,) = await channel.lag("g")
        assert lag.messages == 10
        await channel.close()

    run(scene, tmp_path)


def test_what_is_handed_over_was_settled_on_disk_before(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("headwater.adapters.sqlite.channel_file.FLUSH", 60.0)

    async def scene(path: Path) -> None:
        one, two = [await opened(SqliteChannel(path, SystemClock())) for _ in range(2)]
        first = await one.subscribe("g", ["t"], "m1")
        await two.publish(messages(40))
        await first.acknowledge(await first.fetch(100))
        second = await two.subscribe("g", ["t"], "m2")
        await two.publish(messages(40, 40))
        found = []
        for _ in range(20):
            for member in (first, second):
                batch = await member.fetch(100)
                await member.acknowledge(batch)
                found += [int(delivery.body) for delivery in batch]
            await asyncio.sleep(0.05)
        assert sorted(found) == list(range(40, 80))
        await two.close()
        await one.close()

    run(scene, tmp_path)


def test_a_member_whose_partitions_were_taken_cannot_settle_them(tmp_path: Path) -> None:
    async def scene(path: Path) -> None:
        one, two = [await opened(SqliteChannel(path, SystemClock())) for _ in range(2)]
        stale = await one.subscribe("g", ["t"], "m1")
        await one.publish(messages(40))
        in_hand = await stale.fetch(100)
        shutil.rmtree(
            f"{path}.leases"
        )  # as somebody might who tidies up: nobody sees the first member's locks any more
        fresh = await two.subscribe("g", ["t"], "m2")
        assert len(await fresh.fetch(100)) == 40
        await stale.acknowledge(in_hand)
        await asyncio.sleep(0.3)
        with pytest.raises(ChannelError, match="taken for dead"):
            await stale.fetch(100)
        await fresh.release()
        await stale.close()
        assert sorted(await drain(fresh, 40)) == list(range(40))
        await one.close()
        await two.close()

    run(scene, tmp_path)


def test_what_is_old_and_acknowledged_by_all_groups_is_deleted(tmp_path: Path) -> None:
    async def scene(path: Path) -> None:
        channel = await opened(SqliteChannel(path, SystemClock(), ChannelOptions(retention=0.2)))
        fast, slow = [await channel.subscribe(group, ["t"], "m") for group in ("fast", "slow")]
        for first in range(0, 3000, 500):
            await channel.publish(messages(500, first))
        await drain(fast, 3000)
        await asyncio.sleep(0.5)
        await channel.publish(messages(1, 3000))
        await asyncio.sleep(0.3)
        assert select(path, "SELECT count(*) FROM messages") == [(3001,)], "the slow group has not read it"
        await drain(slow, 3001)
        await asyncio.sleep(0.3)
        await channel.publish(messages(1, 3001))
        await asyncio.sleep(0.4)
        assert select(path, "SELECT count(*) < 500 FROM messages") == [(1,)]
        assert await drain(slow, 1) == [3001]
        await channel.close()

    run(scene, tmp_path)


def test_a_full_disk_is_a_channel_error_and_work_goes_on_when_there_is_space(tmp_path: Path) -> None:
    async def scene(path: Path) -> None:
        channel = await opened(SqliteChannel(path, SystemClock()))
        member = await channel.subscribe("g", ["t"], "m")
        connection = channel._file._writer._session._connection  # type: ignore[union-attr]
        connection.pragma("max_page_count", connection.pragma("page_count") + 4)
        with pytest.raises(ChannelError, match="no space is left"):
            for first in range(0, 1000, 100):
                await channel.publish(messages(100, first))
        there = select(path, "SELECT count(*) FROM messages")[0][0]
        assert there % 100 == 0, "a batch is there whole or not at all"
        await member.acknowledge(await member.fetch(50))
        with pytest.raises(ChannelError, match="no space is left"):
            await channel.publish(messages(100, there))
        connection.pragma("max_page_count", 1_000_000)
        await channel.publish(messages(100, there))
        await member.close()
        again = await channel.subscribe("g", ["t"], "m")
        assert sorted(await drain(again, there + 50)) == list(range(50, there + 100)), (
            "what was acknowledged is settled"
        )
        await channel.close()

    run(scene, tmp_path)


def test_headers_that_somebody_else_broke_do_not_stop_the_others(tmp_path: Path) -> None:
    async def scene(path: Path) -> None:
        channel = await opened(SqliteChannel(path, SystemClock()))
        member = await channel.subscribe("g", ["t"], "m")
        await channel.publish(messages(3))
        select(path, "UPDATE messages SET headers = '{oh no' WHERE position = 2")
        assert [delivery.headers for delivery in await member.fetch(10)] == [
            {"id": "0"},
            {"malformed": "{oh no"},
            {"id": "2"},
        ]
        await channel.close()

    run(scene, tmp_path)


def test_the_number_of_partitions_is_for_good(tmp_path: Path) -> None:
    async def scene(path: Path) -> None:
        url = f"sqlite:///{path}"
        await (await opened(SqliteChannel.from_url(f"{url}?partitions=3", SystemClock()))).close()
        channel = await opened(SqliteChannel.from_url(url, SystemClock()))
        await channel.publish(messages(60))
        deliveries = await (await channel.subscribe("g", ["t"], "m")).fetch(100)
        assert {delivery.partition for delivery in deliveries} == {0, 1, 2}
        await channel.close()
        with pytest.raises(ConfigurationError, match="has 3 partitions"):
            await SqliteChannel.from_url(f"{url}?partitions=4", SystemClock()).open()

    run(scene, tmp_path)


def test_a_url_names_a_file_and_options() -> None:
    channel = SqliteChannel.from_url("sqlite:///a%20b/c.db?retention=60.5&limit=9&partitions=4", SystemClock())
    assert channel.path == Path("a b/c.db")
    assert channel.options == ChannelOptions(retention=60.5, limit=9, partitions=4)
    assert SqliteChannel.from_url("sqlite:////var/c.db", SystemClock()).path == Path("/var/c.db")


@pytest.mark.parametrize(
    "url",
    [
        "sqlite://c.db",
        "sqlite:///",
        "sqlite:///:memory:",
        "sqlite:///c.db?speed=9",
        "sqlite:///c.db?limit=many",
        "sqlite:///c.db?limit=-1",
        "sqlite:///c.db?retention=nan",
        "sqlite:///c.db?partitions=63",
    ],
)
def test_a_url_that_cannot_be_meant_is_refused(url: str) -> None:
    with pytest.raises(ConfigurationError):
        SqliteChannel.from_url(url, SystemClock())


def test_a_closed_channel_says_so(tmp_path: Path) -> None:
    async def scene(path: Path) -> None:
        channel = SqliteChannel(path, SystemClock())
        with pytest.raises(ChannelError, match="not open"):
            await channel.publish(messages(1))
        await channel.open()
        member = await channel.subscribe("g", ["t"], "m")
        await channel.close()
        await channel.close()
        for attempt in (member.fetch(1), channel.publish(messages(1)), channel.lag()):
            with pytest.raises(ChannelError):
                await attempt

    run(scene, tmp_path)


def test_a_folder_that_is_missing_is_named(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match="does not exist"):
        asyncio.run(SqliteChannel(tmp_path / "nowhere" / "channel.db", SystemClock()).open())
