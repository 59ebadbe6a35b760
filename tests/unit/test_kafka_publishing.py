"""What a report of librdkafka's producer is taken for."""

from __future__ import annotations

import asyncio

from confluent_kafka import KafkaError, Message

from headwater.adapters.kafka.publishing import Report, Sending


def reported(error: KafkaError | None, offset: int) -> Sending:
    """A publish of one message, with that report."""

    async def main() -> Sending:
        sending = Sending("kafka://here")
        Report(sending, 0)(error, Message(topic="t", partition=0, offset=offset))
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
