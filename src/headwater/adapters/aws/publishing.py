"""Publishing: batches of ten, many at once, and of one key never two: what is not taken is tried again before the next of it.

SNS takes or refuses each message of a batch by itself. If two of a key were in one and the first were not taken, the second
would be before it for ever.
"""

from __future__ import annotations

import asyncio
from collections import defaultdict
from collections.abc import Iterator, Sequence
from typing import Any, Final

from msgspec import Struct

from headwater.adapters.aws.document import CONTENT_TYPE, write
from headwater.adapters.aws.faults import INVALID, Refused
from headwater.adapters.aws.names import Names, deduplication_id, message_group
from headwater.adapters.aws.services import Services, together
from headwater.channel import Publication
from headwater.clock import Clock
from headwater.errors import ChannelError, SchemaError

MOST_BYTES: Final = 262_144
"""Of a message with its attributes, and of a batch."""
BATCH: Final = 10
ATTEMPTS: Final = 5
"""Of each message that is not taken; between them it waits longer and longer."""
PAUSE: Final = 0.1
CONTENT_ATTRIBUTE: Final = "content-type"
GROUP_ATTRIBUTE: Final = "headwater-group"


class Outgoing(Struct, frozen=True):
    """A message on its way: which of the publications it is, and its entry in a batch."""

    index: int
    topic: str
    key: str
    size: int
    entry: dict[str, Any]


class Publisher:
    """Publishes to the topics of a channel."""

    def __init__(self, services: Services, names: Names, clock: Clock, *, fifo: bool) -> None:
        self._services = services
        self._names = names
        self._clock = clock
        self._fifo = fifo

    async def publish(self, publications: Sequence[Publication], *, again: bool) -> dict[int, str]:
        """Publish in order by key; `again`: the same messages may come once more, and are then taken once."""
        refused: dict[int, str] = {}
        turn = "" if again else self._clock.new_id()
        outgoing: list[Outgoing] = []
        for index, one in enumerate(publications):
            try:
                outgoing.append(self._outgoing(index, one, turn))
            except SchemaError as error:
                refused[index] = str(error)
        for wave in waves(outgoing):
            await together(self._send(batch, refused) for batch in batches(wave))
        return refused

    def _outgoing(self, index: int, publication: Publication, turn: str) -> Outgoing:
        if publication.delay > 0:
            raise SchemaError("it is delayed, which a topic of SNS cannot do")
        text = write(publication)
        attributes = {CONTENT_ATTRIBUTE: CONTENT_TYPE}
        if publication.group:
            attributes[GROUP_ATTRIBUTE] = publication.group
        try:
            size = len(text.encode()) + sum(
                len(name) + len("String") + len(at.encode()) for name, at in attributes.items()
            )
            publication.topic.encode()
        except UnicodeEncodeError as error:
            raise SchemaError(f"its topic or group is no text: {error}") from error
        if size > MOST_BYTES:
            raise SchemaError(f"it has {size:,} bytes as SNS counts them, and {MOST_BYTES:,} is the most")
        entry: dict[str, Any] = {
            "Id": str(index),
            "Message": text,
            "MessageAttributes": {
                name: {"DataType": "String", "StringValue": value} for name, value in attributes.items()
            },
        }
        if self._fifo:
            entry["MessageGroupId"] = message_group(publication.key)
            entry["MessageDeduplicationId"] = self._deduplication(index, publication, turn)
        return Outgoing(index, publication.topic, publication.key, size, entry)

    def _deduplication(self, index: int, publication: Publication, turn: str) -> str:
        """The same for a message that a relay may have to publish again, another one for each that is meant to come again."""
        headers = publication.headers
        if not turn and "id" in headers:
            return deduplication_id(headers.get("source", ""), headers["id"], publication.group)
        return deduplication_id(turn or self._clock.new_id(), str(index))

    async def _send(self, batch: Sequence[Outgoing], refused: dict[int, str]) -> None:
        left, why = list(batch), ""
        for attempt in range(ATTEMPTS):
            if attempt:
                await asyncio.sleep(PAUSE * 2**attempt * (0.5 + self._clock.random()))
            left, why = await self._try(left, refused)
            if not left:
                return
        raise ChannelError(
            f"SNS has not taken {len(left)} of {len(batch)} messages of {batch[0].topic} ({why}): publish again"
        )

    async def _try(self, batch: Sequence[Outgoing], refused: dict[int, str]) -> tuple[list[Outgoing], str]:
        """Publish a batch once: what is to be tried again, and why."""
        arn = self._services.topic_arn(self._names.topic(batch[0].topic))
        entries = [one.entry for one in batch]
        try:
            answer = await self._services.ask("sns", "publish_batch", TopicArn=arn, PublishBatchRequestEntries=entries)
        except Refused as error:
            return await self._try_apart(batch, refused, error)
        taken = {one["Id"] for one in answer.get("Successful", ())}
        failed = {one["Id"]: one for one in answer.get("Failed", ())}
        left, why = [], "it says nothing of them"
        for one in batch:
            told = failed.get(str(one.index))
            if told is not None and told.get("Code") in INVALID:
                refused[one.index] = f"SNS refuses it: {told.get('Code')}: {told.get('Message', '')}"
            elif str(one.index) not in taken:
                left.append(one)
                why = told["Code"] if told else why
        return left, why

    async def _try_apart(
        self, batch: Sequence[Outgoing], refused: dict[int, str], error: Refused
    ) -> tuple[list[Outgoing], str]:
        """Find out which message it is that makes SNS refuse a batch."""
        if len(batch) == 1:
            refused[batch[0].index] = str(error)
            return [], ""
        left, why = [], ""
        for one in batch:
            again, told = await self._try([one], refused)
            left += again
            why = told or why
        return left, why


def waves(outgoing: Sequence[Outgoing]) -> list[list[Outgoing]]:
    """The first messages of all keys, then the second of those that have one, and so on."""
    found: list[list[Outgoing]] = []
    seen: dict[tuple[str, str], int] = defaultdict(int)
    for one in outgoing:
        turn = seen[one.topic, one.key]
        seen[one.topic, one.key] += 1
        if turn == len(found):
            found.append([])
        found[turn].append(one)
    return found


def batches(wave: Sequence[Outgoing]) -> Iterator[list[Outgoing]]:
    """The messages of a wave by topic, at most ten together and no more bytes than a batch may have."""
    topics: dict[str, list[Outgoing]] = defaultdict(list)
    for one in wave:
        topics[one.topic].append(one)
    for messages in topics.values():
        batch: list[Outgoing] = []
        size = 0
        for one in messages:
            if batch and (len(batch) == BATCH or size + one.size > MOST_BYTES):
                yield batch
                batch, size = [], 0
            batch.append(one)
            size += one.size
        yield batch
