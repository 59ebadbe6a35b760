"""The relay: log -> channel, in log order. Hand-off 1.

One a service, under a lease whose epoch the channel checks. Its place in the log is kept by the channel together with what
was published, or in the log's own database where the channel cannot. What the channel refuses for itself becomes a dead
letter on this side and holds its key; everything else flows on.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Sequence

import msgspec

from headwater import fault
from headwater.channel import Channel, Publication
from headwater.checkpoint import Checkpoint
from headwater.clock import Clock
from headwater.database import Database, WriteSet, stands
from headwater.inbox import Held, Reason, Release
from headwater.lease import Fence
from headwater.message import Recorded
from headwater.outbox import topic_of
from headwater.relay.leaving import Leaving
from headwater.relay.tallying import Tallying
from headwater.tail import Tail
from headwater.telemetry import signal

BATCH = 1000
HELD_AT_ONCE = 100
LOCAL = 5000


class Relay:
    """Publishes what leaves the service. `step` does one batch, if there is one; `topics` are those it may publish on."""

    def __init__(
        self,
        service: str,
        database: Database,
        log: Tail,
        channel: Channel,
        clock: Clock,
        fence: Callable[[], Fence | None],
        topics: Iterable[str] = (),
    ) -> None:
        self.leaving = Leaving(service, database, channel)
        self.tallying = Tallying(self.leaving, topics, log, clock)
        self.name = self.leaving.name
        self.service = service
        self.database = database
        self.log = log
        self.channel = channel
        self.clock = clock
        self.fence = fence
        self._position: int | None = None
        self._stored = 0
        self._holding = False

    async def begin(self) -> None:
        """Another member may have published since: look again at where it stands."""
        self._position = None
        self.tallying.forget()

    async def end(self) -> None:
        """Tell of what was published last."""
        if self._position is not None:
            await self._tell(all_news=True)

    async def step(self) -> int:
        """Publish what leaves of the next messages of the log, and a tally where one is due; how many were looked at."""
        if self._position is None:
            await self._find_place()
        worked = await self._redrive() if self._holding else False
        recorded = await self.log.read(self._position or 0, BATCH)
        try:
            if not recorded:
                return int(await self._tell() or worked)
            await self._relay(recorded)
        except BaseException:
            self._position = None
            raise
        return len(recorded)

    async def wait(self, timeout: float) -> None:
        """Until the log grows."""
        await self.database.changed(self._position or 0, timeout)

    async def _find_place(self) -> None:
        """Where the relay before this one stopped; from here on nothing of that one is taken."""
        fence = self.fence()
        if fence is not None and self.channel.capabilities.producer_position:
            await self.channel.publish([], producer=self.service, position=0, epoch=fence.epoch)
            fault.point("relay.placed")
        stored = await self.leaving.position()
        self._holding = await self._holds_any()
        await self.tallying.catch_up(stored)
        self._position = self._stored = stored

    async def _holds_any(self) -> bool:
        held, _ = await self.database.held_count(self.name)
        return held > 0

    async def _parked(self, recorded: Sequence[Recorded]) -> dict[str, int]:
        """The keys of these messages that are held, each with the last version that is."""
        if not self._holding:
            return {}
        held = await self.leaving.held(list({one.key for one in recorded}))
        return {key: rows[-1].message.version for key, rows in held.items()}

    async def _relay(self, recorded: Sequence[Recorded]) -> None:
        leaving: list[Recorded] = []
        holds: list[Held] = []
        publications: list[Publication] = []
        parked = await self._parked(recorded)
        most = max(self.channel.capabilities.room, self.channel.capabilities.max_bytes)
        for one in recorded:
            topic = topic_of(one, self.service)
            if topic is None or one.version <= parked.get(one.key, 0):
                continue
            if one.key in parked:
                holds.append(self._held(one, Reason.BEHIND, ""))
            elif len(one.data) > most:
                holds.append(self._held(one, Reason.DEAD, f"{len(one.data):,} bytes is more than the channel takes"))
                parked[one.key] = one.version
            else:
                leaving.append(one)
                publications.append(self.leaving.publication(one, topic))
        if holds:
            await self._hold(holds)
        position = recorded[-1].position
        if publications or position - self._stored >= LOCAL:
            await self._publish(leaving, publications, position)
        self.tallying.moved(position)
        self._position = position

    async def _publish(self, leaving: Sequence[Recorded], publications: Sequence[Publication], position: int) -> None:
        fence = self.fence()
        tallies = self.tallying.due()
        fault.point("relay.publishing")
        refused = await self.channel.publish(
            [*publications, *tallies], producer=self.service, position=position, epoch=fence.epoch if fence else 0
        )
        fault.point("relay.published")
        causes = {index: why for index, why in refused.items() if index < len(leaving)}
        if causes:
            await self._hold([self._held(leaving[index], Reason.DEAD, why) for index, why in causes.items()])
        for index, why in refused.items():
            if index >= len(leaving):
                signal("relay.refused", logging.WARNING, stream=tallies[index - len(leaving)].key, cause=why)
        if position != self._stored and not self.channel.capabilities.producer_position:
            await self._commit(WriteSet(fence=fence, checkpoints=[Checkpoint(self.name, position, self._stored)]))
        self._stored = position
        if tallies:
            await self.tallying.told(fence)
        gone = zip((one.topic for one in publications), leaving, strict=True)
        self.tallying.add(gone if not causes else (one for index, one in enumerate(gone) if index not in causes))

    async def _tell(self, *, all_news: bool = False) -> bool:
        """Publish the tallies that are due, by themselves; whether there were any."""
        if not self.tallying.due(all_news=all_news):
            return False
        await self._publish([], [], self._position or 0)
        return True

    def _held(self, recorded: Recorded, reason: Reason, cause: str) -> Held:
        now = self.clock.now()
        return Held(
            self.name, recorded.key, recorded, reason, due=now, cause=cause, since=now, attempts=1 if cause else 0
        )

    async def _hold(self, rows: Sequence[Held]) -> None:
        self._holding = True
        fault.point("relay.holding")
        await self._commit(WriteSet(fence=self.fence(), holds=rows))
        fault.point("relay.held")
        for row in rows:
            if row.reason is Reason.DEAD:
                version, cause = row.message.version, row.cause
                signal("relay.refused", logging.ERROR, stream=row.key, version=version, cause=cause)

    async def _commit(self, write: WriteSet) -> None:
        [answer] = await self.database.commit([write])
        stands(answer)

    async def _redrive(self) -> bool:
        """Publish held messages that an operator has set free, in order of their key."""
        heads = await self.database.held_due(self.name, self.clock.now(), HELD_AT_ONCE)
        for head in heads:
            for row in await self.database.held_of(self.name, head.key, HELD_AT_ONCE):
                if row.reason is Reason.DEAD or not await self._publish_held(row):
                    break
        if heads:
            self._holding = await self._holds_any()
        return bool(heads)

    async def _publish_held(self, row: Held) -> bool:
        topic = topic_of(row.message, self.service) or ""
        refused = await self.channel.publish([self.leaving.publication(row.message, topic)])
        if refused:
            await self._hold(
                [msgspec.structs.replace(row, reason=Reason.DEAD, cause=refused[0], attempts=row.attempts + 1)]
            )
            return False
        release = Release(self.name, row.message.stream, row.message.version)
        self.tallying.add([(topic, row.message)])
        fault.point("relay.republished")
        await self._commit(WriteSet(fence=self.fence(), releases=[release]))
        fault.point("relay.released")
        return True
