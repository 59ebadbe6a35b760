"""A member of a consumer group: a consumer of librdkafka, and the thread that owns it.

Its instance is called after its name, so that a restart keeps its partitions, and after its topics: a group does not look
again at the topics of an instance that comes back. The thread fetches ahead until the shelf is full, writes what is settled
(one commit under way at a time, none waited for) and hands over partitions. When nobody makes room for a while it pauses,
so that the group still hears of it.
"""

from __future__ import annotations

import threading
import zlib
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from time import monotonic, sleep
from typing import Any, Final

from confluent_kafka import OFFSET_STORED, Consumer, KafkaError, KafkaException, Message, TopicPartition

from headwater import fault
from headwater.adapters.kafka.binding import Place as TopicPlace
from headwater.adapters.kafka.binding import place_of
from headwater.adapters.kafka.faults import told
from headwater.adapters.kafka.journal import Journal
from headwater.adapters.kafka.offsets import look_up
from headwater.adapters.kafka.shelf import Shelf
from headwater.adapters.kafka.url import Place, Properties
from headwater.errors import ChannelError

TURN: Final = 0.05
"""Seconds that a turn of the thread takes where nothing comes; so long an acknowledgement may wait."""
PATIENCE: Final = 0.5
"""Seconds that there may be no room before it pauses."""
AGAIN: Final = 0.5
"""Seconds until a commit that failed is tried again."""
CHUNK: Final = 2_000
ASK: Final = 5.0
"""Seconds that the group's offsets may take, when partitions come."""
CONSUMER: Final[Properties] = {
    "enable.auto.commit": False,
    "enable.auto.offset.store": False,
    "auto.offset.reset": "earliest",  # where what comes next is no longer there
    "partition.assignment.strategy": "cooperative-sticky",
    "queued.min.messages": 20_000,
    "queued.max.messages.kbytes": 32_768,
    "fetch.queue.backoff.ms": 10,
}


class Member:
    """Joins a group when it is started, and leaves it when the shelf is closed; `starts`: where a new group begins."""

    def __init__(
        self, place: Place, group: str, name: str, topics: Sequence[str], shelf: Shelf, starts: Mapping[TopicPlace, int]
    ) -> None:
        self._place = place
        self._drain = place.options.drain
        self._topics = list(topics)
        self._shelf = shelf
        self._starts = dict(starts)
        self._journal = Journal()
        self._paused = False
        self._left: set[TopicPlace] = set()
        self._writing: dict[TopicPlace, int] = {}
        self._write_at = 0.0
        self._consumer = Consumer(self._properties(group, name), logger=self._journal)
        self._ended: Callable[[], object] = bool
        self._thread = threading.Thread(target=self._run, name=f"headwater-{group}-{name}", daemon=True)

    def _properties(self, group: str, name: str) -> dict[str, Any]:
        session = round(self._place.options.session * 1_000)
        return {
            **self._place.properties,
            **CONSUMER,
            "group.id": group,
            "group.instance.id": f"{name}-{zlib.crc32(' '.join(sorted(self._topics)).encode()):08x}",
            "session.timeout.ms": session,
            "heartbeat.interval.ms": min(session // 5, 1_000),
            "on_commit": self._written,
            "error_cb": self._journal.error,
        }

    def start(self, ended: Callable[[], None]) -> None:
        """Join; `ended` is called in the thread when it has left."""
        self._ended = ended
        self._thread.start()

    # --- the thread ---

    def _run(self) -> None:
        try:
            self._consumer.subscribe(self._topics, on_assign=self._given, on_revoke=self._revoked, on_lost=self._lost)
            while not self._shelf.closing:
                self._step()
        except Exception as error:  # noqa: BLE001 - whoever fetches is told
            self._shelf.tell(ChannelError(f"{self._place.name}: {error}"), for_good=True)
        finally:
            self._leave()

    def _step(self) -> None:
        self._make_room()
        self._write()
        try:
            messages = self._next()
        except KafkaException as exception:
            self._tell(exception.args[0])
            sleep(TURN)
        else:
            self._put(messages)
        if (trouble := self._journal.trouble) is not None:
            self._journal.trouble = None
            self._tell(trouble)

    def _next(self) -> list[Message]:
        """What has come, within a turn, of partitions that stayed ours meanwhile."""
        self._left.clear()
        messages = self._consumer.consume(CHUNK, 0)
        if not messages:
            message = self._consumer.poll(TURN)
            messages = [] if message is None else [message]
        if not self._left:
            return messages
        for place in self._left:  # what came back within this turn comes whole
            if (start := self._shelf.start_of(place)) is not None:
                self._consumer.seek(TopicPartition(*place, start))
        return [one for one in messages if one.error() is not None or place_of(one) not in self._left]

    def _put(self, messages: list[Message]) -> None:
        errors = [error for one in messages if (error := one.error()) is not None]
        for error in errors:
            self._tell(error)
        found = [one for one in messages if one.error() is None] if errors else messages
        if found:
            self._shelf.put(found)

    def _tell(self, error: KafkaError) -> None:
        self._shelf.tell(ChannelError(told(error, self._place.name)), for_good=error.fatal())

    def _leave(self) -> None:
        try:
            self._consumer.close()
        except (KafkaException, RuntimeError) as error:
            self._shelf.tell(ChannelError(f"{self._place.name}: {error}"))
        self._ended()

    # --- back-pressure ---

    def _make_room(self) -> None:
        if self._paused:
            if self._shelf.is_low:
                self._paused = False
                self._consumer.resume(self._consumer.assignment())
        elif self._shelf.is_full:
            self._shelf.wait_for_room(PATIENCE)
            if self._shelf.is_full:
                self._paused = True
                self._consumer.pause(self._consumer.assignment())

    # --- acknowledgements ---

    def _write(self) -> None:
        if self._writing or monotonic() < self._write_at:
            return
        if offsets := self._shelf.take_unwritten():
            self._writing = offsets
            try:
                self._consumer.commit(offsets=_parts(offsets), asynchronous=True)
            except KafkaException as exception:
                self._written(exception.args[0], [])

    def _written(self, error: KafkaError | None, _: list[TopicPartition]) -> None:
        """What librdkafka calls when a commit is answered; one that failed is tried again, if it is still ours to write."""
        offsets, self._writing = self._writing, {}
        if error is not None:
            self._write_at = monotonic() + AGAIN
            self._shelf.write_again(offsets)
        else:
            fault.point("channel.settled")

    # --- rebalances: librdkafka calls these from within `consume` and `poll` ---

    def _given(self, consumer: Consumer, parts: list[TopicPartition]) -> None:
        starts = dict.fromkeys(places_of(parts), OFFSET_STORED)
        new: dict[TopicPlace, int] = {}
        with suppress(KafkaException):  # librdkafka asks again, then
            known = look_up(consumer, parts, ASK)
            new = {place: self._starts[place] for place in starts.keys() & self._starts.keys() - known.keys()}
            starts |= known | new
        fault.point("channel.taking")
        consumer.incremental_assign(_parts(starts))
        if self._paused:
            consumer.pause(parts)
        self._shelf.give(starts, new)
        fault.point("channel.taken")

    def _revoked(self, _: Consumer, parts: list[TopicPartition]) -> None:
        self._left |= places_of(parts)
        offsets = self._shelf.drain(places_of(parts), self._drain)
        if offsets:
            with suppress(KafkaException):  # what could not be written comes again, to whoever takes over
                self._consumer.commit(offsets=_parts(offsets), asynchronous=False)

    def _lost(self, _: Consumer, parts: list[TopicPartition]) -> None:
        self._left |= places_of(parts)
        self._shelf.lose(places_of(parts))


def places_of(parts: list[TopicPartition]) -> set[TopicPlace]:
    """The places of librdkafka's partitions."""
    return {(one.topic, one.partition) for one in parts}


def _parts(offsets: Mapping[TopicPlace, int]) -> list[TopicPartition]:
    return [TopicPartition(*place, at) for place, at in offsets.items()]
