import asyncio
from pathlib import Path

import pytest

from headwater.adapters.memory.channel import MemoryChannel
from headwater.channel import Channel, Publication
from headwater.clock import Clock, SystemClock
from headwater.errors import ConfigurationError
from headwater.testing.clock import VirtualClock
from headwater.testing.contracts.channel import ChannelContract


class TestMemoryChannel(ChannelContract):
    patience = 5.0
    settle = 0.1

    async def make(self, tmp_path: Path, clock: Clock) -> Channel:
        return await opened(MemoryChannel(clock))

    async def reopen(self, channel: Channel) -> Channel:
        assert isinstance(channel, MemoryChannel)
        return await opened(MemoryChannel(channel.clock, channel.broker))

    async def make_limited(self, tmp_path: Path, clock: Clock, limit: int) -> Channel:
        return await opened(MemoryChannel.from_url(f"memory://?limit={limit}", clock))


async def opened(channel: MemoryChannel) -> MemoryChannel:
    await channel.open()
    return channel


def test_delay_goes_by_the_injected_clock() -> None:
    async def run() -> None:
        clock = VirtualClock()
        channel = await opened(MemoryChannel(clock))
        member = await channel.subscribe("g", ["t"], "m")
        await channel.publish([Publication("t", "k", {}, b"later", delay=3600), Publication("t", "k", {}, b"now")])
        assert [delivery.body for delivery in await member.fetch(10)] == [b"now"]
        waiting = asyncio.ensure_future(member.wait(7200))
        await clock.run_for(3599)
        assert await member.fetch(10) == []
        assert not waiting.done()
        await clock.run_for(1)
        await waiting
        assert [delivery.body for delivery in await member.fetch(10)] == [b"later"]

    asyncio.run(run())


def test_channels_of_one_name_share_their_messages() -> None:
    async def run() -> None:
        one, two = [await opened(MemoryChannel.from_url("memory://shared", SystemClock())) for _ in range(2)]
        other = await opened(MemoryChannel.from_url("memory://", SystemClock()))
        await one.publish([Publication("t", "k", {}, b"1")])
        assert len(await (await two.subscribe("g", ["t"], "m")).fetch(10)) == 1
        assert await (await other.subscribe("g", ["t"], "m")).fetch(10) == []

    asyncio.run(run())


@pytest.mark.parametrize(
    "url", ["memory:x", "sqlite://", "memory://?limit=many", "memory://?speed=9", "memory://?partitions=0"]
)
def test_a_url_that_cannot_be_meant_is_refused(url: str) -> None:
    with pytest.raises(ConfigurationError):
        MemoryChannel.from_url(url, SystemClock())
