"""A PostgreSQL database as a broker for the processes of many machines: ordered partitions, groups, delay, epochs."""

from __future__ import annotations

import asyncio
import zlib
from collections import Counter
from collections.abc import Sequence
from contextlib import AsyncExitStack, suppress
from typing import Final

import msgspec
import psycopg

from headwater.adapters.postgres.bell import Bell
from headwater.adapters.postgres.channel_desk import ChannelDesk, channel_error, publishing_locks
from headwater.adapters.postgres.channel_options import PARTITIONS, ChannelOptions, parse_url
from headwater.adapters.postgres.channel_schema import (
    COMPONENT,
    DELAYED,
    HEAD,
    JOIN,
    LAG,
    MESSAGES,
    MIGRATIONS,
    PARTITIONED,
    PRESENCE,
    PRODUCER,
    PUBLISHED,
    TRIM,
)
from headwater.adapters.postgres.channel_schema import PARTITIONS as SET_PARTITIONS
from headwater.adapters.postgres.channel_seat import Seat
from headwater.adapters.postgres.channel_subscription import PostgresSubscription
from headwater.adapters.postgres.facts import columns
from headwater.adapters.postgres.faults import STALE, translate
from headwater.adapters.postgres.migrations import migrating
from headwater.adapters.postgres.server import BEGIN, COMMIT, Pool, Server, undo
from headwater.adapters.postgres.statement import Plan, Row, Statement
from headwater.adapters.postgres.url import Place
from headwater.channel import ChannelCapabilities, Finding, GroupLag, Publication, Route, Start
from headwater.clock import Clock
from headwater.errors import ChannelError, ChannelFull, ConfigurationError, HeadwaterError

TRIM_PAUSE: Final = 60.0
"""Seconds between two looks at what may be deleted; less where little is retained."""
PROCESSES: Final = 2**31 - 1

_json = msgspec.json.Encoder().encode


class PostgresChannel:
    """A channel in the database that `url` names; open one a process. Injected: the clock, for delays and retention."""

    capabilities = ChannelCapabilities(delay=True, producer_position=True, durable=True, max_bytes=16 << 20)

    def __init__(self, url: str, clock: Clock, options: ChannelOptions | None = None) -> None:
        self.url = url
        self.clock = clock
        self.options = options or ChannelOptions()
        self.server = Server(Place(url))
        if self.server.place.pooled:
            raise ConfigurationError("a channel needs sessions of its own: name the server in its URL, not the pooler")
        self._process = int(clock.random() * PROCESSES)
        self._pool: Pool | None = None
        self._desk: ChannelDesk | None = None
        self._partitions = 0
        self._members: list[PostgresSubscription] = []
        self._room_until = 0
        self._trim_at = 0.0
        self._trimming: asyncio.Task[None] | None = None

    @classmethod
    def from_url(cls, url: str, clock: Clock) -> PostgresChannel:
        """The channel of `postgresql://user@host:port/database`; options: `retention`, `limit`, `partitions`."""
        return cls(*parse_url(url, clock))

    async def open(self) -> None:
        if self._desk is not None:
            return
        pool = Pool(self.server, lambda: None)
        try:
            self._partitions = await pool.settle(self._preparing)
        except HeadwaterError as error:
            await pool.close()
            raise channel_error(error) from None
        presence = Statement("SELECT pg_advisory_lock_shared(%s, %s)", (PRESENCE, self._process))
        bell = Bell(pool, "headwater_channel", [presence])
        await bell.listening.wait()
        self._pool, self._desk = pool, ChannelDesk(pool, bell, self.clock)
        self._trim_at = self.clock.monotonic() + self._trim_pause

    async def close(self) -> None:
        desk, self._desk = self._desk, None
        if desk is None or self._pool is None:
            return
        if self._trimming is not None:
            self._trimming.cancel()
        async with AsyncExitStack() as closing:  # all of them, whatever one may raise
            closing.push_async_callback(self._pool.close)
            closing.push_async_callback(desk.bell.close)
            closing.push_async_callback(desk.close)
            for member in self._members:
                closing.push_async_callback(member.close)

    async def examine(self, routes: Sequence[Route]) -> list[Finding]:
        return []

    async def establish(self, routes: Sequence[Route]) -> list[str]:
        return []

    async def publish(
        self, publications: Sequence[Publication], *, producer: str = "", position: int = 0, epoch: int = 0
    ) -> dict[int, str]:
        desk = self._opened()
        if self.options.limit and publications:
            await self._check_room(desk)
        messages: list[Row] = []
        delayed: list[Row] = []
        answer = self._rows(publications, messages, delayed)
        if messages or delayed or producer:
            told = [Statement(PUBLISHED, (producer, position, epoch))] if producer else []
            await self._write([*told, *_inserting(messages, delayed)], producer)
            desk.bell.ring()
        self._trim_sometimes(desk)
        return answer

    async def producer_position(self, producer: str) -> int | None:
        found = await self._opened().rows(Statement(PRODUCER, (producer,)))
        return found[0][0] if found else None

    async def subscribe(
        self, group: str, topics: Sequence[str], member: str, start: Start = "beginning"
    ) -> PostgresSubscription:
        desk = self._opened()
        await desk.ready()
        named = list(dict.fromkeys(topics))
        await desk.rows(Statement(JOIN, (group, start == "now", named, self._partitions)))
        seat = Seat(group, named, self._partitions, member, self._process)
        subscription = PostgresSubscription(desk, group, named, seat, member)
        self._members = [one for one in self._members if not one.closed]
        self._members.append(subscription)
        await subscription.join()
        return subscription

    async def lag(self, group: str | None = None) -> list[GroupLag]:
        desk = self._opened()
        await desk.ready()
        await desk.flush()
        return [GroupLag(*row) for row in await desk.rows(Statement(LAG, {"group": group}))]

    def _preparing(self) -> Plan[int]:
        name, wanted = self.server.place.name, self.options.partitions
        yield from migrating(name, COMPONENT, MIGRATIONS, self.clock.now())
        _, ((found,),) = yield [Statement(SET_PARTITIONS, (wanted or PARTITIONS,)), Statement(PARTITIONED)]
        if wanted and wanted != found:
            raise ConfigurationError(f"{name} has {found} partitions, for good: leave out partitions={wanted}")
        return int(found)

    # --- publishing ---

    def _rows(self, publications: Sequence[Publication], messages: list[Row], delayed: list[Row]) -> dict[int, str]:
        """Make rows of what can go; the answer says why the others cannot."""
        answer: dict[int, str] = {}
        now, most = self.clock.now(), self.capabilities.max_bytes
        for index, one in enumerate(publications):
            try:
                key, headers, topic = one.key.encode(), _json(one.headers), one.topic.encode()
            except UnicodeEncodeError as error:
                answer[index] = f"its topic, key or a header is no text: {error}"
                continue
            size = len(topic) + len(key) + len(headers) + len(one.body)
            if size > most:
                answer[index] = f"it has {size} bytes, and {most} is the most"
                continue
            rows, time = (delayed, now + round(one.delay * 1_000_000)) if one.delay > 0 else (messages, now)
            partition = zlib.crc32(key) % self._partitions
            rows.append((time, partition, one.topic, one.group or None, key, headers, one.body))
        return answer

    async def _write(self, statements: list[Statement], producer: str) -> None:
        """Write in a transaction: one round trip."""
        assert self._pool is not None
        async with self._pool.take() as connection:
            try:
                await connection.exchange([BEGIN, *statements, COMMIT])
            except psycopg.Error as error:
                await undo(connection, error)
                if error.sqlstate == STALE:
                    raise ChannelError(f"another relay of {producer} has taken over: this one stops") from None
                raise channel_error(translate(error, self.server.place)) from None

    async def _check_room(self, desk: ChannelDesk) -> None:
        """Refuse while the slowest group is too far behind; it is counted anew when so many have been published since."""
        limit = self.options.limit
        ((head,),) = await desk.rows(Statement(HEAD))
        if head < self._room_until:
            return
        behind: Counter[str] = Counter()
        for one in await self.lag():
            behind[one.group] += one.messages
        slowest, most = behind.most_common(1)[0] if behind else ("", 0)
        if most >= limit:
            raise ChannelFull(
                f"{slowest} has {most} messages not acknowledged ({limit=}): let it catch up, or raise the limit"
            )
        self._room_until = head + max(limit - most, limit // 20)

    # --- retention ---

    @property
    def _trim_pause(self) -> float:
        return min(TRIM_PAUSE, max(self.options.retention / 10, 0.1))

    def _trim_sometimes(self, desk: ChannelDesk) -> None:
        now = self.clock.monotonic()
        if now >= self._trim_at and (self._trimming is None or self._trimming.done()):
            self._trim_at = now + self._trim_pause
            self._trimming = asyncio.get_running_loop().create_task(self._trim(desk))

    async def _trim(self, desk: ChannelDesk) -> None:
        before = self.clock.now() - round(self.options.retention * 1_000_000)
        with suppress(ChannelError):  # it is tried again later
            while (await desk.rows(Statement(TRIM, (before,))))[0][0]:
                await self.clock.sleep(0.005)

    def _opened(self) -> ChannelDesk:
        if self._desk is None:
            raise ChannelError(f"the channel {self.server.place.name} is not open")
        return self._desk


def _inserting(messages: list[Row], delayed: list[Row]) -> list[Statement]:
    found = publishing_locks(row[1] for row in messages)
    if messages:
        found.append(Statement(MESSAGES, columns(messages)))
    if delayed:
        found.append(Statement(DELAYED, columns(delayed)))
    return found
