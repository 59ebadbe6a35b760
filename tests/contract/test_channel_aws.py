"""SNS and SQS keep every promise of a channel, as far as moto shows it (see docs/how-to/use-aws.md)."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Callable, Coroutine
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
from aiobotocore.session import AioSession

from headwater.adapters.aws import AwsChannel
from headwater.adapters.aws.topology import RETENTION
from headwater.channel import Channel, Publication, Route, Subscription
from headwater.clock import Clock, SystemClock
from headwater.errors import ChannelError
from headwater.testing.contracts.channel import ChannelContract
from headwater.testing.contracts.channel.scene import bodies, messages
from tests.servers.aws import REGION, Endpoint


class TestAwsChannel(ChannelContract):
    @pytest.fixture(autouse=True)
    def server(self, aws: Endpoint) -> None:
        self.aws = aws

    async def make(self, tmp_path: Path, clock: Clock) -> Channel:
        return await opened(AwsChannel.from_url(self.aws.channel(poll=1), clock))

    async def reopen(self, channel: Channel) -> Channel:
        assert isinstance(channel, AwsChannel)
        return await opened(AwsChannel(channel.options, channel.clock))


async def opened(channel: AwsChannel) -> AwsChannel:
    await channel.open()
    return channel


# --- topics and queues ---

ROUTES = [Route("orders.sales", ("books", "mail"))]
TOPIC = "orders_sales.fifo"
QUEUE = "books--orders_sales.fifo"


class Amazon:
    """A channel without topics, and plain clients of the same SNS and SQS."""

    def __init__(self, aws: Endpoint, channel: AwsChannel, sns: Any, sqs: Any) -> None:
        self.prefix = aws.prefix
        self.channel = channel
        self.sns = sns
        self.sqs = sqs

    def topic(self, name: str = TOPIC) -> str:
        return f"arn:aws:sns:{REGION}:123456789012:{self.prefix}{name}"

    async def url(self, name: str = QUEUE) -> str:
        return str((await self.sqs.get_queue_url(QueueName=f"{self.prefix}{name}"))["QueueUrl"])

    async def attributes(self, name: str = QUEUE) -> dict[str, str]:
        told = await self.sqs.get_queue_attributes(QueueUrl=await self.url(name), AttributeNames=["All"])
        return dict(told["Attributes"])

    async def subscription(self, name: str = QUEUE) -> dict[str, str]:
        told = await self.sns.list_subscriptions_by_topic(TopicArn=self.topic())
        (arn,) = [one["SubscriptionArn"] for one in told["Subscriptions"] if one["Endpoint"].endswith(name)]
        return dict((await self.sns.get_subscription_attributes(SubscriptionArn=arn))["Attributes"])

    async def found(self) -> list[tuple[str, str]]:
        """What the channel finds wrong, and with what, without the prefix."""
        findings = await self.channel.examine(ROUTES)
        assert all(one.why for one in findings)
        return sorted((one.state, one.what.replace(self.prefix, "")) for one in findings)


@asynccontextmanager
async def amazon(aws: Endpoint, **options: object) -> AsyncIterator[Amazon]:
    channel = AwsChannel.from_url(aws.channel(**{"poll": 1} | options), SystemClock())
    session, where = AioSession(), {"region_name": REGION, "endpoint_url": aws.url}
    async with session.create_client("sns", **where) as sns, session.create_client("sqs", **where) as sqs:
        await channel.open()
        try:
            yield Amazon(aws, channel, sns, sqs)
        finally:
            await channel.close()


def on_amazon(aws: Endpoint, test: Callable[[Amazon], Coroutine[Any, Any, None]], **options: object) -> None:
    async def run() -> None:
        async with amazon(aws, **options) as found:
            await test(found)

    asyncio.run(run())


async def one_of(member: Subscription) -> Any:
    async with asyncio.timeout(10):
        while not (found := await member.fetch(10)):
            await member.wait(0.1)
    await member.acknowledge(found)
    (delivery,) = found
    return delivery


def test_what_is_missing_is_found_made_once_and_then_kept(aws: Endpoint) -> None:
    async def test(amazon: Amazon) -> None:
        assert await amazon.found() == [
            ("missing", "queue books--orders_sales.fifo"),
            ("missing", "queue mail--orders_sales.fifo"),
            ("missing", "topic orders_sales.fifo"),
        ]
        made = [one.replace(amazon.prefix, "") for one in await amazon.channel.establish(ROUTES)]
        assert made == [
            "topic orders_sales.fifo",
            "queue books--orders_sales.fifo",
            "subscription of queue books--orders_sales.fifo",
            "queue mail--orders_sales.fifo",
            "subscription of queue mail--orders_sales.fifo",
        ]
        assert await amazon.found() == []
        assert await amazon.channel.establish(ROUTES) == []
        await amazon.sqs.delete_queue(QueueUrl=await amazon.url())
        assert await amazon.found() == [("missing", "queue books--orders_sales.fifo")]

    on_amazon(aws, test)


def test_what_is_made_is_safe(aws: Endpoint) -> None:
    async def test(amazon: Amazon) -> None:
        await amazon.channel.establish(ROUTES)
        made = await amazon.attributes()
        assert made["FifoQueue"] == made["SqsManagedSseEnabled"] == "true"
        assert (made["DeduplicationScope"], made["FifoThroughputLimit"]) == ("messageGroup", "perMessageGroupId")
        assert made["MessageRetentionPeriod"] == str(RETENTION)
        assert "RedrivePolicy" not in made
        (allowed,) = json.loads(made["Policy"])["Statement"]
        assert allowed["Principal"] == {"Service": "sns.amazonaws.com"}
        assert allowed["Condition"] == {"ArnEquals": {"aws:SourceArn": amazon.topic()}}
        assert (await amazon.subscription())["RawMessageDelivery"] == "true"
        tags = await amazon.sqs.list_queue_tags(QueueUrl=await amazon.url())
        assert tags["Tags"] == {"headwater-group": "books", "headwater-topic": "orders.sales"}
        topic = await amazon.sns.get_topic_attributes(TopicArn=amazon.topic())
        assert topic["Attributes"]["FifoTopic"] == "true"

    on_amazon(aws, test)


def test_a_key_that_is_named_encrypts_topic_and_queue(aws: Endpoint) -> None:
    async def test(amazon: Amazon) -> None:
        await amazon.channel.establish(ROUTES)
        assert (await amazon.attributes())["KmsMasterKeyId"] == "alias/shop"
        topic = await amazon.sns.get_topic_attributes(TopicArn=amazon.topic())
        assert topic["Attributes"]["KmsMasterKeyId"] == "alias/shop"
        assert await amazon.found() == []

    on_amazon(aws, test, kms="alias/shop")


@pytest.mark.parametrize(
    ("changed", "told"),
    [
        ({"MessageRetentionPeriod": "345600"}, "4 days"),
        ({"RedrivePolicy": json.dumps({"deadLetterTargetArn": "{dead}", "maxReceiveCount": 3})}, "RedrivePolicy"),
        ({"MaximumMessageSize": "65536"}, "MaximumMessageSize"),
        ({"SqsManagedSseEnabled": "false"}, "not encrypted"),
    ],
    ids=["retention", "redrive", "size", "encryption"],
)
def test_what_is_unsafe_about_a_queue_is_named_and_kept(aws: Endpoint, changed: dict[str, str], told: str) -> None:
    async def test(amazon: Amazon) -> None:
        await amazon.channel.establish(ROUTES)
        await amazon.channel.establish([Route("dead", ("books",))])
        dead = (await amazon.attributes("books--dead.fifo"))["QueueArn"]
        given = {name: value.replace("{dead}", dead) for name, value in changed.items()}
        given["Policy"] = (await amazon.attributes())["Policy"]  # moto forgets it where it is not given again
        await amazon.sqs.set_queue_attributes(QueueUrl=await amazon.url(), Attributes=given)
        (finding,) = await amazon.channel.examine(ROUTES)
        assert (finding.state, finding.what) == ("unsafe", f"queue {amazon.prefix}{QUEUE}")
        assert told in finding.why
        assert await amazon.channel.establish(ROUTES) == []

    on_amazon(aws, test)


def test_a_queue_into_which_its_topic_may_not_send_is_opened_for_it_and_stays_open_for_others(aws: Endpoint) -> None:
    async def test(amazon: Amazon) -> None:
        await amazon.channel.establish(ROUTES)
        theirs = {"Sid": "theirs", "Effect": "Allow", "Principal": "*", "Action": "sqs:*", "Resource": "*"}

        async def allow(*statements: dict[str, Any]) -> None:
            policy = json.dumps({"Version": "2012-10-17", "Statement": statements})
            await amazon.sqs.set_queue_attributes(QueueUrl=await amazon.url(), Attributes={"Policy": policy})

        other = {"ArnEquals": {"aws:SourceArn": amazon.topic("other.fifo")}}
        await allow(theirs | {"Principal": {"Service": "sns.amazonaws.com"}, "Condition": other})
        assert await amazon.found() == [("missing", "policy of queue books--orders_sales.fifo")]
        assert len(await amazon.channel.establish(ROUTES)) == 1
        policy = json.loads((await amazon.attributes())["Policy"])
        assert [one["Sid"] for one in policy["Statement"]] == ["theirs", "HeadwaterTopic"]
        assert await amazon.found() == []
        like = {
            "ArnLike": {"aws:SourceArn": "arn:aws:sns:*:*:*"},
            "StringEquals": {"aws:SourceAccount": "123456789012"},
        }
        await allow(theirs | {"Principal": {"Service": ["sns.amazonaws.com"]}, "Condition": like})
        assert await amazon.found() == []
        await allow(theirs)
        assert await amazon.found() == [("unsafe", "queue books--orders_sales.fifo")]

    on_amazon(aws, test)


def test_a_subscription_that_wraps_messages_is_impossible_and_one_that_filters_is_unsafe(aws: Endpoint) -> None:
    async def test(amazon: Amazon) -> None:
        await amazon.channel.establish(ROUTES)
        arn = (await amazon.subscription())["SubscriptionArn"]

        async def change(name: str, value: str) -> None:
            await amazon.sns.set_subscription_attributes(SubscriptionArn=arn, AttributeName=name, AttributeValue=value)

        await change("RawMessageDelivery", "false")
        assert await amazon.found() == [("impossible", "subscription of queue books--orders_sales.fifo")]
        await change("RawMessageDelivery", "true")
        await change("FilterPolicy", '{"kind": ["event"]}')
        assert await amazon.found() == [("unsafe", "subscription of queue books--orders_sales.fifo")]

    on_amazon(aws, test)


def test_without_order_it_says_so_and_carries_messages(aws: Endpoint) -> None:
    async def test(amazon: Amazon) -> None:
        await amazon.channel.establish(ROUTES)
        assert await amazon.found() == [("unsafe", "standard=yes")]
        await amazon.channel.publish([Publication("orders.sales", "k", {"id": "1"}, b"1")])
        assert (await one_of(await amazon.channel.subscribe("books", ["orders.sales"], "m"))).body == b"1"

    on_amazon(aws, test, standard="yes")


# --- others on the same topics and queues ---


def test_a_reader_that_is_not_ours_finds_a_cloudevent(aws: Endpoint) -> None:
    async def test(amazon: Amazon) -> None:
        await amazon.channel.establish(ROUTES)
        attributes = {"specversion": "1.0", "id": "1", "source": "shop", "type": "shop.Placed"}
        await amazon.channel.publish([Publication("orders.sales", "o/1", attributes, b'{"cents": 120}')])
        told = await amazon.sqs.receive_message(
            QueueUrl=await amazon.url(), MessageAttributeNames=["All"], MessageSystemAttributeNames=["All"]
        )
        (message,) = told["Messages"]
        assert json.loads(message["Body"]) == attributes | {"partitionkey": "o/1", "data": {"cents": 120}}
        assert message["MessageAttributes"]["content-type"]["StringValue"] == "application/cloudevents+json"
        assert message["Attributes"]["MessageGroupId"] == "o/1"

    on_amazon(aws, test)


@pytest.mark.parametrize(
    ("text", "attributes", "key", "headers", "body"),
    [
        (
            '{"specversion": "1.0", "id": "7", "subject": "o1", "size": 3, "data": {"cents": 1}}',
            {},
            "o1",
            {"specversion": "1.0", "id": "7", "subject": "o1", "size": "3"},
            b'{"cents": 1}',
        ),
        ('{"cents": 1}', {"type": "Placed"}, "lane", {"type": "Placed"}, b'{"cents": 1}'),
        ('{"specversion": [oh no', {}, "lane", {}, b'{"specversion": [oh no'),
    ],
    ids=["a CloudEvent", "plain JSON", "broken"],
)
def test_what_a_writer_that_is_not_ours_publishes_is_delivered(
    aws: Endpoint, text: str, attributes: dict[str, str], key: str, headers: dict[str, str], body: bytes
) -> None:
    async def test(amazon: Amazon) -> None:
        await amazon.channel.establish(ROUTES)
        given = {name: {"DataType": "String", "StringValue": value} for name, value in attributes.items()}
        await amazon.sns.publish(
            TopicArn=amazon.topic(),
            Message=text,
            MessageGroupId="lane",
            MessageDeduplicationId="1",
            MessageAttributes=given,
        )
        delivery = await one_of(await amazon.channel.subscribe("books", ["orders.sales"], "m"))
        assert (delivery.topic, delivery.key, delivery.headers, delivery.body) == ("orders.sales", key, headers, body)

    on_amazon(aws, test)


def test_two_channels_of_one_account_have_their_own_topics_and_lag(aws: Endpoint) -> None:
    async def test(amazon: Amazon) -> None:
        await amazon.channel.establish(ROUTES)
        other = AwsChannel.from_url(aws.channel(prefix=f"{aws.prefix}eu-"), SystemClock())
        await other.open()
        await other.establish([Route("orders.sales", ("reports",))])
        await amazon.sqs.create_queue(QueueName=f"{aws.prefix}theirs")
        await other.publish([Publication("orders.sales", "k", {"id": "1"}, b"1")])
        lags = await amazon.channel.lag()
        assert sorted((lag.group, lag.messages) for lag in lags) == [("books", 0), ("mail", 0)]
        (lag,) = await other.lag("reports")
        assert (lag.topic, lag.messages) == ("orders.sales", 1)
        await other.close()
        await other.close()
        with pytest.raises(ChannelError, match="not open"):
            await other.publish([])

    on_amazon(aws, test)


def test_a_name_that_aws_cannot_write_is_one_of_its_own(aws: Endpoint) -> None:
    async def test(amazon: Amazon) -> None:
        routes = [Route("Straße.größe", ("ключ",)), Route("x" * 200, ("y" * 90,))]
        assert len(await amazon.channel.establish(routes)) == 6
        assert await amazon.channel.examine(routes) == []
        for route in routes:
            member = await amazon.channel.subscribe(route.groups[0], [route.topic], "m")
            await amazon.channel.publish(messages(route.topic, [1]))
            assert bodies([await one_of(member)]) == [1]
        assert {(lag.group, lag.topic) for lag in await amazon.channel.lag()} == {
            (route.groups[0], route.topic) for route in routes
        }

    on_amazon(aws, test)
