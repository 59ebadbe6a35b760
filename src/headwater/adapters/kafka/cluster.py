"""What is asked of a cluster and made in it: topics, their settings, first and last offsets, all by their whole names."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import Future
from time import monotonic
from typing import Any, Final

from confluent_kafka import KafkaError, KafkaException, TopicCollection, TopicPartition
from confluent_kafka.admin import AdminClient, ConfigResource, NewTopic, OffsetSpec, ResourceType, TopicDescription

from headwater.adapters.kafka.binding import Place as TopicPlace
from headwater.adapters.kafka.faults import PASSING, error_of, translate
from headwater.adapters.kafka.url import Place

ABSENT: Final = (KafkaError.UNKNOWN_TOPIC_OR_PART, KafkaError._UNKNOWN_TOPIC)
HIDDEN: Final = (KafkaError.TOPIC_AUTHORIZATION_FAILED, KafkaError.CLUSTER_AUTHORIZATION_FAILED)
ATTEMPT: Final = 3.0
"""Seconds that an answer may take, before it is asked again."""
AGAIN: Final = 0.05


class Cluster:
    """A cluster as its administrators see it. All questions raise ChannelError."""

    def __init__(self, place: Place) -> None:
        self._place = place
        self._limit = {"request_timeout": min(place.options.timeout, ATTEMPT)}
        self._admin = AdminClient({**place.properties, "log_level": 0})

    async def brokers(self) -> int:
        """How many brokers it has."""
        found = await self._answer(lambda: self._admin.describe_cluster(**self._limit))
        return len(found.nodes)

    async def topics(self, names: Iterable[str]) -> dict[str, TopicDescription]:
        """Those of the topics that there are."""
        wanted = sorted(set(names))
        if not wanted:
            return {}
        return await self._answers(lambda: self._admin.describe_topics(TopicCollection(wanted), **self._limit))

    async def all_topics(self) -> list[str]:
        """The names of all topics."""
        try:
            found = await asyncio.to_thread(self._admin.list_topics, timeout=self._place.options.timeout)
        except KafkaException as exception:
            raise translate(exception, self._place.name) from None
        return list(found.topics)

    async def places(self, topics: Iterable[str]) -> list[TopicPlace]:
        """The partitions of those of the topics that there are."""
        found = await self.topics(topics)
        return [(name, part.id) for name, topic in found.items() for part in topic.partitions]

    async def settings(self, topics: Iterable[str]) -> dict[str, dict[str, str]]:
        """The settings of those topics that we may see."""
        wanted = [ConfigResource(ResourceType.TOPIC, name) for name in topics]
        if not wanted:
            return {}
        found = await self._answers(lambda: self._admin.describe_configs(wanted, **self._limit), HIDDEN)
        return {
            resource.name: {name: str(entry.value) for name, entry in entries.items()}
            for resource, entries in found.items()
        }

    async def make(self, topics: Sequence[NewTopic]) -> list[str]:
        """Make topics, and wait until they can be used; the names of those that were not there."""
        if not topics:
            return []
        limit = self._limit | {"operation_timeout": self._place.options.timeout}
        exists = (KafkaError.TOPIC_ALREADY_EXISTS,)
        names = sorted(await self._answers(lambda: self._admin.create_topics(list(topics), **limit), exists))
        end = monotonic() + self._place.options.timeout
        while True:
            if await self._are_led(names) or monotonic() > end:
                return names
            await asyncio.sleep(AGAIN)

    async def _are_led(self, topics: Sequence[str]) -> bool:
        found = await self.topics(topics)
        return len(found) == len(topics) and all(part.leader for one in found.values() for part in one.partitions)

    async def groups(self) -> list[str]:
        """All groups."""
        found = await self._answer(lambda: self._admin.list_consumer_groups(**self._limit))
        return sorted(one.group_id for one in found.valid)

    async def firsts(self, places: Iterable[TopicPlace]) -> dict[TopicPlace, int]:
        """The first offset of each partition."""
        return await self._offsets(places, OffsetSpec.earliest())  # type: ignore[no-untyped-call]

    async def ends(self, places: Iterable[TopicPlace]) -> dict[TopicPlace, int]:
        """The offset behind the last message of each partition."""
        return await self._offsets(places, OffsetSpec.latest())  # type: ignore[no-untyped-call]

    async def _offsets(self, places: Iterable[TopicPlace], which: OffsetSpec) -> dict[TopicPlace, int]:
        asked = {TopicPartition(*place): which for place in places}
        if not asked:
            return {}
        found = await self._answers(lambda: self._admin.list_offsets(asked, **self._limit), ())
        return {(place.topic, place.partition): one.offset for place, one in found.items()}

    # --- answers ---

    async def _answers(
        self, ask: Callable[[], Mapping[Any, Future[Any]]], without: tuple[int, ...] = ABSENT
    ) -> dict[Any, Any]:
        """What is answered, each by its name, without those that fail in one of these ways; what will pass is waited for."""
        end = monotonic() + self._place.options.timeout
        while True:
            asked = ask()
            futures = [asyncio.wrap_future(one) for one in asked.values()]
            answers = dict(zip(asked, await asyncio.gather(*futures, return_exceptions=True), strict=True))
            errors = [one for one in answers.values() if isinstance(one, BaseException)]
            errors = [one for one in errors if _code(one) not in without]
            if not errors:
                return {name: one for name, one in answers.items() if not isinstance(one, BaseException)}
            if _code(errors[0]) not in PASSING or monotonic() > end:
                raise translate(errors[0], self._place.name) if isinstance(errors[0], KafkaException) else errors[0]
            await asyncio.sleep(AGAIN)

    async def _answer(self, ask: Callable[[], Future[Any]]) -> Any:
        return (await self._answers(lambda: {"": ask()}))[""]


def _code(error: BaseException) -> int:
    return error_of(error).code() if isinstance(error, KafkaException) else 0
