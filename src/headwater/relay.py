"""The relay: log -> channel, in log order. Hand-off 1.

One a service, under a lease whose epoch the channel checks. Its place in the log is kept by the channel together with what
was published, or in the log's own database where the channel cannot. What the channel refuses for itself becomes a dead
letter on this side and holds its key; everything else flows on.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import msgspec

from headwater.channel import Channel, Publication
from headwater.checkpoint import Checkpoint
from headwater.clock import Clock
from headwater.database import Database, WriteSet
from headwater.inbox import Held, Reason, Release
from headwater.lease import Fence
from headwater.message import Recorded
from headwater.outbox import topic_of
from headwater.tail import Tail
from headwater.telemetry import signal
from headwater.wire import to_headers

BATCH = 1000
HELD_AT_ONCE = 100
LOCAL = 5000


class Relay:
    """Publishes what leaves the service. `step` does one batch, if there is one."""

    def __init__(  # noqa: PLR0913 - wired once, by the app
        self,
        service: str,
        database: Database,
        log: Tail,
        channel: Channel,
        clock: Clock,
        fence: Callable[[], Fence | None],
    ) -> None:
        self.name = f"{service}.relay"
        self.service = service
        self.database = database
        self.log = log
        self.channel = channel
        self.clock = clock
        self.fence = fence
        self._position: int | None = None
        self._stored = 0
        self._parked: set[str] = set()

    async def step(self) -> bool:
        """Publish the next messages of the log; whether there were any."""
        if self._position is None:
            await self._begin()
        worked = await self._redrive() if self._parked else False
        recorded = await self.log.read(self._position or 0, BATCH)
        if not recorded:
            return worked
        try:
            await self._relay(recorded)
        except BaseException:
            self._position = None
            raise
        return True

    async def wait(self, timeout: float) -> None:
        """Until the log grows."""
        await self.database.changed(self._position or 0, timeout)

    async def _begin(self) -> None:
        kept = await self.channel.producer_position(self.service)
        self._position = self._stored = await self.database.checkpoint(self.name) if kept is None else kept
        held = await self.database.held_list(self.name, list(Reason), HELD_AT_ONCE * 100)
        self._parked = {row.key for row in held}

    async def _relay(self, recorded: Sequence[Recorded]) -> None:
        leaving: list[Recorded] = []
        holds: list[Held] = []
        publications: list[Publication] = []
        for one in recorded:
            topic = topic_of(one, self.service)
            if topic is None:
                continue
            if one.key in self._parked:
                holds.append(self._held(one, Reason.BEHIND, ""))
            elif len(one.data) > self.channel.capabilities.max_bytes:
                holds.append(self._held(one, Reason.DEAD, f"{len(one.data):,} bytes is more than the channel takes"))
            else:
                leaving.append(one)
                publications.append(self.publication(one, topic))
        if holds:
            await self._hold(holds)
        position = recorded[-1].position
        if publications or position - self._stored >= LOCAL:
            await self._publish(leaving, publications, position)
        self._position = position

    def publication(self, recorded: Recorded, topic: str, group: str = "") -> Publication:
        """A logged message as it goes on the wire."""
        return Publication(topic, recorded.key, to_headers(recorded, self.service), recorded.data, group=group)

    async def _publish(self, leaving: Sequence[Recorded], publications: Sequence[Publication], position: int) -> None:
        fence = self.fence()
        refused = await self.channel.publish(
            publications, producer=self.service, position=position, epoch=fence.epoch if fence else 0
        )
        if refused:
            await self._hold([self._held(leaving[index], Reason.DEAD, why) for index, why in refused.items()])
        if not self.channel.capabilities.producer_position:
            await self.database.commit(
                [WriteSet(fence=fence, checkpoints=[Checkpoint(self.name, position, self._stored)])]
            )
        self._stored = position

    def _held(self, recorded: Recorded, reason: Reason, cause: str) -> Held:
        self._parked.add(recorded.key)
        now = self.clock.now()
        return Held(
            self.name, recorded.key, recorded, reason, due=now, cause=cause, since=now, attempts=1 if cause else 0
        )

    async def _hold(self, rows: Sequence[Held]) -> None:
        await self.database.commit([WriteSet(fence=self.fence(), holds=rows)])
        for row in rows:
            if row.reason is Reason.DEAD:
                signal("relay.refused", stream=row.key, version=row.message.version, cause=row.cause)

    async def _redrive(self) -> bool:
        """Publish held messages that an operator has set free, in order of their key."""
        heads = await self.database.held_due(self.name, self.clock.now(), HELD_AT_ONCE)
        for head in heads:
            rows = await self.database.held_of(self.name, head.key, HELD_AT_ONCE)
            for row in rows:
                topic = topic_of(row.message, self.service) or ""
                refused = await self.channel.publish([self.publication(row.message, topic)])
                if refused:
                    await self._hold(
                        [msgspec.structs.replace(row, reason=Reason.DEAD, cause=refused[0], attempts=row.attempts + 1)]
                    )
                    break
                await self.database.commit([WriteSet(releases=[Release(self.name, row.key, row.message.version)])])
        if heads:
            held = await self.database.held_list(self.name, list(Reason), HELD_AT_ONCE * 100)
            self._parked = {row.key for row in held}
        return bool(heads)
