"""A member of a group that reads a channel, as its event loop sees it. It waits in real time."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from contextlib import suppress

from headwater.adapters.kafka.binding import Place as TopicPlace
from headwater.adapters.kafka.binding import Reader
from headwater.adapters.kafka.member import Member
from headwater.adapters.kafka.shelf import Shelf
from headwater.adapters.kafka.url import Place
from headwater.channel import Delivery
from headwater.errors import ChannelError


class KafkaSubscription:
    """A member of a group; used by one task at a time."""

    def __init__(
        self, place: Place, group: str, name: str, topics: Sequence[str], starts: Mapping[TopicPlace, int]
    ) -> None:
        prefix = place.options.prefix
        names = {f"{prefix}{topic}": topic for topic in topics}
        self.closed = False
        self._place = place
        self._name = f"member {name} of {group}"
        self._loop = asyncio.get_running_loop()
        self._news = asyncio.Event()
        self._waiting = False
        self._ended = asyncio.Event()
        self._shelf = Shelf(Reader(names, group), prefix, self._name, self._ring)
        self._member = Member(place, f"{prefix}{group}", name, [*names], self._shelf, starts)
        self._member.start(self._end)

    async def fetch(self, limit: int) -> list[Delivery]:
        self._check()
        found = self._shelf.fetch(limit)
        if not found:
            await asyncio.sleep(0)  # others run here, as they would while a channel is asked
        return found

    async def wait(self, timeout: float) -> None:
        self._check()
        self._news.clear()
        self._waiting = True
        try:
            if not self._shelf.holds_news:
                with suppress(TimeoutError):
                    async with asyncio.timeout(timeout):
                        await self._news.wait()
        finally:
            self._waiting = False

    async def acknowledge(self, deliveries: Sequence[Delivery]) -> None:
        self._check()
        self._shelf.acknowledge(deliveries)

    async def release(self) -> None:
        self._check()
        self._shelf.release()

    async def close(self) -> None:
        if self.closed:
            return
        self.closed = True
        self._shelf.close()
        self._news.set()
        with suppress(TimeoutError):  # a cluster that does not answer is left without a word
            async with asyncio.timeout(self._place.options.timeout):
                await self._ended.wait()

    def _check(self) -> None:
        if self.closed:
            raise ChannelError(f"{self._name} has left")

    # --- called in the member's thread ---

    def _ring(self) -> None:
        if self._waiting:
            self._tell_loop(self._news)

    def _end(self) -> None:
        self._tell_loop(self._ended)

    def _tell_loop(self, event: asyncio.Event) -> None:
        with suppress(RuntimeError):  # the loop is closed: nobody waits
            self._loop.call_soon_threadsafe(event.set)
