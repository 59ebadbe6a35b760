"""Bugs on the way through SNS and SQS: settled too soon, results of batches not read, order lost, time in hand that runs out."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any
from unittest import mock

from headwater.adapters.aws import publishing
from headwater.adapters.aws.publishing import Outgoing, Publisher
from headwater.adapters.aws.queue import Queue
from headwater.adapters.aws.subscription import AwsSubscription
from tests.fault.plants.detectors import Suite
from tests.fault.plants.plant import Patch, Promise, planted

CONTRACT = "tests/contract/test_channel_aws.py::TestAwsChannel::"
FAULTS = "tests/fault/test_aws_channel.py::"
BATCHES = "tests/unit/test_aws_publishing.py::"


@planted(Promise.NOTHING_LOST, Suite(f"{CONTRACT}test_what_is_not_acknowledged_comes_again_after_a_close", slow=True))
def queue_settled_on_receipt() -> Patch:
    """What is received from a queue is deleted there at once."""
    receive = Queue.receive

    async def settling(self: Queue, *given: Any) -> Any:
        found = await receive(self, *given)
        await self._each("delete_message_batch", found, {})
        return found

    return mock.patch.object(Queue, "receive", settling)


@planted(
    Promise.NOTHING_LOST,
    Suite(f"{BATCHES}test_each_result_of_a_batch_is_read"),
    Suite(f"{FAULTS}test_what_sns_does_not_take_of_a_batch_is_published_again_before_the_next_of_its_key", slow=True),
)
def results_of_a_published_batch_not_read() -> Patch:
    """A batch that SNS has answered is taken to be published whole."""
    attempt = Publisher._try

    async def believing(self: Publisher, batch: Sequence[Outgoing], refused: dict[int, str]) -> Any:
        await attempt(self, batch, refused)
        return [], ""

    return mock.patch.object(Publisher, "_try", believing)


@planted(
    Promise.NO_WINDOW,
    Suite(f"{FAULTS}test_an_acknowledgement_that_sqs_did_not_take_of_a_batch_is_made_again", slow=True),
)
def results_of_a_settled_batch_not_read() -> Patch:
    """A batch that SQS has answered is taken to be deleted whole."""

    async def believing(self: Queue, operation: str, taken: Any, more: Any) -> Any:
        entries = [{"Id": str(number), "ReceiptHandle": one.receipt} | more for number, one in enumerate(taken)]
        await self._services.ask("sqs", operation, QueueUrl=self.url, Entries=entries)
        return list(taken), []

    return mock.patch.object(Queue, "_some", believing)


@planted(Promise.ORDER, Suite(f"{BATCHES}test_each_result_of_a_batch_is_read"))
def two_of_a_key_in_one_batch() -> Patch:
    """A batch may hold the next message of a key too, which goes although the first is not taken."""
    return mock.patch.object(publishing, "waves", lambda outgoing: [list(outgoing)])


@planted(
    Promise.ORDER,
    Suite(f"{FAULTS}test_what_is_in_hand_stays_there_for_longer_than_sqs_was_told_at_first", slow=True),
)
def time_in_hand_not_renewed() -> Patch:
    """What is in hand for longer than SQS was told at first is given to others."""

    async def idle(self: AwsSubscription) -> None:
        pass

    return mock.patch.object(AwsSubscription, "_keep", idle)


@planted(
    Promise.ORDER,
    Suite(f"{FAULTS}test_who_held_a_message_for_too_long_cannot_settle_it_any_more", slow=True),
)
def receipt_that_ran_out_believed() -> Patch:
    """A member that had messages in hand for too long is not told that they are another's."""

    async def quiet(self: AwsSubscription) -> None:
        pass

    return mock.patch.object(AwsSubscription, "_lose", quiet)
