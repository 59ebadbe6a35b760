"""Asks for what is missing: before messages that are held after a gap, and of what tallies tell."""

from __future__ import annotations

import logging
from collections.abc import Sequence

from msgspec.structs import replace

from headwater import fault
from headwater.channel import Channel, GroupLag
from headwater.clock import Clock
from headwater.consumer.tallying import missing_of
from headwater.database import Collision, Database, WriteSet, stands
from headwater.inbox import Held, Reason, Release
from headwater.repair.request import request_of
from headwater.tally import read_streams, topic_of_tallies
from headwater.telemetry import signal

GRACE = 5.0
WAIT = int(GRACE * 1_000_000)
LONGEST = 60 * WAIT
PATIENCE = 12 * WAIT
"""How long a tally is held before its streams are asked for where a channel does not tell how old what it still has is."""
PAUSE = 1.0
ASK_AT_ONCE = 1000


class Asking:
    """Asks for what is missing, after a grace time. `step` asks for what has waited long enough."""

    def __init__(
        self, service: str, consumers: Sequence[str], database: Database, channel: Channel, clock: Clock
    ) -> None:
        self.service = service
        self.consumers = consumers
        self.database = database
        self.channel = channel
        self.clock = clock
        self._asked: dict[str, int] = {}
        self._since: dict[str, int] = {}
        self._looked = -PAUSE

    async def begin(self) -> None:
        """What another member has asked for may be asked for again."""
        self._asked = {}

    async def end(self) -> None:
        """Nothing is left behind."""

    async def wait(self, timeout: float) -> None:
        """Until it is worth to look again."""
        await self.clock.sleep(timeout)

    async def step(self) -> bool:
        """Ask for what is missing for longer than the grace time and was not asked for within it; whether anything was.

        It looks once a second.
        """
        if self.clock.monotonic() - self._looked < PAUSE:
            return False
        self._looked = self.clock.monotonic()
        now = self.clock.now()
        requests = await self._gaps(now)
        writes = await self._tallies(now, requests)
        asked = {stream: after for stream, after in requests.items() if now - self._asked.get(stream, 0) >= WAIT}
        if asked:
            fault.point("repair.asking")
            await self.channel.publish(
                [request_of(stream, after, self.service, self.clock) for stream, after in asked.items()]
            )
            fault.point("repair.asked")
        self._asked = dict.fromkeys(asked, now) | {k: v for k, v in self._asked.items() if now - v < WAIT}
        if writes:
            for answer in await self.database.commit(writes):
                if not isinstance(answer, Collision):  # another member was here first
                    stands(answer)
        return bool(asked or writes)

    async def _gaps(self, now: int) -> dict[str, int]:
        """The streams that have a gap before a held message for long enough, with their marks."""
        since: dict[str, int] = {}
        requests: dict[str, int] = {}
        for consumer in self.consumers:
            for row in await self.database.held_list(consumer, [Reason.GAP], ASK_AT_ONCE):
                since[row.key] = min(row.since, self._since.get(row.key, row.since))
                if now - max(since[row.key], self._asked.get(row.key, 0)) >= WAIT:
                    mark = (await self.database.marks(consumer, [row.key])).get(row.key, 0)
                    if row.message.previous > mark:
                        requests[row.key] = min(mark, requests.get(row.key, mark))
        self._since = since
        return requests

    async def _tallies(self, now: int, requests: dict[str, int]) -> list[WriteSet]:
        """Let go of held tallies of which all has come, and add to the requests what of others has not."""
        writes: list[WriteSet] = []
        lags: list[GroupLag] | None = None
        for row in await self.database.held_list(None, [Reason.TALLY], ASK_AT_ONCE):
            if row.consumer not in self.consumers or now < row.due:
                continue
            release = Release(row.consumer, row.key, row.message.version)
            missing = await self._missing(row)
            if not missing:
                writes.append(WriteSet(releases=[release]))
            if not missing or now - row.since < WAIT:
                continue
            lags = await self.channel.lag(self.service) if lags is None else lags
            again = replace(row, due=now + WAIT)
            if self._has_come(row, lags, now) and len(requests) < ASK_AT_ONCE:
                signal("consumer.missing", logging.WARNING, consumer=row.consumer, tally=row.key, streams=len(missing))
                for stream, after in missing.items():
                    requests[stream] = min(after, requests.get(stream, after))
                again = replace(again, due=now + min(WAIT << row.attempts, LONGEST), attempts=min(row.attempts + 1, 10))
            writes.append(WriteSet(releases=[release], holds=[again]))
        return writes

    async def _missing(self, row: Held) -> dict[str, int]:
        """What a held tally tells of and has not come, from where on: streams, and its own chain where that has a gap."""
        streams = read_streams(row.message.data)
        marks = await self.database.marks(row.consumer, [row.key, *streams])
        missing = {stream: mark for stream, (mark, _) in missing_of(streams, marks, from_now=True).items()}
        mark = marks.get(row.key, 0)
        return missing | {row.key: mark} if row.message.version > mark else missing

    def _has_come(self, row: Held, lags: Sequence[GroupLag], now: int) -> bool:
        """Whether the group has settled all that was published before a tally, so that what has not come is lost."""
        topic = topic_of_tallies(row.key)
        behind = [lag for lag in lags if lag.topic == topic and lag.messages]
        return all(
            now - row.since >= PATIENCE if lag.oldest is None else lag.oldest > row.message.time for lag in behind
        )
