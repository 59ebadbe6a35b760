"""Topics, queues, subscriptions and what a queue allows: looked up, and made where they are missing.

A topic of SNS for each topic, a queue of SQS for each group of it, subscribed with raw delivery. Only its topic may send to a
queue. No dead-letter queue of SQS: it would take a message out of the order of its key; Headwater has its own dead letters.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from fnmatch import fnmatchcase
from typing import Any, Final

from msgspec import Struct

from headwater.adapters.aws.faults import Missing
from headwater.adapters.aws.names import Names, tags
from headwater.adapters.aws.publishing import MOST_BYTES
from headwater.adapters.aws.services import Answer, Services, together
from headwater.channel import Finding, Route

RETENTION: Final = 14 * 86_400
"""Seconds; the most that SQS takes."""
PAGES: Final = 100
"""Pages of a topic's subscriptions, a hundred each; a FIFO topic has a hundred at most."""
SENDER: Final = "sns.amazonaws.com"


class QueueFound(Struct, frozen=True):
    """A queue as it is: empty strings and None where there is none."""

    group: str
    name: str
    url: str
    attributes: Mapping[str, str]
    subscription: Mapping[str, str] | None


class Found(Struct, frozen=True):
    """What there is of a route."""

    topic: str
    name: str
    attributes: Mapping[str, str] | None
    queues: list[QueueFound]


class Topology:
    """The topics and queues of one channel."""

    def __init__(self, services: Services, names: Names, *, fifo: bool) -> None:
        self._services = services
        self._names = names
        self._fifo = fifo

    async def examine(self, routes: Sequence[Route]) -> list[Finding]:
        """What is missing or unsafe. Raises ChannelError."""
        found = await together((self._look(route) for route in routes), 4)
        findings = [one for route in found for one in self._judge(route)]
        if routes and not self._fifo:
            findings.append(STANDARD)
        return findings

    async def establish(self, routes: Sequence[Route]) -> list[str]:
        """Make what is missing; the names of what was made. Raises ChannelError."""
        made = await together((self._make(route) for route in routes), 4)
        return [one for some in made for one in some]

    async def url(self, group: str, topic: str) -> str:
        """Where a queue is. Raises Missing."""
        name = self._names.queue(group, topic)
        return str((await self._services.ask("sqs", "get_queue_url", QueueName=name))["QueueUrl"])

    # --- looking ---

    async def _look(self, route: Route) -> Found:
        name = self._names.topic(route.topic)
        arn = self._services.topic_arn(name)
        attributes = await self._maybe("sns", "get_topic_attributes", TopicArn=arn)
        subscribed = await self._subscribed(arn) if attributes is not None and route.groups else {}
        queues = await together(self._look_at_queue(group, route.topic, subscribed) for group in route.groups)
        return Found(route.topic, name, None if attributes is None else attributes["Attributes"], queues)

    async def _look_at_queue(self, group: str, topic: str, subscribed: Mapping[str, str]) -> QueueFound:
        name = self._names.queue(group, topic)
        told = await self._maybe("sqs", "get_queue_url", QueueName=name)
        if told is None:
            return QueueFound(group, name, "", {}, None)
        url = told["QueueUrl"]
        attributes = await self._maybe("sqs", "get_queue_attributes", QueueUrl=url, AttributeNames=["All"])
        subscription = None
        if arn := subscribed.get(self._services.queue_arn(name)):
            subscription = await self._maybe("sns", "get_subscription_attributes", SubscriptionArn=arn)
        found = (attributes or {}).get("Attributes", {})
        return QueueFound(group, name, url, found, None if subscription is None else subscription["Attributes"])

    async def _subscribed(self, arn: str) -> dict[str, str]:
        """The subscriptions of a topic, by what is subscribed."""
        found: dict[str, str] = {}
        more: dict[str, str] = {}
        for _ in range(PAGES):
            page = await self._services.ask("sns", "list_subscriptions_by_topic", TopicArn=arn, **more)
            found |= {one["Endpoint"]: one["SubscriptionArn"] for one in page.get("Subscriptions", ())}
            if not page.get("NextToken"):
                break
            more = {"NextToken": page["NextToken"]}
        return found

    async def _maybe(self, service: str, operation: str, **given: Any) -> Answer | None:
        try:
            return await self._services.ask(service, operation, **given)
        except Missing:
            return None

    # --- judging ---

    def _judge(self, found: Found) -> Iterator[Finding]:
        kms = self._services.options.kms
        what = f"topic {found.name}"
        if found.attributes is None:
            yield Finding("missing", what, f"SNS has no such topic for {found.topic}")
        elif kms and not found.attributes.get("KmsMasterKeyId"):
            yield Finding("unsafe", what, "it is not encrypted with the key that kms= names: set its KmsMasterKeyId")
        for queue in found.queues:
            yield from self._judge_queue(queue, found)

    def _judge_queue(self, queue: QueueFound, found: Found) -> Iterator[Finding]:
        what = f"queue {queue.name}"
        if not queue.url:
            yield Finding("missing", what, f"SQS has no such queue for {queue.group} on {found.topic}")
            return
        if not self._allows(queue, found):
            yield Finding("missing", f"policy of {what}", "it does not let its topic send")
        if queue.subscription is None:
            yield Finding("missing", f"subscription of {what}", f"nothing of topic {found.name} comes to it")
        elif queue.subscription.get("RawMessageDelivery", "").lower() != "true":
            yield Finding(
                "impossible",
                f"subscription of {what}",
                "SNS wraps its messages: set RawMessageDelivery to true, or delete it and apply again",
            )
        elif queue.subscription.get("FilterPolicy"):
            yield Finding(
                "unsafe", f"subscription of {what}", "it has a filter: messages that it does not let through are lost"
            )
        yield from (Finding("unsafe", what, why) for why in _unsafe(queue.attributes))

    def _allows(self, queue: QueueFound, found: Found) -> bool:
        topic = self._services.topic_arn(found.name)
        return any(_lets(one, topic, self._services.account) for one in _statements(queue.attributes))

    # --- making ---

    async def _make(self, route: Route) -> list[str]:
        found = await self._look(route)
        made = []
        if found.attributes is None:
            await self._make_topic(found.name)
            made.append(f"topic {found.name}")
        for some in await together(self._make_queue(queue, found) for queue in found.queues):
            made += some
        return made

    async def _make_topic(self, name: str) -> None:
        attributes = {"FifoTopic": "true", "FifoThroughputScope": "MessageGroup"} if self._fifo else {}
        if self._services.options.kms:
            attributes["KmsMasterKeyId"] = self._services.options.kms
        await self._services.ask("sns", "create_topic", Name=name, Attributes=attributes)

    async def _make_queue(self, queue: QueueFound, found: Found) -> list[str]:
        what, made = f"queue {queue.name}", []
        if not queue.url:
            await self._services.ask(
                "sqs",
                "create_queue",
                QueueName=queue.name,
                Attributes=self._attributes(queue, found),
                tags=tags(queue.group, found.topic),
            )
            made.append(what)
        elif not self._allows(queue, found):
            policy = self._policy(queue, found)
            await self._services.ask("sqs", "set_queue_attributes", QueueUrl=queue.url, Attributes={"Policy": policy})
            made.append(f"policy of {what}")
        if queue.subscription is None:
            await self._services.ask(
                "sns",
                "subscribe",
                TopicArn=self._services.topic_arn(found.name),
                Protocol="sqs",
                Endpoint=self._services.queue_arn(queue.name),
                Attributes={"RawMessageDelivery": "true"},
            )
            made.append(f"subscription of {what}")
        return made

    def _attributes(self, queue: QueueFound, found: Found) -> dict[str, str]:
        options = self._services.options
        given = {
            "MessageRetentionPeriod": str(RETENTION),
            "VisibilityTimeout": str(options.visibility),
            "Policy": self._policy(queue, found),
        }
        given |= {"KmsMasterKeyId": options.kms} if options.kms else {"SqsManagedSseEnabled": "true"}
        if self._fifo:
            given |= {
                "FifoQueue": "true",
                "DeduplicationScope": "messageGroup",
                "FifoThroughputLimit": "perMessageGroupId",
            }
        return given

    def _policy(self, queue: QueueFound, found: Found) -> str:
        """What a queue allows already, and that its topic may send."""
        ours = {
            "Sid": "HeadwaterTopic",
            "Effect": "Allow",
            "Principal": {"Service": SENDER},
            "Action": "sqs:SendMessage",
            "Resource": self._services.queue_arn(queue.name),
            "Condition": {"ArnEquals": {"aws:SourceArn": self._services.topic_arn(found.name)}},
        }
        secure = {
            "Sid": "HeadwaterSecureTransport",
            "Effect": "Deny",
            "Principal": "*",
            "Action": "sqs:*",
            "Resource": self._services.queue_arn(queue.name),
            "Condition": {"Bool": {"aws:SecureTransport": "false"}},
        }
        plain = self._services.options.endpoint.startswith("http:")
        made = [ours] if plain else [ours, secure]
        named = {one["Sid"] for one in made}
        others = [one for one in _statements(queue.attributes) if one.get("Sid") not in named]
        return json.dumps({"Version": "2012-10-17", "Statement": [*others, *made]})


STANDARD: Final = Finding(
    "unsafe",
    "standard=yes",
    "standard topics and queues keep no order and give one key to several members: what comes early is held until what is "
    "before it has come",
)


def _unsafe(attributes: Mapping[str, str]) -> Iterator[str]:
    kept = int(attributes.get("MessageRetentionPeriod", RETENTION))
    if kept < RETENTION:
        yield (
            f"it keeps messages for {kept / 86_400:g} days: a group that is down for longer loses them; "
            f"set its MessageRetentionPeriod to {RETENTION}"
        )
    if int(attributes.get("MaximumMessageSize", MOST_BYTES)) < MOST_BYTES:
        yield f"it takes smaller messages than SNS, and loses those that are larger: set MaximumMessageSize to {MOST_BYTES}"
    if attributes.get("RedrivePolicy"):
        yield "SQS takes messages that come again too often out of it, and out of their order: remove its RedrivePolicy"
    if attributes.get("SqsManagedSseEnabled", "true") != "true" and not attributes.get("KmsMasterKeyId"):
        yield "it is not encrypted: set SqsManagedSseEnabled to true, or its KmsMasterKeyId"
    if any(_open(one) for one in _statements(attributes)):
        yield "anybody may use it: give each statement of its policy a principal or a condition"


def _statements(attributes: Mapping[str, str]) -> list[dict[str, Any]]:
    try:
        found = json.loads(attributes.get("Policy") or "{}").get("Statement", [])
    except (ValueError, AttributeError):
        return []
    return [one for one in (found if isinstance(found, list) else [found]) if isinstance(one, dict)]


def _lets(statement: Mapping[str, Any], topic: str, account: str) -> bool:
    """Whether a statement lets a topic send."""
    principal = statement.get("Principal")
    whose = _listed(principal.get("Service") if isinstance(principal, dict) else principal)
    what = [one.lower() for one in _listed(statement.get("Action"))]
    if statement.get("Effect") != "Allow" or not {SENDER, "*"}.intersection(whose):
        return False
    if not {"sqs:sendmessage", "sqs:*", "*"}.intersection(what):
        return False
    conditions = [
        (name.lower(), _listed(values))
        for condition in (statement.get("Condition") or {}).values()
        for name, values in condition.items()
    ]
    known = {"aws:sourcearn": topic, "aws:sourceaccount": account}
    return all(any(fnmatchcase(known.get(name, ""), value) for value in values) for name, values in conditions)


def _open(statement: Mapping[str, Any]) -> bool:
    principal = statement.get("Principal")
    whose = principal.get("AWS") if isinstance(principal, dict) else principal
    return statement.get("Effect") == "Allow" and "*" in _listed(whose) and not statement.get("Condition")


def _listed(value: Any) -> list[str]:
    return [value] if isinstance(value, str) else [one for one in value or [] if isinstance(one, str)]
