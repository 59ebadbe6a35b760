"""The channel on PostgreSQL through harm: publishers at once in many processes, members that are killed or stopped, cuts."""

from __future__ import annotations

import asyncio
import signal
import subprocess
import sys
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from functools import partial

import pytest

from headwater.adapters.postgres import PostgresChannel, PostgresDatabase
from headwater.adapters.postgres.channel_options import ChannelOptions
from headwater.adapters.postgres.schema import MIGRATIONS
from headwater.channel import Publication
from headwater.clock import SystemClock
from headwater.errors import ChannelError, ConfigurationError
from tests.fault.stream import drained
from tests.servers.postgres import Databases, run

CLOCK = SystemClock()
CUT_OFF = "SELECT count(pg_terminate_backend(pid)) FROM pg_stat_activity WHERE datname = %s"


@asynccontextmanager
async def opened(url: str, options: ChannelOptions | None = None) -> AsyncIterator[PostgresChannel]:
    channel = PostgresChannel(url, CLOCK, options)
    await channel.open()
    try:
        yield channel
    finally:
        await channel.close()


def message(writer: int, number: int, topic: str = "orders") -> Publication:
    return Publication(topic, f"k{writer}-{number % 5}", {"id": f"{writer}-{number}"}, b"%d" % number)


drain = partial(drained, seconds=20.0)


def test_of_what_many_publish_at_once_a_reader_misses_nothing(postgres: Databases) -> None:
    async def main() -> None:
        url = postgres.make()
        async with opened(url) as one, opened(url) as two, opened(url) as three:
            member = await three.subscribe("g", ["orders", "mail"], "m")

            async def publish(channel: PostgresChannel, writer: int) -> None:
                for number in range(0, 300, 10):
                    batch = [message(writer, n, "mail" if n % 3 else "orders") for n in range(number, number + 10)]
                    assert await channel.publish(batch) == {}

            reading = asyncio.create_task(drain(member, 3_000))
            await asyncio.gather(*(publish((one, two)[writer % 2], writer) for writer in range(10)))
            found = await reading
            assert len({delivery.headers["id"] for delivery in found}) == 3_000
            last: dict[tuple[str, str], int] = {}
            for delivery in found:
                assert last.get((delivery.topic, delivery.key), -1) < int(delivery.body)
                last[delivery.topic, delivery.key] = int(delivery.body)
            assert all(lag.messages == 0 for lag in await three.lag("g"))

    asyncio.run(main())


MEMBER = """
import asyncio, sys
from headwater.adapters.postgres import PostgresChannel
from headwater.clock import SystemClock

async def main():
    channel = PostgresChannel(sys.argv[1], SystemClock())
    await channel.open()
    member = await channel.subscribe("g", ["orders"], "child")
    while True:
        batch = await member.fetch(10)
        if batch:
            print(len(batch), flush=True)
            await asyncio.sleep(60)
        await member.wait(0.2)

asyncio.run(main())
"""


def start_member(url: str) -> subprocess.Popen[str]:
    return subprocess.Popen([sys.executable, "-c", MEMBER, url], stdout=subprocess.PIPE, text=True)


@pytest.mark.parametrize(("how", "within"), [(signal.SIGKILL, 3.0), (signal.SIGSTOP, 12.0)])
def test_what_a_killed_or_stopped_member_had_comes_to_another(
    postgres: Databases, how: signal.Signals, within: float
) -> None:
    async def main() -> None:
        url = postgres.make()
        async with opened(url) as channel:
            await channel.publish([message(1, number) for number in range(100)])
            child = start_member(url)
            try:
                assert child.stdout is not None
                assert int(await asyncio.to_thread(child.stdout.readline)) > 0
                child.send_signal(how)
                began = time.monotonic()
                member = await channel.subscribe("g", ["orders"], "other")
                found = await drain(member, 100)
                assert len({delivery.headers["id"] for delivery in found}) == 100
                assert time.monotonic() - began < within + 5.0
            finally:
                child.kill()
                child.communicate()

    asyncio.run(main())


def test_a_member_that_was_taken_for_dead_settles_nothing(postgres: Databases) -> None:
    async def main() -> None:
        url = postgres.make()
        async with opened(url) as one, opened(url) as two:
            await one.publish([message(1, number) for number in range(20)])
            old = await one.subscribe("g", ["orders"], "old")
            held = await old.fetch(100)
            run(url, "DELETE FROM headwater_channel.members")
            new = await two.subscribe("g", ["orders"], "new")
            assert len(await drain(new, 20)) == 20
            await two.publish([message(1, number) for number in range(20, 30)])
            with pytest.raises(ChannelError, match="taken for dead"):
                await old.acknowledge(held)
                await one.lag("g")
                await old.fetch(10)
                await asyncio.sleep(0.6)
                await old.fetch(10)
            again = [await old.fetch(100), await new.fetch(100)]
            assert {delivery.headers["id"] for batch in again for delivery in batch} <= {
                f"1-{n}" for n in range(20, 30)
            }

    asyncio.run(main())


def test_a_channel_goes_on_when_all_its_connections_are_cut(postgres: Databases) -> None:
    async def main() -> None:
        url = postgres.make()
        name = url.rpartition("/")[2]
        async with opened(url) as channel:
            member = await channel.subscribe("g", ["orders"], "m")
            found: dict[str, None] = {}
            for turn in range(3):
                await asyncio.to_thread(postgres.run, CUT_OFF, name)
                while True:
                    try:
                        await channel.publish([message(turn, number) for number in range(10)])
                        break
                    except ChannelError:
                        await asyncio.sleep(0.05)
                end = time.monotonic() + 10
                while len(found) < 10 * (turn + 1):
                    assert time.monotonic() < end
                    try:
                        batch = await member.fetch(100)
                        await member.acknowledge(batch)
                        found |= dict.fromkeys(delivery.headers["id"] for delivery in batch)
                        await member.wait(0.1)
                    except ChannelError:
                        await asyncio.sleep(0.05)

    asyncio.run(main())


def test_what_all_have_settled_is_deleted_after_its_time(postgres: Databases) -> None:
    async def main() -> None:
        url = postgres.make()
        async with opened(url, ChannelOptions(retention=0.2)) as channel:
            fast, slow = [await channel.subscribe(group, ["orders"], "m") for group in ("fast", "slow")]
            await channel.publish([message(1, number) for number in range(50)])
            await drain(fast, 50)
            await channel.lag()
            await asyncio.sleep(0.5)
            await channel.publish([message(2, 0)])
            await asyncio.sleep(0.3)
            assert run(url, "SELECT count(*) FROM headwater_channel.messages") == [(51,)]
            await drain(slow, 51)
            await channel.lag()
            end = time.monotonic() + 10
            while run(url, "SELECT count(*) FROM headwater_channel.messages") != [(1,)]:  # which fast has not settled
                assert time.monotonic() < end
                await channel.publish([])
                await channel.publish([], producer="p", position=1, epoch=1)
                await asyncio.sleep(0.1)

    asyncio.run(main())


def test_a_database_holds_a_log_and_a_channel(postgres: Databases) -> None:
    async def main() -> None:
        url = postgres.make()
        async with opened(url):
            database = PostgresDatabase(url, CLOCK)
            await database.open()
            assert (await database.status())["schema"] == {"channel": 1, "database": len(MIGRATIONS)}
            await database.close()

    asyncio.run(main())


def test_options_stand_in_the_url_and_partitions_are_for_good(postgres: Databases) -> None:
    async def main() -> None:
        url = postgres.make()
        first = PostgresChannel.from_url(f"{url}?partitions=3&retention=60&application_name=shop", CLOCK)
        assert (first.options.partitions, first.options.retention) == (3, 60.0)
        assert first.server.place.options["application_name"] == "shop"
        await first.open()
        await first.close()
        with pytest.raises(ConfigurationError, match="3 partitions, for good"):
            await PostgresChannel.from_url(f"{url}?partitions=4", CLOCK).open()
        async with opened(url) as again:
            assert again._partitions == 3
        for wrong in ("partitions=-1", "limit=many"):
            with pytest.raises(ConfigurationError):
                PostgresChannel.from_url(f"{url}?{wrong}", CLOCK)

    asyncio.run(main())
