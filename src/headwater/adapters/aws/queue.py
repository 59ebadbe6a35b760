"""One queue of SQS: what is received of it is nobody else's for a while, which is renewed, until it is deleted or given back."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from contextlib import suppress
from time import monotonic
from typing import Any, Final

from headwater.adapters.aws import document
from headwater.adapters.aws.publishing import BATCH, CONTENT_ATTRIBUTE, GROUP_ATTRIBUTE
from headwater.adapters.aws.services import Answer, Services, together
from headwater.errors import ChannelError, SchemaError

ATTEMPTS: Final = 4
"""Of each message of a batch that SQS could not do something with; between them it waits longer and longer."""
PAUSE: Final = 0.1


class Taken:
    """A message that was received: until when (seconds, monotonic) it is ours, and whether it is being or was deleted."""

    __slots__ = ("body", "deleted", "headers", "key", "queue", "receipt", "sent", "settling", "until")

    def __init__(self, queue: Queue, message: Answer, until: float) -> None:
        system = message.get("Attributes", {})
        attributes = {
            name: value["StringValue"]
            for name, value in message.get("MessageAttributes", {}).items()
            if "StringValue" in value
        }
        self.queue = queue
        self.receipt: str = message["ReceiptHandle"]
        self.sent = int(system.get("SentTimestamp", 0)) * 1000
        self.until = until
        self.settling = self.deleted = False
        self.key, self.headers, self.body = _opened(
            message.get("Body", ""), attributes, system.get("MessageGroupId", "")
        )


class Queue:
    """The queue that has a topic's messages for a group."""

    def __init__(self, services: Services, url: str, topic: str, group: str, *, fifo: bool) -> None:
        self.url = url
        self.topic = topic
        self.group = group
        self._services = services
        self._fifo = fifo
        self._visibility = services.options.visibility

    async def receive(self, most: int, wait: int, attempt: str) -> list[Taken]:
        """Up to ten messages that are there, or come within so many seconds; those for another group are settled.

        `attempt` names the request: where AWS's client makes it again, it gets the same messages.
        """
        until = monotonic() + self._visibility
        given: dict[str, Any] = {"ReceiveRequestAttemptId": attempt} if self._fifo else {}
        answer = await self._services.ask(
            "sqs",
            "receive_message",
            QueueUrl=self.url,
            MaxNumberOfMessages=min(most, BATCH),
            WaitTimeSeconds=wait,
            VisibilityTimeout=self._visibility,
            MessageSystemAttributeNames=["MessageGroupId", "SentTimestamp"],
            MessageAttributeNames=["All"],
            **given,
        )
        ours: list[Taken] = []
        others: list[Taken] = []
        for message in answer.get("Messages", ()):
            group = message.get("MessageAttributes", {}).get(GROUP_ATTRIBUTE, {}).get("StringValue", "")
            (ours if group in ("", self.group) else others).append(Taken(self, message, until))
        if others:
            with suppress(ChannelError):  # they come again, and are settled then
                await self.delete(others)
        return ours

    async def peek(self) -> int | None:
        """When the oldest message that nobody has in hand was published (microseconds), as far as a look shows."""
        answer = await self._services.ask(
            "sqs",
            "receive_message",
            QueueUrl=self.url,
            MaxNumberOfMessages=BATCH,
            WaitTimeSeconds=0,
            VisibilityTimeout=0,
            MessageSystemAttributeNames=["SentTimestamp"],
        )
        sent = [int(one.get("Attributes", {}).get("SentTimestamp", 0)) for one in answer.get("Messages", ())]
        return min(sent) * 1000 if sent else None

    async def delete(self, taken: Sequence[Taken]) -> list[Taken]:
        """Settle messages; those that are no longer ours. Raises ChannelError where it is not known of some."""
        left = [one for one in taken if not one.deleted]
        for one in left:
            one.settling = True
        try:
            done, lost = await self._each("delete_message_batch", left, {})
        finally:
            for one in left:
                one.settling = False
        for one in done:
            one.deleted = True
        return lost

    async def extend(self, taken: Sequence[Taken]) -> list[Taken]:
        """Keep messages for a while more; those that are no longer ours. Raises ChannelError."""
        until = monotonic() + self._visibility
        done, lost = await self._each("change_message_visibility_batch", taken, {"VisibilityTimeout": self._visibility})
        for one in done:
            one.until = until
        return lost

    async def give_back(self, taken: Sequence[Taken]) -> None:
        """Let others have messages at once, in order. Raises ChannelError."""
        for start in range(0, len(taken), BATCH):
            some = taken[start : start + BATCH]
            await self._each("change_message_visibility_batch", some, {"VisibilityTimeout": 0})

    async def _each(
        self, operation: str, taken: Sequence[Taken], more: dict[str, Any]
    ) -> tuple[list[Taken], list[Taken]]:
        """Do something with each message: those done, and those that are no longer ours."""
        parts = [taken[start : start + BATCH] for start in range(0, len(taken), BATCH)]
        found = await together(self._some(operation, part, more) for part in parts)
        return [one for done, _ in found for one in done], [one for _, lost in found for one in lost]

    async def _some(
        self, operation: str, taken: Sequence[Taken], more: dict[str, Any]
    ) -> tuple[list[Taken], list[Taken]]:
        left = dict(enumerate(taken))
        lost: list[Taken] = []
        why = "it says nothing of them"
        for attempt in range(ATTEMPTS):
            if attempt:
                await asyncio.sleep(PAUSE * 2**attempt)
            entries = [{"Id": str(number), "ReceiptHandle": one.receipt} | more for number, one in left.items()]
            answer = await self._services.ask("sqs", operation, QueueUrl=self.url, Entries=entries)
            for told in answer.get("Successful", ()):
                left.pop(int(told["Id"]))
            for told in answer.get("Failed", ()):
                why = told.get("Code", "")
                if told.get("SenderFault"):
                    lost.append(left.pop(int(told["Id"])))
            if not left:
                return [one for one in taken if one not in lost], lost
        raise ChannelError(f"SQS could not {operation} {len(left)} of {len(taken)} messages of {self.topic} ({why})")


def _opened(text: str, attributes: dict[str, str], group: str) -> tuple[str, dict[str, str], bytes]:
    """The key, headers and body of a message: an event in JSON, or what somebody else has sent as it is."""
    if document.is_event(text, attributes.get(CONTENT_ATTRIBUTE, "")):
        try:
            key, headers, body = document.read(text)
            return (headers.get("subject", group) if key is None else key), headers, body
        except SchemaError:
            pass  # what is no message is kept raw, by whoever reads it
    return group, attributes, text.encode("utf-8", "surrogatepass")
