"""What Kafka confirmed is there, in order and once, though requests to publish are lost and the broker is killed under them."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterator
from contextlib import AsyncExitStack
from itertools import count

import pytest

from headwater.adapters.kafka import KafkaChannel
from headwater.channel import Channel, Delivery, Subscription
from tests.fault.kafka import opened
from tests.fault.stream import KEYS, Ledger, publications, publish_surely
from tests.servers.kafka import Brokers
from tests.servers.proxy import Proxy

pytestmark = pytest.mark.timeout(200)  # a broker starts on a busy machine

PRODUCE = 0
"""The number of the request in Kafka's protocol."""
SIZE = 300_000
"""More bytes than go into one request with others."""
COUNT = 6
KILLS = 2
PRODUCERS = 12
"""Each kill is a round for each of them."""


class Losing:
    """Passes on what a client sends to Kafka, but for the requests to publish of these numbers, of all connections together."""

    def __init__(self, lost: set[int], numbers: Iterator[int]) -> None:
        self._lost = lost
        self._numbers = numbers
        self._rest = b""

    def keep(self, data: bytes) -> bytes:
        """Whole requests."""
        self._rest += data
        kept = b""
        while len(self._rest) >= 4 and len(self._rest) >= (end := 4 + int.from_bytes(self._rest[:4])):
            request, self._rest = self._rest[:end], self._rest[end:]
            if int.from_bytes(request[4:6]) != PRODUCE or next(self._numbers) not in self._lost:
                kept += request
        return kept


def test_a_request_that_is_lost_is_no_success_and_overtaken_by_none(own_kafka: Brokers) -> None:
    """A broker takes any number as the first of a producer that is new to it: it would not miss the one before."""
    assert own_kafka.server is not None
    ports = own_kafka.server.ports

    async def main(lost: int) -> None:
        numbers = count()
        direct = own_kafka.url(partitions=1)
        through = direct.replace(own_kafka.address, f"127.0.0.1:{ports.proxy}")
        behind = f"kafka://127.0.0.1:{ports.behind}"
        with Proxy(behind, port=ports.proxy, sieving=lambda: Losing({lost}, numbers)) as proxy:
            async with opened(direct) as reading, opened(through, made=False) as writing:
                asyncio.get_running_loop().call_later(0.5, proxy.cut)
                wanted = range(0, COUNT * KEYS, KEYS)
                await publish_surely(writing, publications(wanted, SIZE))
                member = await reading.subscribe("g", ["orders"], "m")
                assert [int(one.body) for one in await all_of(member, reading)] == [*wanted]

    for lost in range(3):
        asyncio.run(main(lost))


async def all_of(member: Subscription, channel: Channel) -> list[Delivery]:
    """All that a group has to get."""
    found: list[Delivery] = []
    end = time.monotonic() + 10
    while not found or (await channel.lag("g"))[0].messages:
        assert time.monotonic() < end, f"{len(found)} came"
        batch = await member.fetch(100)
        await member.acknowledge(batch)
        found += batch
        await member.wait(0.1)
    return found


def test_a_broker_that_is_killed_again_and_again_has_what_it_confirmed_once_and_in_order(own_kafka: Brokers) -> None:
    """Several producers publish at each kill, and wait for the broker."""

    async def main() -> None:
        assert own_kafka.server is not None
        async with AsyncExitStack() as stack:
            channels = [await stack.enter_async_context(opened(own_kafka.url(timeout=60))) for _ in range(PRODUCERS)]
            over = asyncio.Event()
            publishing = [asyncio.create_task(publish_until(over, one)) for one in channels]
            for _ in range(KILLS):
                await asyncio.sleep(0.5)
                await asyncio.to_thread(own_kafka.server.kill)
                await asyncio.to_thread(own_kafka.server.start)
            over.set()
            for channel, stood in zip(channels, await asyncio.gather(*publishing), strict=True):
                ledger = Ledger()
                await ledger.drain(await channel.subscribe("g", ["orders"], "m"), stood, limit=2_000)
                assert not ledger.repeated

    asyncio.run(main())


async def publish_until(over: asyncio.Event, channel: KafkaChannel) -> int:
    """Publish batch after batch; how many messages stand."""
    stood = 0
    while not over.is_set():
        assert await channel.publish(publications(range(stood, stood + 200), 300)) == {}
        stood += 200
        await asyncio.sleep(0.02)
    return stood
