"""The two kinds of source: our own log and a channel."""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence

from headwater.channel import Delivery, Subscription
from headwater.checkpoint import Checkpoint
from headwater.database import Database
from headwater.errors import SchemaError
from headwater.message import Recorded
from headwater.outbox import destination, sender, topic_of
from headwater.source import Batch, Malformed
from headwater.tail import Tail
from headwater.wire import from_headers


class LogSource:
    """The service's own log after the checkpoint of one consumer; what is addressed to another is left out."""

    ours = True

    def __init__(self, database: Database, log: Tail, service: str, name: str) -> None:
        self.database = database
        self.log = log
        self.service = service
        self.name = name
        self._settled: int | None = None
        self._fetched = 0

    async def fetch(self, limit: int) -> Batch | None:
        """The next messages of the log."""
        if self._settled is None:
            self._settled = self._fetched = await self.database.checkpoint(self.name)
        before = self._fetched
        recorded = await self.log.read(before, limit)
        if not recorded:
            return None
        self._fetched = recorded[-1].position
        return Batch(
            [one for one in recorded if self._ours(one)], checkpoint=Checkpoint(self.name, self._fetched, before)
        )

    def _ours(self, recorded: Recorded) -> bool:
        if recorded.kind == "event":
            return True
        if recorded.kind == "timer":
            return sender(recorded.stream) == self.name
        return destination(recorded.stream) == self.service

    async def acknowledge(self, batch: Batch) -> None:
        """The checkpoint was committed with the effects."""
        if batch.checkpoint is not None:
            self._settled = batch.checkpoint.position

    async def release(self) -> None:
        """Start again from the stored checkpoint."""
        self._settled = None

    async def wait(self, timeout: float) -> None:
        """Until the log grows."""
        await self.database.changed(self._fetched, timeout)


class ChannelSource:
    """The messages of a subscription."""

    ours = False

    def __init__(self, subscription: Subscription, name: str) -> None:
        self.subscription = subscription
        self.name = name
        self._open: deque[tuple[Batch, Sequence[Delivery]]] = deque()

    async def fetch(self, limit: int) -> Batch | None:
        """The next deliveries, decoded as far as their attributes go."""
        deliveries = await self.subscription.fetch(limit)
        if not deliveries:
            return None
        messages: list[Recorded] = []
        malformed: list[Malformed] = []
        for one in deliveries:
            try:
                messages.append(read(one))
            except SchemaError as error:
                malformed.append(Malformed(one.topic, one.position, one.partition, one.headers, one.body, str(error)))
        batch = Batch(messages, malformed)
        self._open.append((batch, deliveries))
        return batch

    async def acknowledge(self, batch: Batch) -> None:
        """Settle the oldest open batch on the channel."""
        oldest, deliveries = self._open.popleft()
        if oldest is not batch:
            raise RuntimeError("batches are acknowledged in the order they were fetched")
        await self.subscription.acknowledge(deliveries)

    async def release(self) -> None:
        """Give back what is open."""
        self._open.clear()
        await self.subscription.release()

    async def wait(self, timeout: float) -> None:
        """Until there may be something to fetch."""
        await self.subscription.wait(timeout)


def read(delivery: Delivery) -> Recorded:
    """The message of a delivery. Raises SchemaError, also where its stream belongs to another topic."""
    message = from_headers(delivery.headers, delivery.body, delivery.position)
    if message.kind == "control" or topic_of(message, "") != delivery.topic:
        raise SchemaError(
            f"the subject {message.stream!r} of a {message.kind} does not belong to topic {delivery.topic!r}"
        )
    return message
