"""The channel on RabbitMQ through harm that the server itself comes through: cuts, members that end, queues that are gone."""

from __future__ import annotations

import asyncio
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from itertools import islice

import pytest
from pamqp import commands

from headwater.adapters.rabbitmq import RabbitmqChannel
from headwater.adapters.rabbitmq.subscription import RabbitmqSubscription
from headwater.channel import Delivery, Publication, Route
from headwater.errors import ChannelError
from tests.fault.rabbitmq import opened
from tests.fault.stream import BOUNDED, KEYS, ROUTE, Ledger, publications, publish_surely, refusal
from tests.servers.proxy import Cut, Meter, Proxy
from tests.servers.rabbitmq import Vhosts


def cut(member: RabbitmqSubscription) -> None:
    """End the connection that a member reads from, as a network does."""
    assert member._connection is not None
    assert member._connection._transport is not None
    member._connection._transport.abort()


async def on_server(channel: RabbitmqChannel, *methods: object) -> None:
    """Do something to the server behind everybody's back."""
    async with channel._ground() as ground:
        session = await ground.connection.session()
        await session.call(*methods)  # type: ignore[arg-type]


# --- connections that are cut ---


def cutting(how: Cut, most: int) -> Callable[[], Cut | None]:
    """Cut so many connections, then none."""
    left = iter(range(most))
    return lambda: how if next(left, None) is not None else None


@pytest.mark.parametrize("how", list(Cut))
def test_what_is_published_over_connections_that_are_cut_is_all_there_in_order(rabbitmq: Vhosts, how: Cut) -> None:
    async def main() -> None:
        direct = rabbitmq.make()
        with Proxy(direct, cutting(how, 4), lambda: Meter(20_000)) as proxy:
            async with opened(direct) as reading, opened(proxy.url, made=False) as writing:
                member, ledger = await reading.subscribe("g", ["orders"], "m"), Ledger()
                failures = 0
                for start in range(0, 1_000, 100):
                    failures += await publish_surely(writing, publications(range(start, start + 100), size=50))
                await ledger.drain(member, 1_000)
                assert failures > 0, "nothing was cut"

    asyncio.run(main())


@pytest.mark.parametrize("how", list(Cut))
def test_what_is_read_over_connections_that_are_cut_comes_again_in_order(rabbitmq: Vhosts, how: Cut) -> None:
    async def main() -> None:
        direct = rabbitmq.make()
        async with opened(direct) as writing:
            await writing.publish(publications(range(1_000)))
            with Proxy(direct, cutting(how, 4), lambda: Meter(1_200)) as proxy:
                async with opened(f"{proxy.url}?prefetch=20", made=False) as reading:
                    member, ledger = await reading.subscribe("g", ["orders"], "m"), Ledger()
                    await ledger.drain(member, 1_000, limit=7)
                    assert proxy.cuts >= 4

    asyncio.run(main())


async def some(member: RabbitmqSubscription, limit: int = 20) -> list[Delivery]:
    """The next messages, which are there or come soon."""
    end = time.monotonic() + 10
    while not (batch := await member.fetch(limit)):
        assert time.monotonic() < end, "nothing comes"
        await member.wait(0.5)
    return batch


def test_a_member_that_has_lost_what_it_fetched_is_told_and_settles_nothing(rabbitmq: Vhosts) -> None:
    async def main() -> None:
        async with opened(rabbitmq.make()) as channel:
            await channel.publish(publications(range(40)))
            member = await channel.subscribe("g", ["orders"], "m")
            held = await some(member)
            cut(member)
            await asyncio.sleep(0.1)
            assert "comes again" in await refusal(member.acknowledge(held))
            ledger = Ledger()
            await ledger.drain(member, 40)
            assert not ledger.repeated

    asyncio.run(main())


def test_messages_keep_their_order_however_often_they_are_given_back(rabbitmq: Vhosts) -> None:
    async def main() -> None:
        async with opened(rabbitmq.make()) as channel:
            await channel.publish(publications(range(1_500)))
            member, ledger = await channel.subscribe("g", ["orders"], "m"), Ledger()
            for turn in range(12):
                batches = [await some(member) for _ in range(3)]
                for batch in batches:
                    ledger.take(batch)
                if turn % 3 == 0:
                    await member.acknowledge(batches[0])
                if turn % 2:
                    cut(member)
                    await asyncio.sleep(0.05)
                    assert "comes again" in await refusal(member.fetch(1))
                else:
                    await member.close()
                    member = await channel.subscribe("g", ["orders"], f"m{turn}")
            await ledger.drain(member, 1_500)
            assert ledger.repeated

    asyncio.run(main())


def test_calls_that_are_cancelled_keep_nothing_back(rabbitmq: Vhosts) -> None:
    """Whatever a call had begun when it was cancelled: each message comes, in its order."""

    async def main() -> None:
        async with opened(rabbitmq.make()) as channel:
            await channel.publish(publications(range(100)))
            ledger = Ledger()
            for turns in range(1, 60, 2):
                member = await channel.subscribe("g", ["orders"], "m")
                waiting = asyncio.create_task(member.wait(5.0))
                for _ in range(turns):
                    await asyncio.sleep(0.0005)
                waiting.cancel()
                await asyncio.wait({waiting})
                if turns % 4 == 1:
                    await member.close()
                else:
                    await ledger.drain(member, 100)
                    await member.close()
                    await channel.publish(publications(range(100)))
                    ledger = Ledger()

    asyncio.run(main())


# --- members ---

MEMBER = """
import asyncio, sys
from headwater.adapters.rabbitmq import RabbitmqChannel
from headwater.clock import SystemClock

async def main():
    channel = RabbitmqChannel(sys.argv[1], SystemClock())
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


@pytest.fixture
def child(rabbitmq: Vhosts) -> Iterator[Callable[[str], subprocess.Popen[str]]]:
    """Starts a member in a process of its own, that takes some messages and keeps them."""
    started: list[subprocess.Popen[str]] = []

    def start(url: str) -> subprocess.Popen[str]:
        started.append(subprocess.Popen([sys.executable, "-c", MEMBER, url], stdout=subprocess.PIPE, text=True))
        return started[-1]

    yield start
    for one in started:
        one.kill()
        one.communicate()


def test_what_a_killed_member_had_comes_to_another(
    rabbitmq: Vhosts, child: Callable[[str], subprocess.Popen[str]]
) -> None:
    async def main() -> None:
        url = rabbitmq.make()
        async with opened(url) as channel:
            await channel.publish(publications(range(200)))
            process = child(url)
            assert process.stdout is not None
            assert int(await asyncio.to_thread(process.stdout.readline)) > 0
            process.send_signal(signal.SIGKILL)
            began = time.monotonic()
            ledger = Ledger()
            await ledger.drain(await channel.subscribe("g", ["orders"], "other"), 200)
            assert time.monotonic() - began < BOUNDED

    asyncio.run(main())


def test_a_stopped_member_keeps_what_it_has_until_the_server_gives_it_up(
    rabbitmq: Vhosts, child: Callable[[str], subprocess.Popen[str]]
) -> None:
    async def main() -> None:
        url = rabbitmq.make()
        async with opened(url) as channel:
            await channel.publish(publications(range(200)))
            process = child(f"{url}?heartbeat=1")
            assert process.stdout is not None
            assert int(await asyncio.to_thread(process.stdout.readline)) > 0
            process.send_signal(signal.SIGSTOP)
            ledger = Ledger()
            await ledger.drain(await channel.subscribe("g", ["orders"], "other"), 200, seconds=15.0)

    asyncio.run(main())


def test_members_get_even_shares_and_a_late_one_gets_its_own(rabbitmq: Vhosts) -> None:
    async def main() -> None:
        async with opened(f"{rabbitmq.make()}?partitions=8") as channel:
            members = [await channel.subscribe("g", ["orders"], f"m{n}") for n in range(3)]

            async def shares() -> list[int]:
                for member in members:
                    await member.fetch(1)
                return sorted(len(member._partitions) for member in members)

            await until(shares, [2, 3, 3])
            members.append(await channel.subscribe("g", ["orders"], "late"))
            await until(shares, [2, 2, 2, 2])
            await members.pop(0).close()
            await members.pop(0).close()
            await until(shares, [4, 4])

    asyncio.run(main())


async def until(look: Callable[[], object], wanted: object, seconds: float = 4.0) -> None:
    end, seen = time.monotonic() + seconds, None
    while seen != wanted:
        assert time.monotonic() < end, f"{seen}, not {wanted}"
        seen = await look()  # type: ignore[misc]
        await asyncio.sleep(0.02)


def test_a_member_that_is_busy_for_long_keeps_its_keys(rabbitmq: Vhosts, monkeypatch: pytest.MonkeyPatch) -> None:
    """Others take it for gone, and wait in line for nothing but the end of its work."""
    monkeypatch.setattr("headwater.adapters.rabbitmq.roster.EVERY", 0.05)

    async def main() -> None:
        url = rabbitmq.make()
        async with opened(url) as one, opened(url) as two:
            busy, other = await one.subscribe("g", ["orders"], "busy"), await two.subscribe("g", ["orders"], "other")
            await one.publish(publications(range(100)))
            held = await some(busy, 100)
            busy._roster._tick = lambda: None  # type: ignore[method-assign]  # it says no more word
            keys = {delivery.key for delivery in held}
            end, numbers = time.monotonic() + 1.0, iter(range(100, 100_000))
            while time.monotonic() < end:
                await two.publish(publications(islice(numbers, KEYS)))
                batch = await other.fetch(10)
                await other.acknowledge(batch)
                assert keys.isdisjoint(delivery.key for delivery in batch)
                await other.wait(0.05)

    asyncio.run(main())


# --- queues and exchanges that are gone ---


def test_a_queue_that_is_deleted_is_missed_by_those_who_publish_and_read(rabbitmq: Vhosts) -> None:
    async def main() -> None:
        async with opened(f"{rabbitmq.make()}?partitions=1") as channel:
            member = await channel.subscribe("g", ["orders"], "m")
            await channel.publish(publications(range(10)))
            await Ledger().drain(member, 10)
            await on_server(channel, commands.Queue.Delete(queue="orders/g/0-of-1"))
            await asyncio.sleep(0.1)
            assert "channel apply" in await refusal(member.fetch(1))
            assert "no queue takes" in await refusal(channel.publish(publications([10])))
            assert [finding.state for finding in await channel.examine([ROUTE])] == ["missing"]
            assert await channel.establish([ROUTE]) == ["orders/g/0-of-1"]
            await channel.publish(publications(range(5)))
            await Ledger().drain(member, 5)

    asyncio.run(main())


def test_a_topic_that_is_missing_is_told_and_does_not_stop_the_others(rabbitmq: Vhosts) -> None:
    async def main() -> None:
        async with opened(rabbitmq.make()) as channel:
            said = await refusal(channel.publish([Publication("nowhere", "k", {}, b"")]))
            assert "no exchange 'nowhere'" in said
            assert "channel apply" in said
            with pytest.raises(ChannelError, match="channel apply"):
                await channel.subscribe("g", ["nowhere"], "m")
            assert await channel.publish(publications(range(KEYS))) == {}
            assert [one.state for one in await channel.examine([Route("nowhere", ("g",))])] == ["missing", "missing"]

    asyncio.run(main())


def test_what_is_for_a_group_that_is_not_there_is_nobodys(rabbitmq: Vhosts) -> None:
    async def main() -> None:
        async with opened(rabbitmq.make()) as channel:
            for_x = [Publication("orders", "k", {}, b"", group="x")]
            assert await channel.publish([*for_x, *publications(range(3))]) == {}
            await Ledger().drain(await channel.subscribe("g", ["orders"], "m"), 3)
            await channel.establish([Route("orders", ("x",))])
            assert await channel.publish(for_x) == {}
            assert len(await some(await channel.subscribe("x", ["orders"], "m"))) == 1
            await on_server(channel, commands.Exchange.Delete(exchange="orders/x"))
            assert "no exchange 'orders/x'" in await refusal(channel.publish(for_x))
            assert await channel.publish(for_x) == {}

    asyncio.run(main())


def test_what_stands_in_another_form_is_told(rabbitmq: Vhosts) -> None:
    async def main() -> None:
        url = rabbitmq.make()
        async with opened(url) as channel, opened(f"{url}?limit=10", made=False) as other:
            await on_server(channel, commands.Exchange.Declare(exchange="mail", exchange_type="topic", durable=True))
            [finding] = await channel.examine([Route("mail")])
            assert finding.state == "impossible"
            assert "'type'" in finding.why
            found = await other.examine([ROUTE])
            assert {finding.state for finding in found} == {"unsafe"}
            assert "x-max-length" in found[0].why
            assert [one.state for one in await channel.examine([Route("na\0me")])] == ["impossible"]

    asyncio.run(main())


def test_a_queue_that_is_emptied_is_told_by_nothing_but_its_length(rabbitmq: Vhosts) -> None:
    """What was in it is missed by marks, and asked for again; the channel goes on."""

    async def main() -> None:
        async with opened(f"{rabbitmq.make()}?partitions=1") as channel:
            await channel.publish(publications(range(10)))
            await on_server(channel, commands.Queue.Purge(queue="orders/g/0-of-1"))
            assert [lag.messages for lag in await channel.lag("g")] == [0]
            await channel.publish(publications(range(10)))
            await Ledger().drain(await channel.subscribe("g", ["orders"], "m"), 10)

    asyncio.run(main())


def test_processes_that_make_the_same_things_at_once_make_them_once(rabbitmq: Vhosts) -> None:
    async def main() -> None:
        url = rabbitmq.make()
        async with opened(url, made=False) as one, opened(url, made=False) as two:
            made = await asyncio.gather(one.establish([ROUTE]), two.establish([ROUTE]), one.establish([ROUTE]))
            assert sorted(map(len, made)) == [0, 0, 7]

    asyncio.run(main())


def test_partitions_are_for_good_and_prefixes_keep_apart(rabbitmq: Vhosts) -> None:
    async def main() -> None:
        url = rabbitmq.make()
        async with opened(f"{url}?partitions=2") as two, opened(url, made=False) as any_number:
            assert await any_number.examine([ROUTE]) == []
            async with opened(f"{url}?partitions=8", made=False) as eight:
                with pytest.raises(Exception, match="2 partitions of orders, for good"):
                    await eight.establish([ROUTE])
            async with opened(f"{url}?prefix=test.&partitions=1") as apart:
                await apart.publish(publications(range(10)))
                await Ledger().drain(await apart.subscribe("g", ["orders"], "m"), 10)
            assert [lag.messages for lag in await two.lag("g")] == [0]

    asyncio.run(main())
