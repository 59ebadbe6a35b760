"""A SQLite file as a broker for the processes of one machine: ordered partitions, groups, delay, one fsync for many messages."""

from __future__ import annotations

import asyncio
import zlib
from collections import Counter
from collections.abc import Sequence
from contextlib import AsyncExitStack, suppress
from pathlib import Path
from typing import Any, Final

import msgspec

from headwater.adapters.sqlite.channel_file import ChannelFile
from headwater.adapters.sqlite.channel_options import PARTITIONS, ChannelOptions, parse_url
from headwater.adapters.sqlite.channel_schema import LAG, PRODUCER
from headwater.adapters.sqlite.channel_subscription import SqliteSubscription
from headwater.adapters.sqlite.channel_writes import Join, Prepare, Publish, Trim
from headwater.channel import ChannelCapabilities, Finding, GroupLag, Publication, Route, Start
from headwater.clock import Clock
from headwater.errors import ChannelError, ChannelFull, ConfigurationError

TRIM: Final = 60.0
"""Seconds between two looks at what may be deleted; less where little is retained."""
IDLE_CHUNKS: Final = 20
"""After so many chunks in which nothing could be deleted, a look is interrupted until the next one."""

_json = msgspec.json.Encoder().encode


class SqliteChannel:
    """A channel in one file; open one a process. Injected: the clock, for delays and retention."""

    capabilities = ChannelCapabilities(
        delay=True, producer_position=True, durable=True, max_bytes=16 << 20, one_writer=True
    )

    def __init__(self, path: str | Path, clock: Clock, options: ChannelOptions | None = None) -> None:
        self.path = Path(path)
        self.clock = clock
        self.options = options or ChannelOptions()
        self._file: ChannelFile | None = None
        self._partitions = 0
        self._members: list[SqliteSubscription] = []
        self._room_until = 0
        self._trim_at = 0.0
        self._trim_from = 0
        self._trimming: asyncio.Task[None] | None = None

    @classmethod
    def from_url(cls, url: str, clock: Clock) -> SqliteChannel:
        """The channel of `sqlite:///relative.db` or `sqlite:////absolute.db`; options: `retention`, `limit`, `partitions`."""
        path, options = parse_url(url)
        return cls(path, clock, options)

    async def open(self) -> None:
        if self._file is not None:
            return
        file = ChannelFile(self.path, self.clock)
        try:
            self._partitions = await self._prepare(file)
        except BaseException:
            await file.close()
            raise
        self._file = file
        self._trim_at = self.clock.monotonic() + self._trim_pause

    async def close(self) -> None:
        file, self._file = self._file, None
        if file is None:
            return
        if self._trimming is not None:
            self._trimming.cancel()
        async with AsyncExitStack() as closing:  # all of them, whatever one may raise
            closing.push_async_callback(file.close)
            for member in self._members:
                closing.push_async_callback(member.close)

    async def examine(self, routes: Sequence[Route]) -> list[Finding]:
        return []

    async def establish(self, routes: Sequence[Route]) -> list[str]:
        return []

    async def publish(
        self, publications: Sequence[Publication], *, producer: str = "", position: int = 0, epoch: int = 0
    ) -> dict[int, str]:
        file = self._opened()
        if self.options.limit and publications:
            await self._check_room(file)
        messages: list[Any] = []
        delayed: list[Any] = []
        answer = self._rows(publications, messages, delayed)
        if messages or delayed or producer:
            await file.write(Publish(messages, delayed, producer, position, epoch))
        self._trim_sometimes(file)
        return answer

    async def producer_position(self, producer: str) -> int | None:
        position: int | None = self._opened().value(PRODUCER, (producer,))
        return position

    async def subscribe(
        self, group: str, topics: Sequence[str], member: str, start: Start = "beginning"
    ) -> SqliteSubscription:
        file = self._opened()
        await file.ready()
        await file.write(Join(group, topics, self._partitions, start == "now"))
        subscription = SqliteSubscription(file, group, topics, member, self._partitions)
        self._members = [one for one in self._members if not one.closed]
        self._members.append(subscription)
        await subscription.join()
        return subscription

    async def lag(self, group: str | None = None) -> list[GroupLag]:
        file = self._opened()
        await file.ready()
        await file.flush()
        return [GroupLag(*row) for row in await file.count(LAG, (group,))]

    async def _prepare(self, file: ChannelFile) -> int:
        wanted = self.options.partitions
        found = await file.write(Prepare(wanted or PARTITIONS))
        if wanted and wanted != found:
            raise ConfigurationError(f"{file.path} has {found} partitions, for good: leave out partitions={wanted}")
        return found

    # --- publishing ---

    def _rows(self, publications: Sequence[Publication], messages: list[Any], delayed: list[Any]) -> dict[int, str]:
        """Make rows of what can go; the answer says why the others cannot."""
        answer: dict[int, str] = {}
        now, partitions, most = self.clock.now(), self._partitions, self.capabilities.max_bytes
        for index, one in enumerate(publications):
            try:
                key, headers, size = one.key.encode(), _json(one.headers), len(one.topic.encode())
            except UnicodeEncodeError as error:
                answer[index] = f"its topic, key or a header is no text: {error}"
                continue
            size += len(key) + len(headers) + len(one.body)
            if size > most:
                answer[index] = f"it has {size} bytes, and {most} is the most"
                continue
            rows, time = (delayed, now + round(one.delay * 1_000_000)) if one.delay > 0 else (messages, now)
            rows += (
                one.topic,
                zlib.crc32(key) % partitions,
                time,
                one.group or None,
                one.key,
                headers.decode(),
                one.body,
            )
        return answer

    async def _check_room(self, file: ChannelFile) -> None:
        """Refuse while the slowest group is too far behind; it is counted anew when so many have been published since."""
        limit, (head, _) = self.options.limit, file.look()
        if head < self._room_until:
            return
        behind: Counter[str] = Counter()
        for group, _, messages, _ in await file.count(LAG, (None,)):
            behind[group] += messages
        slowest, most = behind.most_common(1)[0] if behind else ("", 0)
        if most >= limit:
            raise ChannelFull(
                f"{slowest} has {most} messages not acknowledged ({limit=}): let it catch up, or raise the limit"
            )
        self._room_until = head + max(limit - most, limit // 20)

    # --- retention ---

    @property
    def _trim_pause(self) -> float:
        return min(TRIM, max(self.options.retention / 10, 0.1))

    def _trim_sometimes(self, file: ChannelFile) -> None:
        now = self.clock.monotonic()
        if now >= self._trim_at and (self._trimming is None or self._trimming.done()):
            self._trim_at = now + self._trim_pause
            self._trimming = asyncio.get_running_loop().create_task(self._trim(file))

    async def _trim(self, file: ChannelFile) -> None:
        before = self.clock.now() - round(self.options.retention * 1_000_000)
        idle = 0
        with suppress(ChannelError):  # it is tried again later
            while idle < IDLE_CHUNKS:
                self._trim_from, deleted = await file.write(Trim(self._trim_from, before))
                if not self._trim_from:
                    return
                idle = 0 if deleted else idle + 1
                await self.clock.sleep(0.005)

    def _opened(self) -> ChannelFile:
        if self._file is None:
            raise ChannelError(f"the channel {self.path} is not open")
        return self._file
