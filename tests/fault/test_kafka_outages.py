"""The channel on Kafka when the broker itself fails: killed, restarted, stopped, its connections cut."""

from __future__ import annotations

import asyncio
import random
import time
from contextlib import suppress

import pytest

from headwater.adapters.kafka import KafkaChannel
from headwater.channel import Subscription
from headwater.errors import ChannelError
from tests.fault.kafka import opened
from tests.fault.stream import BATCH, BOUNDED, CLOCK, Ledger, Publishing, follow, publications, publish_surely, refusal
from tests.servers.kafka import Brokers
from tests.servers.proxy import Cut, Meter, Proxy

pytestmark = pytest.mark.timeout(200)  # brokers end and start on a busy machine


@pytest.mark.parametrize(("how", "timeout"), [("kill", 1), ("kill", 30), ("stop", 1)])
def test_a_broker_that_ends_and_starts_again_loses_nothing(own_kafka: Brokers, how: str, timeout: int) -> None:
    """Publishing waits for it, where it has the time, or fails and is done again: the order is kept either way."""

    async def main() -> None:
        url = own_kafka.url(timeout=timeout)
        async with opened(url) as writing, opened(url, made=False) as reading:
            member, ledger = await reading.subscribe("g", ["orders"], "m"), Ledger()
            publishing = Publishing(writing, 50)
            taking = asyncio.create_task(follow(member, ledger))
            await publishing.reach(600)
            assert own_kafka.server is not None
            await asyncio.to_thread(getattr(own_kafka.server, how))
            await asyncio.sleep(0.5)
            await asyncio.to_thread(own_kafka.server.start)
            await publishing.reach(600)
            count = await publishing.stop()
            taking.cancel()
            with suppress(asyncio.CancelledError):
                await taking
            await ledger.drain(member, count)
            assert (publishing.failures > 0) == (timeout == 1)

    asyncio.run(main())


def test_a_broker_that_is_down_is_told_in_bounded_time(own_kafka: Brokers) -> None:
    async def main() -> None:
        async with opened(own_kafka.url(timeout=1.5)) as channel:
            member = await channel.subscribe("g", ["orders"], "m")
            await channel.publish(publications(range(50)))
            await Ledger().drain(member, 50)
            assert own_kafka.server is not None
            own_kafka.server.kill()
            try:
                began = time.monotonic()
                assert "no broker answers" in await refusal(channel.publish(publications(range(50, 100))))
                assert "no broker answers" in await refusal(KafkaChannel(channel.url, CLOCK).open())
                assert "no broker answers" in await refusal(channel.lag("g"))
                assert "no broker answers" in await told(member)
                assert time.monotonic() - began < BOUNDED
            finally:
                await asyncio.to_thread(own_kafka.server.start)

    asyncio.run(main())


async def told(member: Subscription) -> str:
    """What a member is told, in a while."""
    for _ in range(100):
        try:
            assert await member.fetch(10) == []
        except ChannelError as error:
            return str(error)
        await member.wait(0.1)
    raise AssertionError("it is told nothing")


def test_a_broker_that_stands_still_holds_up_nobody_else(own_kafka: Brokers) -> None:
    async def main() -> None:
        async with opened(own_kafka.url(timeout=1.5, session=6)) as channel:
            member, ledger = await channel.subscribe("g", ["orders"], "m"), Ledger()
            await channel.publish(publications(range(50)))
            longest = asyncio.create_task(longest_pause(3.0))
            assert own_kafka.server is not None
            own_kafka.server.pause()
            try:
                began = time.monotonic()
                assert "did not confirm within 1.5 s" in await refusal(channel.publish(publications(range(50, 100))))
                assert "in time" in await refusal(channel.publish(publications(range(50, 100))))
                await member.fetch(10)
                await member.release()
                assert time.monotonic() - began < BOUNDED
            finally:
                own_kafka.server.resume()
            assert await longest < 1.0, "the event loop goes on"
            await publish_surely(channel, publications(range(50, 100)))
            await ledger.drain(member, 100)

    asyncio.run(main())


async def longest_pause(seconds: float) -> float:
    """The longest time for which the event loop stood still."""
    longest, end = 0.0, time.monotonic() + seconds
    while (before := time.monotonic()) < end:
        await asyncio.sleep(0.005)
        longest = max(longest, time.monotonic() - before)
    return longest


def test_of_what_is_published_through_cuts_nothing_is_lost_and_the_order_is_kept(own_kafka: Brokers) -> None:
    chance = random.Random(7)

    def now_and_then() -> Cut | None:
        return chance.choice([Cut.AT_ONCE, Cut.ANSWERED, Cut.BOTH, None])

    async def main() -> None:
        assert own_kafka.server is not None
        ports = own_kafka.server.ports
        behind = f"kafka://127.0.0.1:{ports.behind}"
        with Proxy(behind, now_and_then, lambda: Meter(100_000), port=ports.proxy) as proxy:
            direct = own_kafka.url(timeout=5)
            through = direct.replace(own_kafka.address, f"127.0.0.1:{ports.proxy}")
            async with opened(through) as writing, opened(direct, made=False) as reading:
                member, ledger = await reading.subscribe("g", ["orders"], "m"), Ledger()
                publishing = Publishing(writing, 50)
                taking = asyncio.create_task(follow(member, ledger))
                for _ in range(6):
                    for _ in range(10):
                        await asyncio.sleep(chance.random() * 0.1)
                        proxy.cut()
                    await publishing.reach(BATCH)
                count = await publishing.stop()
                taking.cancel()
                with suppress(asyncio.CancelledError):
                    await taking
                await ledger.drain(member, count)
                assert proxy.cuts > 2
                assert publishing.failures or not ledger.repeated, "what is confirmed at last is there once"

    asyncio.run(main())


def test_a_member_whose_connection_is_cut_goes_on(own_kafka: Brokers) -> None:
    async def main() -> None:
        assert own_kafka.server is not None
        ports = own_kafka.server.ports
        with Proxy(f"kafka://127.0.0.1:{ports.behind}", port=ports.proxy) as proxy:
            direct = own_kafka.url()
            through = direct.replace(own_kafka.address, f"127.0.0.1:{ports.proxy}")
            async with opened(direct) as writing, opened(through, made=False) as reading:
                member, ledger = await reading.subscribe("g", ["orders"], "m"), Ledger()
                for first in range(0, 300, 20):
                    await writing.publish(publications(range(first, first + 20)))
                    await ledger.drain(member, first + 20)
                    proxy.cut()
                assert proxy.cuts > 10
                again = ledger.times.total() - len(ledger.times)
                assert again <= 20 * proxy.cuts, "a cut brings no more back than what was acknowledged last"

    asyncio.run(main())


def test_a_channel_closes_in_bounded_time_where_no_broker_answers(own_kafka: Brokers) -> None:
    async def main() -> None:
        channel = KafkaChannel(own_kafka.url(timeout=2), CLOCK)
        await channel.open()
        await channel.establish([])
        assert own_kafka.server is not None
        async with opened(channel.url) as other:
            await other.publish(publications(range(10)))
        member = await channel.subscribe("g", ["orders"], "m")
        await Ledger().drain(member, 10)
        publishing = asyncio.create_task(channel.publish(publications(range(10, 20))))
        own_kafka.server.pause()
        try:
            began = time.monotonic()
            await channel.close()
            assert time.monotonic() - began < BOUNDED
            with suppress(ChannelError):
                await publishing
        finally:
            own_kafka.server.resume()

    asyncio.run(main())
