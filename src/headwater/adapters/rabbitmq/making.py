"""Looks up and makes what stands on a server for the routes of an app. How things are bound is nothing a client can look up."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import asynccontextmanager
from typing import Any, Final

from pamqp import commands
from pamqp.base import Frame

from headwater.adapters.rabbitmq.connection import Connection
from headwater.adapters.rabbitmq.session import Closed
from headwater.adapters.rabbitmq.topology import (
    PARTITIONS,
    Names,
    arguments,
    candidates,
    fault_of,
    slots,
)
from headwater.channel import Finding, Route
from headwater.errors import ChannelError, ConfigurationError

MISSING: Final = 404
LOCKED: Final = 405
DIFFERENT: Final = 406
FORBIDDEN: Final = 403
AGAIN: Final = 0.1
"""Seconds between two tries to be the one that makes things."""


class Ground:
    """A server's vhost as a connection sees it, under the names and options of a URL."""

    def __init__(self, connection: Connection) -> None:
        self.connection = connection
        self.options = connection.place.options
        self.names = Names(self.options.prefix)

    async def count(self, topic: str, group: str) -> int:
        """How many partitions a group has on a topic; 0: it has none. Raises ConfigurationError where the URL says another number."""
        wanted = self.options.partitions
        for count in candidates(wanted or PARTITIONS):
            if await self.there(_passive_queue(self.names.queue(topic, group, 0, count))) is not None:
                if wanted and count != wanted:
                    raise ConfigurationError(
                        f"{group} has {count} partitions of {topic}, for good: leave out partitions={wanted}, "
                        "or delete its queues when they are empty"
                    )
                return count
        return 0

    async def there(self, passive: Frame) -> Any:
        """What the server says of something; None if it is not there. Raises Closed."""
        return await self._tried(passive, MISSING)

    async def has_group(self, topic: str, group: str) -> bool:
        """Whether a group has a place behind a topic."""
        return await self.there(_exchange(self.names.group(topic, group), "direct", passive=True)) is not None

    async def waiting(self, topic: str, group: str) -> int:
        """How many messages of a topic wait in the queues of a group, for whoever reads them."""
        count = await self.count(topic, group)
        names = [self.names.queue(topic, group, number, count) for number in range(count)]
        found = [await self.there(_passive_queue(name)) for name in names]
        return sum(one.message_count for one in found if one is not None)

    async def _tried(self, method: Frame, *excused: int) -> Any:
        session = await self.connection.session()
        try:
            return await session.call(method)
        except Closed as error:
            if error.code not in excused:
                raise
            return None
        finally:
            await session.close()

    # --- looking ---

    async def examine(self, route: Route) -> list[Finding]:
        """What is missing or unsafe for a route."""
        found: list[Finding] = []
        for why in self._faults(route):
            return [Finding("impossible", route.topic, why)]
        topic = self.names.topic(route.topic)
        if await self.there(_exchange(topic, "fanout", passive=True)) is None:
            found.append(Finding("missing", route.topic, f"there is no exchange {topic}"))
        elif why := await self._difference(_exchange(topic, "fanout")):
            return [Finding("impossible", route.topic, why)]
        for group in route.groups:
            found += await self._examine_group(route.topic, group)
        return found

    async def _examine_group(self, topic: str, group: str) -> list[Finding]:
        what = f"{group} on {topic}"
        count = await self.count(topic, group)
        if not count:
            return [Finding("missing", what, "it has no queues, so that nothing is kept for it")]
        found: list[Finding] = []
        exchange = self.names.group(topic, group)
        if await self.there(_exchange(exchange, "direct", passive=True)) is None:
            found.append(Finding("missing", what, f"there is no exchange {exchange}"))
        elif why := await self._difference(_exchange(exchange, "direct")):
            found.append(Finding("impossible", what, why))
        for number in range(count):
            queue = self.names.queue(topic, group, number, count)
            if await self.there(_passive_queue(queue)) is None:
                found.append(Finding("missing", what, f"there is no queue {queue}"))
            elif why := await self._difference(self._queue(queue)):
                found.append(Finding("unsafe", what, why))
        if await self.there(_exchange(self.names.members, "direct", passive=True)) is None:
            found.append(Finding("missing", what, f"there is no exchange {self.names.members}"))
        return found

    async def _difference(self, declare: Frame) -> str:
        """How what is there is not as it is declared; empty if it is, or if one has no right to ask."""
        session = await self.connection.session()
        try:
            await session.call(declare)
        except Closed as error:
            if error.code not in (DIFFERENT, FORBIDDEN):
                raise
            return f"{error}: see what it is for, and delete it when it is empty" if error.code == DIFFERENT else ""
        finally:
            await session.close()
        return ""

    def _faults(self, route: Route) -> Iterator[str]:
        for name in (
            self.names.topic(route.topic),
            *(self.names.group(route.topic, group) for group in route.groups),
        ):
            if why := fault_of(name):
                yield why

    # --- making ---

    async def establish(self, routes: Sequence[Route]) -> list[str]:
        """Make what is missing for routes, one process at a time; the names of what was made."""
        for why in (why for route in routes for why in self._faults(route)):
            raise ConfigurationError(f"{why}: choose another name")
        made: list[str] = []
        async with self._alone():
            made += await self._exchange(self.names.members, "direct")
            for route in routes:
                made += await self._exchange(self.names.topic(route.topic), "fanout")
                for group in route.groups:
                    made += await self._group(route.topic, group)
        return made

    @asynccontextmanager
    async def _alone(self) -> AsyncIterator[None]:
        """Hold a lock that the server takes back when the connection ends."""
        loop = asyncio.get_running_loop()
        end = loop.time() + self.options.timeout
        lock = commands.Queue.Declare(queue=self.names.lock, exclusive=True, auto_delete=True)
        while await self._tried(lock, LOCKED) is None:
            if loop.time() > end:
                raise ChannelError(f"another process is making things on {self.connection.place.name}: try again")
            await asyncio.sleep(AGAIN)
        try:
            yield
        finally:
            await self._tried(commands.Queue.Delete(queue=self.names.lock), MISSING)

    async def _exchange(self, name: str, kind: str) -> list[str]:
        if await self.there(_exchange(name, kind, passive=True)) is not None:
            return []
        await self._tried(_exchange(name, kind))
        return [name]

    async def _group(self, topic: str, group: str) -> list[str]:
        """The first queue last, which tells that the others are there; the group hears of its topic when all of them are."""
        exchange = self.names.group(topic, group)
        made = await self._exchange(exchange, "direct")
        count = await self.count(topic, group) or self.options.partitions or PARTITIONS
        session = await self.connection.session()
        for number in reversed(range(count)):
            queue = self.names.queue(topic, group, number, count)
            if await self.there(_passive_queue(queue)) is None:
                await session.call(self._queue(queue))
                made.append(queue)
            keys = [str(slot) for slot in slots(number, count)] + ([""] if number == 0 else [])
            await session.call(*(commands.Queue.Bind(queue=queue, exchange=exchange, routing_key=key) for key in keys))
        await session.call(commands.Exchange.Bind(destination=exchange, source=self.names.topic(topic)))
        await session.close()
        return made

    def _queue(self, name: str) -> Frame:
        return commands.Queue.Declare(
            queue=name, durable=True, arguments=arguments(self.options.limit, self.connection.version)
        )


def _passive_queue(name: str) -> Frame:
    return commands.Queue.Declare(queue=name, passive=True)


def _exchange(name: str, kind: str, *, passive: bool = False) -> Frame:
    return commands.Exchange.Declare(exchange=name, exchange_type=kind, passive=passive, durable=True)
