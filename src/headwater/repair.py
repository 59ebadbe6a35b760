"""Repair: a consumer with a gap asks the producing service over its control topic; the service publishes again from its log.

The channel is disposable, so requests are not logged: they are sent again for as long as the gap is there.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import msgspec

from headwater import fault
from headwater.channel import Channel, Publication, Subscription
from headwater.clock import Clock, iso
from headwater.database import Database
from headwater.errors import SchemaError
from headwater.inbox import Held, Reason
from headwater.message import Event
from headwater.outbox import service_of, topic_of
from headwater.relay import Relay
from headwater.schema import check_strict
from headwater.wire import CONTENT_TYPE

GRACE = 5.0
WAIT = int(GRACE * 1_000_000)
PAUSE = 1.0
ASK_AT_ONCE = 1000
AGAIN_AT_ONCE = 1000
LAST = 2**63 - 1


class Republish(Event, service="headwater", category="control", stored="headwater.Republish"):
    """Asks a service to publish a stream again, above a version, for one group."""

    stream: str
    after: int
    group: str


class Asking:
    """Asks for what is missing before held messages, after a grace time. `step` asks for what has waited long enough."""

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
        """Ask for each gap that is older than the grace time and was not asked for within it; whether any was.

        It looks once a second.
        """
        if self.clock.monotonic() - self._looked < PAUSE:
            return False
        self._looked = self.clock.monotonic()
        return await self._ask()

    async def _ask(self) -> bool:
        now = self.clock.now()
        since: dict[str, int] = {}
        requests: dict[str, int] = {}
        for consumer in self.consumers:
            for row in await self.database.held_list(consumer, [Reason.GAP], ASK_AT_ONCE):
                since[row.key] = min(row.since, self._since.get(row.key, row.since))
                if now - max(since[row.key], self._asked.get(row.key, 0)) >= WAIT:
                    after = await self._after(consumer, row)
                    if after is not None:
                        requests[row.key] = min(after, requests.get(row.key, after))
        self._since = since
        if requests:
            fault.point("repair.asking")
            await self.channel.publish([self._request(stream, after) for stream, after in requests.items()])
            fault.point("repair.asked")
            self._asked = dict.fromkeys(requests, now) | {k: v for k, v in self._asked.items() if now - v < WAIT}
        return bool(requests)

    async def _after(self, consumer: str, row: Held) -> int | None:
        mark = (await self.database.marks(consumer, [row.message.stream])).get(row.message.stream, 0)
        return mark if row.message.previous > mark else None

    def _request(self, stream: str, after: int) -> Publication:
        body = msgspec.json.encode(Republish(stream, after, self.service))
        producer = service_of(stream)
        message_id = self.clock.new_id()
        headers = {
            "specversion": "1.0",
            "id": message_id,
            "source": self.service,
            "type": "headwater.Republish",
            "subject": f"{self.service}.control>{producer}/{message_id}",
            "time": iso(self.clock.now()),
            "datacontenttype": CONTENT_TYPE,
            "kind": "control",
            "typeversion": "1",
            "streamversion": "1",
            "previous": "0",
        }
        return Publication(f"{producer}.control", stream, headers, body)


class Answering:
    """Publishes again what other services ask for. `step` answers what is there."""

    def __init__(
        self, service: str, database: Database, channel: Channel, relay: Relay, subscription: Subscription
    ) -> None:
        self.service = service
        self.database = database
        self.channel = channel
        self.relay = relay
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
        except BaseException:
            await self.subscription.release()
            raise
        fault.point("repair.answered")
        await self.subscription.acknowledge(deliveries)
        fault.point("repair.acknowledged")
        return True

    async def end(self) -> None:
        """Nothing is left behind."""

    async def wait(self, timeout: float) -> None:
        """Until there may be a request."""
        await self.subscription.wait(timeout)

    async def _answer(self, request: Republish) -> None:
        after = request.after
        if service_of(request.stream) != self.service:
            return
        while page := await self.database.read_stream(request.stream, after, AGAIN_AT_ONCE):
            topics = [(one, topic_of(one, self.service)) for one in page]
            again = [self.relay.publication(one, topic, request.group) for one, topic in topics if topic]
            await self.channel.publish(again)
            after = page[-1].version


def read_request(body: bytes) -> Republish | None:
    """A request from the wire; None if it is not one: whoever asked asks again."""
    try:
        fields: Any = check_strict(body)
        request = msgspec.convert(fields, Republish)
    except (SchemaError, msgspec.ValidationError):
        return None
    return request if 0 <= request.after <= LAST else None
