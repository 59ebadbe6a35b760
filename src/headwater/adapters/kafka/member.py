"""A member of a consumer group: a consumer of librdkafka, and the thread that owns it.

Its instance is called after its name, so that a restart keeps its partitions, and after its topics: a group does not look
again at the topics of an instance that comes back. The thread fetches ahead until the shelf is full, writes what is settled
(one commit under way at a time, none waited for) and hands over partitions. When nobody makes room for a while it pauses,
so that the group still hears of it.
"""

from __future__ import annotations

import logging
import threading
import zlib
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from time import monotonic, sleep
from typing import Any, Final

from confluent_kafka import (
    OFFSET_BEGINNING,
    OFFSET_STORED,
    Consumer,
    KafkaError,
    KafkaException,
    Message,
    TopicPartition,
)

from headwater import fault
from headwater.adapters.kafka.binding import Place as TopicPlace
from headwater.adapters.kafka.binding import place_of
from headwater.adapters.kafka.faults import error_in, told
from headwater.adapters.kafka.journal import Journal
from headwater.adapters.kafka.offsets import look_up
from headwater.adapters.kafka.shelf import Shelf
from headwater.adapters.kafka.url import Place, Properties
from headwater.errors import ChannelError
from headwater.telemetry import signal

TURN: Final = 0.05
"""Seconds that a turn of the thread takes where nothing comes; so long an acknowledgement may wait."""
PATIENCE: Final = 0.5
"""Seconds that there may be no room before it pauses."""
AGAIN: Final = 0.5
"""Seconds until a commit that failed is tried again."""
CHUNK: Final = 2_000
FORGET: Final = 60.0
"""Seconds after which it does not count that a member was fenced."""
ASK: Final = 5.0
"""Seconds that the group's offsets may take, when partitions come."""
CONSUMER: Final[Properties] = {
    "enable.auto.commit": False,
    "enable.auto.offset.store": False,
    "auto.offset.reset": "error",  # where what comes next is not there, we begin anew ourselves
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
        self._group = group
        self._name = name
        self._topics = list(topics)
        self._shelf = shelf
        self._starts = dict(starts)
        self._journal = Journal()
        self._paused = False
        self._left: set[TopicPlace] = set()
        self._writing: dict[TopicPlace, int] = {}
        self._write_at = 0.0
        self._fenced = False
        self._fenced_at = -FORGET

    def start(self, ended: Callable[[], None]) -> None:
        """Join; `ended` is called in the thread when it has left."""
        name = f"headwater-{self._group}-{self._name}"
        threading.Thread(target=self._run, args=(ended,), name=name, daemon=True).start()

    def _properties(self) -> dict[str, Any]:
        session = round(self._place.options.session * 1_000)
        return {
            **self._place.properties,
            **CONSUMER,
            "group.id": self._group,
            "group.instance.id": f"{self._name}-{zlib.crc32(' '.join(sorted(self._topics)).encode()):08x}",
            "session.timeout.ms": session,
            "heartbeat.interval.ms": min(session // 5, 1_000),
            "on_commit": self._written,
            "error_cb": self._journal.error,
        }

    # --- the thread ---

    def _run(self, ended: Callable[[], None]) -> None:
        try:
            while not self._shelf.closing:
                self._take_part()
                self._shelf.wait_for_end(self._place.options.session)
        except Exception as error:  # noqa: BLE001 - whoever fetches is told
            self._shelf.tell(ChannelError(f"{self._place.name}: {error}"), for_good=True)
        finally:
            ended()

    def _take_part(self) -> None:
        """Be a member until the shelf is closed, or the member fenced."""
        self._consumer = Consumer(self._properties(), logger=self._journal)
        self._fenced = self._paused = False
        self._writing = {}
        try:
            self._consumer.subscribe(self._topics, on_assign=self._given, on_revoke=self._revoked, on_lost=self._lost)
            while not (self._shelf.closing or self._fenced):
                self._step()
        finally:
            with suppress(KafkaException, RuntimeError):  # a cluster that does not answer is left without a word
                self._consumer.close()
            self._shelf.lose_all()

    def _step(self) -> None:
        self._make_room()
        self._write()
        try:
            self._put(self._next())
            self._restart_what_came_back()
        except KafkaException as exception:
            self._tell(exception.args[0])
            sleep(TURN)
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
        return [one for one in messages if one.error() is not None or place_of(one) not in self._left]

    def _put(self, messages: list[Message]) -> None:
        failed = [one for one in messages if one.error() is not None]
        found = [one for one in messages if one.error() is None] if failed else messages
        if found:
            self._shelf.put(found)
        for one in failed:
            error = error_in(one)
            if error.code() == KafkaError._AUTO_OFFSET_RESET:
                self._begin_anew(place_of(one))
            else:
                self._tell(error)

    def _restart_what_came_back(self) -> None:
        """Partitions that left and came back within one turn: some of what came of them was thrown away."""
        for place in self._left:
            if (start := self._shelf.start_of(place)) is not None:
                self._restart(place, start)

    def _begin_anew(self, place: TopicPlace) -> None:
        """What comes next in a partition is gone, with its topic or by its age; or it is new to the group."""
        if self._shelf.begin_anew(place):
            self._restart(place, OFFSET_BEGINNING)
            signal("kafka.began_anew", logging.WARNING, topic=place[0], partition=place[1])

    def _restart(self, place: TopicPlace, start: int) -> None:
        parts = [TopicPartition(*place, start)]
        self._consumer.incremental_unassign(parts)  # a seek is refused where nothing was to come
        self._consumer.incremental_assign(parts)

    def _tell(self, error: KafkaError) -> None:
        """Tell whoever fetches.

        A member is fenced when another takes its name; and when it comes back after a cut and hears of it late. So it
        comes back in a while, and gives up for good where it is fenced again soon.
        """
        for_good = False
        if error.fatal() or error.code() == KafkaError._FATAL:
            now = monotonic()
            for_good = not self._fenced and now - self._fenced_at < FORGET
            self._fenced, self._fenced_at = True, now
        self._shelf.tell(ChannelError(told(error, self._place.name)), for_good=for_good)

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
        offsets = self._shelf.drain(places_of(parts), 0.0 if self._fenced else self._place.options.drain)
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
