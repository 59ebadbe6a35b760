"""Answers requests for repair: publishes again from the log, for the group that asked."""

from __future__ import annotations

from headwater import fault
from headwater.channel import Channel, Route, Subscription
from headwater.clock import Clock
from headwater.database import Database
from headwater.outbox import service_of, topic_of
from headwater.relay import Leaving
from headwater.repair.request import Republish, read_request
from headwater.tally import BYTES, Count, topic_of_tallies

AGAIN_AT_ONCE = 1000
SPAN = 50_000
"""Positions of the log that are told again on one request; for more it is asked again."""


class Answering:
    """Publishes again what other services ask for. `step` answers what is there."""

    def __init__(
        self, service: str, database: Database, channel: Channel, clock: Clock, subscription: Subscription
    ) -> None:
        self.service = service
        self.database = database
        self.channel = channel
        self.clock = clock
        self.leaving = Leaving(service, database, channel)
        self.subscription = subscription

    async def begin(self) -> None:
        """Nothing is assumed."""

    async def step(self) -> bool:
        """Answer the next requests; whether there were any."""
        deliveries = await self.subscription.fetch(100)
        if not deliveries:
            return False
        fault.point("repair.answering")
        try:
            for delivery in deliveries:
                request = read_request(delivery.body)
                if request is not None:
                    await self._answer(request)
            fault.point("repair.answered")
            await self.subscription.acknowledge(deliveries)
        except BaseException:
            await self.subscription.release()
            raise
        fault.point("repair.acknowledged")
        return True

    async def end(self) -> None:
        """Nothing is left behind."""

    async def wait(self, timeout: float) -> None:
        """Until there may be a request."""
        await self.subscription.wait(timeout)

    async def _answer(self, request: Republish) -> None:
        if service_of(request.stream) != self.service:
            return
        topic = topic_of_tallies(request.stream)
        if not topic:
            await self._publish_again(request)
        elif not any(one.state != "unsafe" for one in await self.channel.examine([Route(topic)])):
            await self._tell_again(topic, request)

    async def _publish_again(self, request: Republish) -> None:
        after = request.after
        while page := await self.database.read_stream(request.stream, after, AGAIN_AT_ONCE):
            topics = [(one, topic_of(one, self.service)) for one in page]
            again = [self.leaving.publication(one, topic, request.group) for one, topic in topics if topic]
            await self.channel.publish(again)
            after = page[-1].version

    async def _tell_again(self, topic: str, request: Republish) -> None:
        """Count again what the log has above a position, as far as it is published, and publish the tallies of it."""
        at = request.after
        end = min(await self.leaving.position(), at + SPAN)
        count = Count(at, min(BYTES, self.channel.capabilities.max_bytes // 2))
        while at < end and (page := await self.database.read(at, AGAIN_AT_ONCE)):
            page = [one for one in page if one.position <= end]
            for on, one in await self.leaving.published(page):
                if on == topic and count.full and count.prior < one.position - 1:
                    await self._tell(count, topic, one.position - 1, request.group)
                if on == topic:
                    count.add(one)
            at = page[-1].position if page else end
        if count.prior < end:
            await self._tell(count, topic, end, request.group)

    async def _tell(self, count: Count, topic: str, position: int, group: str) -> None:
        tally = count.close(self.service, topic, position, self.clock)
        await self.channel.publish([self.leaving.publication(tally, topic, group)])
