"""A bridge from librdkafka's producer to asyncio: messages go out in batches, and each report is read.

Reports are polled for in the event loop while some are due, at a pulse. A thread that waits for them would have to take the
interpreter's lock once a message, which takes 5 ms each time while the loop is busy.

The producer is idempotent and never gives up a message by itself: what it writes to a partition is always the beginning
of what it was given. When a publish takes too long, all that it has is given up together, and the next publish begins
with a new one, so that no message can overtake one before it.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from itertools import chain
from time import monotonic
from typing import Final

from confluent_kafka import KafkaError, KafkaException, Message, Producer
from msgspec import Struct

from headwater.adapters.kafka.faults import HOPELESS, REFUSED, UNREACHABLE, error_of, told, translate
from headwater.adapters.kafka.journal import Journal
from headwater.adapters.kafka.places import Places
from headwater.adapters.kafka.pulse import Pulse
from headwater.adapters.kafka.url import Place, Properties
from headwater.errors import ChannelError, ConfigurationError

IDLE: Final = 1.0
"""Seconds between two looks where no report is due."""
ATTEMPT: Final = 1.0
"""Seconds that a broker has to answer, before it is looked what may be wrong."""
BY_KEY: Final = -1
"""In the place of a partition."""
NOW: Final = 0
"""In the place of a time."""
PRODUCER: Final[Properties] = {
    "acks": "all",
    "enable.idempotence": True,
    "max.in.flight": 1,  # a broker takes any number as the first of a new producer: a batch that fails must not be overtaken
    "message.timeout.ms": 0,  # none: see above
    "partitioner": "murmur2_random",  # the same partition for a key as Java's clients
    "linger.ms": 0,  # what comes while a request is under way is gathered all the same
    "batch.size": 262_144,  # below what any broker takes: what is refused as too large is then one message
    "queue.buffering.max.messages": 100_000,
    "queue.buffering.max.kbytes": 131_072,
}


class Record(Struct, frozen=True, gc=False):
    """A message as Kafka takes it; `index` is its place among those that were given."""

    index: int
    topic: str
    key: str
    headers: dict[str, str | bytes | None]
    body: bytes


class Sending:
    """The reports of one publish: `done` when none is due any more."""

    def __init__(self, place: str) -> None:
        self.done: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self.refused: dict[int, str] = {}
        self.failure = ""
        self.due = 1  # for as long as it is being given
        self._place = place

    def doubt(self) -> None:
        """A message has no place: it was not confirmed, but a later one, from which librdkafka infers the rest."""
        self.failure = self.failure or f"{self._place}: a message was not confirmed itself: publish again"

    def fault(self, index: int, error: KafkaError) -> None:
        """A message was not published."""
        if error.code() in REFUSED:
            self.refused[index] = REFUSED[error.code()]
        else:
            self.failure = self.failure or told(error, self._place)

    def settle(self) -> None:
        """One report less is due."""
        self.due -= 1
        if not self.due:
            self.end()

    def end(self, failure: str = "") -> None:
        """All that will be known is known."""
        self.failure = self.failure or failure
        if not self.done.done():
            self.done.set_result(None)


class Report(Struct, frozen=True, gc=False):
    """What librdkafka calls when it knows what became of a message. `partitions`: that of each key, which it tells."""

    sending: Sending
    index: int
    key: str
    partitions: dict[str, int]

    def __call__(self, error: KafkaError | None, message: Message) -> None:
        sending = self.sending
        if error is not None:
            sending.fault(self.index, error)
        else:
            self.partitions[self.key] = message.partition()  # type: ignore[assignment]  # what was published has one
            if message.offset() is None:
                sending.doubt()
        sending.settle()


class Publisher:
    """Publishes to a cluster; used in one event loop. `places`: where it has published so far."""

    def __init__(self, place: Place) -> None:
        self.places = Places()
        self._place = place
        self._timeout = place.options.timeout
        self._properties = place.properties | PRODUCER | {"message.max.bytes": place.options.max_bytes}
        self._loop = asyncio.get_running_loop()
        self._under_way: set[Sending] = set()
        self._leaving: set[asyncio.Task[None]] = set()
        self._looked = asyncio.Event()
        self._start()
        self._pulse = Pulse(self._look)
        self._timer = self._loop.call_later(IDLE, self._look_again)

    def _start(self) -> None:
        self._journal = Journal()
        try:
            self._producer = Producer({**self._properties, "error_cb": self._journal.error}, logger=self._journal)
        except KafkaException as exception:
            raise ConfigurationError(f"{self._place.name}: {error_of(exception).str()}") from None

    async def connect(self) -> None:
        """Wait until a broker answers. Raises ConfigurationError or ChannelError."""
        end = monotonic() + self._timeout
        while True:
            try:
                await asyncio.to_thread(self._producer.list_topics, "", min(ATTEMPT, self._timeout))
            except KafkaException as exception:
                self._producer.poll(0)
                trouble = self._journal.trouble or error_of(exception)
                if trouble.code() in HOPELESS or monotonic() > end:
                    raise translate(trouble, self._place.name) from None
            else:
                self._journal.trouble = None
                return

    async def publish(self, records: Iterator[Record]) -> dict[int, str]:
        """Publish in order; the answer says which were refused for themselves. Raises ChannelError."""
        if self._journal.broken:
            self._renew(self._why())
        sending = Sending(self._place.name)
        self._under_way.add(sending)
        self._pulse.start()
        try:
            async with asyncio.timeout(self._timeout):
                left = self._give(records, sending)
                while left is not None:
                    self._looked.clear()
                    await self._looked.wait()
                    if sending.done.done():
                        break  # it was given up with others
                    left = self._give(chain((left,), records), sending)
                sending.settle()
                self._pulse.start()
                await sending.done
        except TimeoutError:
            why = self._why()
            self._renew(why)
            raise ChannelError(why) from None
        finally:
            self._under_way.discard(sending)
        if sending.failure:
            raise ChannelError(sending.failure)
        self._journal.trouble = None
        return sending.refused

    def _give(self, records: Iterator[Record], sending: Sending) -> Record | None:
        """Give messages to the producer, as long as it has room; the answer is the one for which it had none."""
        produce, partitions = self._producer.produce, self.places.partitions
        for one in records:
            report = Report(sending, one.index, one.key, partitions)
            try:
                produce(one.topic, one.body, one.key, BY_KEY, report, None, NOW, one.headers)  # names would take 0.4 µs
            except UnicodeEncodeError as error:
                sending.refused[one.index] = f"its key or a header is no text: {error}"
            except BufferError:
                return one
            except KafkaException as exception:
                sending.fault(one.index, error_of(exception))
            else:
                sending.due += 1
        return None

    def _look(self) -> None:
        self._producer.poll(0)
        self._looked.set()
        if not self._under_way:
            self._pulse.stop()

    def _look_again(self) -> None:
        """Look now and then also where nothing is under way: there may be an error to hear of."""
        self._look()
        self._timer = self._loop.call_later(IDLE, self._look_again)

    # --- giving up ---

    def _why(self) -> str:
        trouble = self._journal.trouble
        if trouble is not None:
            return told(trouble, self._place.name)
        return f"{self._place.name} did not confirm within {self._timeout:g} s: {UNREACHABLE}"

    def _renew(self, why: str) -> None:
        """Give up all that is under way, so that nothing of it follows later, and begin anew."""
        given_up, self._under_way = self._under_way, set()
        old = self._producer
        old.purge()
        for sending in given_up:
            sending.end(why)
        self._start()
        task = self._loop.create_task(asyncio.to_thread(_end, old))
        self._leaving.add(task)
        task.add_done_callback(self._leaving.discard)

    async def close(self) -> None:
        """Wait for what is under way, and end."""
        for sending in list(self._under_way):
            await asyncio.wait({sending.done}, timeout=self._timeout)
        self._timer.cancel()
        self._pulse.close()
        self._producer.purge()
        await asyncio.to_thread(_end, self._producer)
        await asyncio.gather(*self._leaving)


def _end(producer: Producer) -> None:
    producer.close()
