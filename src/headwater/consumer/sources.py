"""The two kinds of source: our own log and a channel."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Mapping, Sequence

from headwater.channel import Delivery, Subscription
from headwater.checkpoint import Checkpoint
from headwater.clock import Clock
from headwater.consumer.foreign import Listened, read_foreign
from headwater.database import Database
from headwater.errors import SchemaError
from headwater.message import Recorded
from headwater.outbox import topic_of
from headwater.source import Batch, Malformed, Tally
from headwater.tail import Tail
from headwater.tally import read_tally
from headwater.wire import from_headers

FAR = 5_000
SOON = 0.25

Wants = Callable[[Recorded], bool]


class LogSource:
    """The service's own log after the checkpoint of one consumer; what its worker does not want is left out.

    What nobody wants is passed over without a commit of its own: the checkpoint takes it along, or follows in a moment.
    """

    ours = True

    def __init__(self, database: Database, log: Tail, clock: Clock, name: str, wants: Wants) -> None:
        self.database = database
        self.log = log
        self.clock = clock
        self.name = name
        self.wants = wants
        self._begun = False
        self._given = 0
        self._fetched = 0
        self._since = 0.0

    async def fetch(self, limit: int) -> Batch | None:
        """The next messages that are wanted; none, but a checkpoint, where enough or for long others were passed over."""
        if not self._begun:
            self._given = self._fetched = await self.database.checkpoint(self.name)
            self._begun = True
        behind = self._fetched > self._given
        wanted: list[Recorded] = []
        while not wanted and self._fetched - self._given < FAR and (read := await self.log.read(self._fetched, limit)):
            self._fetched = read[-1].position
            wanted = [one for one in read if self.wants(one)]
        if not wanted and not self._is_due(behind=behind):
            return None
        given, self._given = self._given, self._fetched
        return Batch(wanted, checkpoint=Checkpoint(self.name, self._fetched, given))

    def _is_due(self, *, behind: bool) -> bool:
        """Whether what was passed over must be settled by itself."""
        now = self.clock.monotonic()
        if not behind:
            self._since = now
        return self._fetched - self._given >= FAR or (behind and now - self._since >= SOON)

    async def acknowledge(self, batch: Batch) -> None:
        """The checkpoint was committed with the effects."""

    async def release(self) -> None:
        """Start again from the stored checkpoint."""
        self._begun = False

    async def wait(self, timeout: float) -> None:
        """Until the log grows."""
        await self.database.changed(self._fetched, timeout)


class ChannelSource:
    """The messages of a subscription; those of the topics in `listened` are not ours."""

    ours = False

    def __init__(
        self, subscription: Subscription, name: str, clock: Clock, listened: Mapping[str, Listened] | None = None
    ) -> None:
        self.subscription = subscription
        self.name = name
        self.clock = clock
        self.listened = listened or {}
        self._open: deque[tuple[Batch, Sequence[Delivery]]] = deque()

    async def fetch(self, limit: int) -> Batch | None:
        """The next deliveries, decoded as far as their attributes go."""
        deliveries = await self.subscription.fetch(limit)
        if not deliveries:
            return None
        messages: list[Recorded] = []
        malformed: list[Malformed] = []
        tallies: list[Tally] = []
        for one in deliveries:
            try:
                if one.topic in self.listened:
                    foreign = read_foreign(one, self.listened[one.topic], self.clock)
                    messages += [] if foreign is None else [foreign]
                    continue
                message = from_headers(one.headers, one.body, one.position)
                if message.kind == "control":
                    tallies.append(read_tally(message, one.topic))
                else:
                    messages.append(checked(message, one.topic))
            except SchemaError as error:
                malformed.append(Malformed(one.topic, one.position, one.partition, one.headers, one.body, str(error)))
        batch = Batch(messages, malformed, None, tallies)
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


def checked(message: Recorded, topic: str) -> Recorded:
    """A message that came on a topic. Raises SchemaError where its stream belongs to another one."""
    if topic_of(message, "") != topic:
        raise SchemaError(f"the subject {message.stream!r} of a {message.kind} does not belong to topic {topic!r}")
    return message
