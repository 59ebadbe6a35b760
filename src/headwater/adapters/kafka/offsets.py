"""Where groups are, asked by a consumer that joins none of them.

librdkafka's administrator can be asked as well, and ends the process where the group's coordinator has moved (2.16.0).
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable, Mapping
from time import monotonic, sleep
from typing import Final, TypeVar

from confluent_kafka import Consumer, KafkaError, KafkaException, TopicPartition

from headwater.adapters.kafka.binding import Place as TopicPlace
from headwater.adapters.kafka.faults import HOPELESS, PASSING, error_of, translate
from headwater.adapters.kafka.journal import Journal
from headwater.adapters.kafka.url import Place, Properties

ASKING: Final[Properties] = {"enable.auto.commit": False, "log_level": 0}
ATTEMPT: Final = 3.0
"""Seconds that an answer may take, before it is asked again."""
AGAIN: Final = 0.05

Result = TypeVar("Result")


async def committed(place: Place, group: str, places: Iterable[TopicPlace]) -> dict[TopicPlace, int]:
    """From where a group goes on in those of the partitions where it has begun. Raises ChannelError."""
    parts = [TopicPartition(*one) for one in places]
    if not parts:
        return {}
    return await asyncio.to_thread(_ask, place, group, lambda asked: look_up(asked, parts, ATTEMPT))


def look_up(consumer: Consumer, parts: list[TopicPartition], timeout: float) -> dict[TopicPlace, int]:
    """The same by a consumer of the group, blocking. Raises KafkaException, also where one partition alone has no answer."""
    found = consumer.committed(parts, timeout=timeout)
    for one in found:
        if one.error is not None:
            raise KafkaException(one.error)
    return {(one.topic, one.partition): one.offset for one in found if one.offset >= 0}


async def begin(place: Place, group: str, starts: Mapping[TopicPlace, int]) -> None:
    """Say where a group begins, unless it has members: they do, then. Raises ChannelError."""
    parts = [TopicPartition(*one, at) for one, at in starts.items()]
    if parts:
        await asyncio.to_thread(_ask, place, group, lambda asked: _commit(asked, parts))


def _commit(asked: Consumer, parts: list[TopicPartition]) -> None:
    try:
        asked.commit(offsets=parts, asynchronous=False)
    except KafkaException as exception:
        if error_of(exception).code() != KafkaError.UNKNOWN_MEMBER_ID:
            raise


def _ask(place: Place, group: str, question: Callable[[Consumer], Result]) -> Result:
    """The answer to a question; what will pass is waited for."""
    end = monotonic() + place.options.timeout
    journal = Journal()
    consumer = Consumer({**place.properties, **ASKING, "group.id": group, "error_cb": journal.error})
    try:
        while True:
            try:
                return question(consumer)
            except KafkaException as exception:
                error = error_of(exception)
                consumer.poll(0)  # why it has no answer, it says by its callback
                if journal.trouble is not None and journal.trouble.code() in HOPELESS:
                    error = journal.trouble
                if error.code() not in PASSING or monotonic() > end:
                    raise translate(error, place.name) from None
            sleep(AGAIN)
    finally:
        consumer.close()
