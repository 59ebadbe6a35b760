"""What a report of librdkafka's producer is taken for."""

from __future__ import annotations

import asyncio
from typing import Any, ClassVar

import pytest
from confluent_kafka import KafkaError, Message

from headwater.adapters.kafka import publishing
from headwater.adapters.kafka.publishing import Record, Report, Sending
from headwater.adapters.kafka.url import Place
from headwater.errors import ChannelError


def reported(error: KafkaError | None, offset: int) -> Sending:
    """A publish of one message, with that report."""

    async def main() -> Sending:
        sending = Sending("kafka://here")
        Report(sending, 0, "k", {})(error, Message(topic="t", partition=0, offset=offset))
        await asyncio.wait_for(sending.done, 1)
        return sending

    return asyncio.run(main())


def test_a_message_with_a_place_is_published() -> None:
    sending = reported(None, 0)
    assert (sending.failure, sending.refused) == ("", {})


def test_a_message_that_a_later_one_is_taken_to_confirm_is_not_published() -> None:
    """Its batch may have been refused, while the broker took the next as the first of a producer that it did not know."""
    assert "publish again" in reported(None, -1001).failure


def test_a_message_that_is_too_large_is_refused_and_no_failure() -> None:
    sending = reported(KafkaError(KafkaError.MSG_SIZE_TOO_LARGE), -1001)
    assert sending.failure == ""
    assert list(sending.refused) == [0]


class Full:
    """A producer that has no room, and after it was given up one that takes everything and reports nothing."""

    given: ClassVar[list[str]] = []
    made = 0

    def __init__(self, *_: Any, **__: Any) -> None:
        Full.made += 1
        self._has_room = Full.made > 1

    def produce(self, topic: str, *_: Any) -> None:
        if not self._has_room:
            raise BufferError
        Full.given.append(topic)

    def poll(self, _: float) -> None: ...
    def purge(self) -> None: ...
    def close(self) -> None: ...


def test_of_a_publish_that_was_given_up_nothing_is_given_to_the_next_producer(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(publishing, "Producer", Full)

    async def main() -> None:
        publisher = publishing.Publisher(Place("kafka://localhost?timeout=2"))
        waiting = asyncio.create_task(publisher.publish(iter([Record(0, "waits", "", {}, b"")])))
        await asyncio.sleep(0.01)
        publisher._renew("another publish was not confirmed")
        with pytest.raises(ChannelError, match="another publish"):
            await waiting
        await publisher.close()

    asyncio.run(main())
    assert Full.given == []
