"""What goes wrong between a channel and AWS: batches taken in part, time in hand that runs out, processes that die, no answer."""

from __future__ import annotations

import asyncio
import contextlib
import os
import socket
import sys
import time
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager
from typing import Any
from urllib.request import Request, urlopen

import pytest
from aiobotocore.session import AioSession
from botocore.exceptions import ClientError

from headwater.adapters.aws import AwsChannel
from headwater.adapters.aws.faults import Refused
from headwater.adapters.aws.services import Services
from headwater.adapters.aws.subscription import AwsSubscription
from headwater.channel import Publication, Route, Subscription
from headwater.clock import SystemClock
from headwater.errors import ChannelError, ConfigurationError
from headwater.testing.contracts.channel.scene import bodies, in_order, messages
from tests.fault.stream import BOUNDED, drained
from tests.servers.aws import REGION, Endpoint

ORDERS = [Route("orders", ("g",))]
Answer = dict[str, Any]


@asynccontextmanager
async def channel_on(aws: Endpoint, **options: object) -> AsyncIterator[AwsChannel]:
    """A channel on which the route of orders stands."""
    channel = AwsChannel.from_url(aws.channel(**{"poll": 1} | options), SystemClock())
    await channel.open()
    try:
        await channel.establish(ORDERS)
        yield channel
    finally:
        await channel.close()


async def nothing_for(member: Subscription, seconds: float) -> bool:
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        if await member.fetch(10):
            return False
        await member.wait(0.1)
    return True


async def left(channel: AwsChannel) -> int:
    """How many messages are not settled."""
    (lag,) = await channel.lag("g")
    return lag.messages


class Between:
    """Stands between all channels and their services: `change` may answer a request itself, by giving something back."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.asked: list[tuple[str, Answer]] = []
        self.change: Callable[[str, Answer], Answer | None] = lambda operation, given: None
        ask, between = Services.ask, self

        async def asking(self: Services, service: str, operation: str, **given: Any) -> Answer:
            between.asked.append((operation, given))
            failed = between.change(operation, given)
            if failed is None:
                return await ask(self, service, operation, **given)
            rest = [one for one in _entries(given) if one["Id"] not in {told["Id"] for told in failed["Failed"]}]
            if not rest:
                return failed
            name = "PublishBatchRequestEntries" if "PublishBatchRequestEntries" in given else "Entries"
            answer = await ask(self, service, operation, **given | {name: rest})
            return answer | {"Failed": [*answer.get("Failed", ()), *failed["Failed"]]}

        monkeypatch.setattr(Services, "ask", asking)

    def fails(self, operation: str, times: int, *, code: str = "InternalError", fault: bool = False) -> None:
        """The second entry of a batch fails so many times; the others are taken."""
        left = times

        def change(asked: str, given: Answer) -> Answer | None:
            nonlocal left
            entries = _entries(given)
            if asked != operation or not left or not entries:
                return None
            left -= 1
            return {"Failed": [{"Id": entries[1 % len(entries)]["Id"], "Code": code, "SenderFault": fault}]}

        self.change = change


def _entries(given: Answer) -> list[Answer]:
    found: list[Answer] = given.get("PublishBatchRequestEntries", given.get("Entries", []))
    return found


@pytest.fixture
def between(monkeypatch: pytest.MonkeyPatch) -> Between:
    return Between(monkeypatch)


# --- batches that are taken in part ---


def test_what_sns_does_not_take_of_a_batch_is_published_again_before_the_next_of_its_key(
    aws: Endpoint, between: Between
) -> None:
    async def run() -> None:
        async with channel_on(aws) as channel:
            member = await channel.subscribe("g", ["orders"], "m")
            between.fails("publish_batch", 3)
            assert await channel.publish(messages("orders", range(24), keys=6)) == {}
            found = await drained(member, 24)
            assert in_order(found)
            assert sorted(bodies(found)) == list(range(24))
            assert await left(channel) == 0

    asyncio.run(run())


def test_what_sns_keeps_not_taking_is_an_error_and_nothing_overtakes_it_or_is_doubled(
    aws: Endpoint, between: Between, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("headwater.adapters.aws.publishing.PAUSE", 0.01)

    async def run() -> None:
        async with channel_on(aws) as channel:
            given = messages("orders", range(12), keys=3)
            between.fails("publish_batch", 1_000_000)
            with pytest.raises(ChannelError, match="InternalError"):
                await channel.publish(given, producer="shop", position=12)
            between.change = lambda operation, entries: None
            await channel.publish(given, producer="shop", position=12)
            found = await drained(await channel.subscribe("g", ["orders"], "m"), 12)
            assert in_order(found)
            assert sorted(bodies(found)) == list(range(12))
            assert await left(channel) == 0

    asyncio.run(run())


def test_one_message_that_sns_will_not_have_is_refused_alone(aws: Endpoint, between: Between) -> None:
    def change(operation: str, given: Answer) -> Answer | None:
        if any('"data":3' in one["Message"] for one in given.get("PublishBatchRequestEntries", ())):
            raise Refused("InvalidParameter: there is a three in it")
        return None

    async def run() -> None:
        async with channel_on(aws) as channel:
            between.change = change
            assert await channel.publish(messages("orders", range(6), keys=6)) == {
                3: "InvalidParameter: there is a three in it"
            }
            found = await drained(await channel.subscribe("g", ["orders"], "m"), 5)
            assert sorted(bodies(found)) == [0, 1, 2, 4, 5]

    asyncio.run(run())


def test_an_acknowledgement_that_sqs_did_not_take_of_a_batch_is_made_again(aws: Endpoint, between: Between) -> None:
    async def run() -> None:
        async with channel_on(aws, visibility=2) as channel:
            member = await channel.subscribe("g", ["orders"], "m")
            await channel.publish(messages("orders", range(8), keys=8))
            between.fails("delete_message_batch", 2)
            await member.acknowledge(await member.fetch(10))
            assert await left(channel) == 0, "all are settled"

    asyncio.run(run())


def test_an_acknowledgement_of_what_is_no_longer_ours_is_noticed_and_it_comes_again(
    aws: Endpoint, between: Between
) -> None:
    async def run() -> None:
        async with channel_on(aws) as channel:
            member = await channel.subscribe("g", ["orders"], "m")
            await channel.publish(messages("orders", range(3), keys=3))
            between.fails("delete_message_batch", 1, code="ReceiptHandleIsInvalid", fault=True)
            with pytest.raises(ChannelError, match="fetched again"):
                await member.acknowledge(await member.fetch(10))

    asyncio.run(run())


# --- time in hand ---


def test_what_is_in_hand_stays_there_for_longer_than_sqs_was_told_at_first(aws: Endpoint) -> None:
    async def run() -> None:
        async with channel_on(aws, visibility=2) as channel:
            one, two = [await channel.subscribe("g", ["orders"], name) for name in ("m1", "m2")]
            await channel.publish(messages("orders", range(12), keys=2))
            held = await one.fetch(10)
            assert await nothing_for(two, 2.6)
            await one.acknowledge(held)
            rest = await drained(two, 2)
            assert sorted(bodies([*held, *rest])) == list(range(12))
            assert in_order(held)

    asyncio.run(run())


@pytest.mark.parametrize("who", ["the member", "sqs"])
def test_who_held_a_message_for_too_long_cannot_settle_it_any_more(
    aws: Endpoint, monkeypatch: pytest.MonkeyPatch, who: str
) -> None:
    """As a member that was stopped for so long: it looks at its own time first, and SQS at the receipt."""

    async def stopped(self: AwsSubscription) -> None:
        await asyncio.sleep(60)

    async def run() -> None:
        async with channel_on(aws, visibility=2) as channel:
            await channel.publish(messages("orders", range(5)))
            one = await channel.subscribe("g", ["orders"], "m1")
            with monkeypatch.context() as patch:
                patch.setattr(AwsSubscription, "_keep", stopped)
                held = await one.fetch(10)
            if who == "sqs":
                for batch in one._in_hand:
                    for taken in batch.taken:
                        taken.until += 60
            await asyncio.sleep(2.1)
            two = await channel.subscribe("g", ["orders"], "m2")
            again = await two.fetch(10)
            assert bodies(again) == [0, 1, 2, 3, 4]
            with pytest.raises(ChannelError, match="fetched again"):
                await one.acknowledge(held)
            assert await one.fetch(10) == [], "they are another's"
            await two.acknowledge(again)
            assert await left(channel) == 0

    asyncio.run(run())


HOLDER = """
import asyncio, sys
from headwater.adapters.aws import AwsChannel
from headwater.clock import SystemClock

async def run():
    channel = AwsChannel.from_url(sys.argv[1], SystemClock())
    await channel.open()
    member = await channel.subscribe("g", ["orders"], "doomed")
    print(len(await member.fetch(10)), flush=True)
    await asyncio.sleep(60)

asyncio.run(run())
"""


def test_what_a_killed_process_had_in_hand_comes_to_others_in_order(aws: Endpoint) -> None:
    async def run() -> None:
        async with channel_on(aws, visibility=2) as channel:
            await channel.publish(messages("orders", range(20), keys=4))
            member = await channel.subscribe("g", ["orders"], "m")
            url = aws.channel(poll=1, visibility=2)
            holder = await asyncio.create_subprocess_exec(
                sys.executable, "-c", HOLDER, url, stdout=asyncio.subprocess.PIPE
            )
            try:
                assert holder.stdout is not None
                assert await holder.stdout.readline() == b"10\n"
            finally:
                holder.kill()
                await holder.communicate()
            found = await drained(member, 20)
            assert in_order(found)
            assert sorted(bodies(found)) == list(range(20))

    asyncio.run(run())


def test_what_nobody_asks_for_goes_to_others(aws: Endpoint) -> None:
    async def run() -> None:
        async with channel_on(aws, visibility=2) as channel:
            idle, busy = [await channel.subscribe("g", ["orders"], name) for name in ("m1", "m2")]
            await channel.publish(messages("orders", range(10), keys=2))
            await idle.wait(1)  # it has ten ready now, and never fetches them
            found = await drained(busy, 10)
            assert in_order(found)

    asyncio.run(run())


def test_a_fetch_that_is_cut_off_loses_nothing(aws: Endpoint) -> None:
    async def run() -> None:
        async with channel_on(aws) as channel:
            member = await channel.subscribe("g", ["orders"], "m")
            await channel.publish(messages("orders", range(10), keys=2))
            fetching = asyncio.ensure_future(member.fetch(10))
            await asyncio.sleep(0.001)
            fetching.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await fetching
            assert len(await drained(member, 10, seconds=5)) == 10

    asyncio.run(run())


def test_a_member_that_leaves_while_it_waits_takes_nothing_along(aws: Endpoint) -> None:
    async def run() -> None:
        async with channel_on(aws) as channel:
            leaving = await channel.subscribe("g", ["orders"], "m1")
            await leaving.wait(0.05)  # a call that waits is under way, and goes on
            await leaving.close()
            await channel.publish(messages("orders", [1]))
            staying = await channel.subscribe("g", ["orders"], "m2")
            assert bodies(await drained(staying, 1, seconds=2)) == [1]

    asyncio.run(run())


# --- no answer, no topic, no rights ---


def test_a_server_that_is_down_is_said_soon_and_work_goes_on_when_it_is_back(own_aws: Endpoint) -> None:
    server = own_aws.server
    assert server is not None

    async def failing(work: Callable[[], Any], match: str = "does not answer") -> None:
        began = time.monotonic()
        with pytest.raises(ChannelError, match=match):
            await work()
        assert time.monotonic() - began < BOUNDED

    async def run() -> None:
        async with channel_on(own_aws) as channel:
            member = await channel.subscribe("g", ["orders"], "m")
            await channel.publish(messages("orders", [1]))
            held = await member.fetch(1)
            await asyncio.to_thread(server.kill)
            await failing(lambda: channel.publish(messages("orders", [2])))
            await failing(lambda: member.acknowledge(held))
            await member.release()
            await asyncio.to_thread(server.restart)
            await failing(
                lambda: channel.publish(messages("orders", [2])), "headwater channel apply"
            )  # moto keeps nothing
            assert len(await channel.establish(ORDERS)) == 3
            await channel.publish(messages("orders", [2]))
            (first,) = await member.fetch(1)
            assert first.body == held[0].body
            with pytest.raises(ChannelError, match="fetched again"):
                await member.acknowledge([first])
            assert bodies(await drained(member, 1)) == [2]

    asyncio.run(run())


def test_a_server_that_does_not_answer_is_given_up(monkeypatch: pytest.MonkeyPatch, aws: Endpoint) -> None:
    monkeypatch.setattr("headwater.adapters.aws.services.ANSWER", -0.8)  # a fifth of a second, with a poll of one

    async def run() -> None:
        with socket.create_server(("127.0.0.1", 0)) as silent:
            endpoint = f"http://127.0.0.1:{silent.getsockname()[1]}"
            channel = AwsChannel.from_url(aws.channel(poll=1, endpoint=endpoint, account=""), SystemClock())
            began = time.monotonic()
            with pytest.raises(ChannelError, match="does not answer"):
                await channel.open()
            assert time.monotonic() - began < BOUNDED

    asyncio.run(run())


def test_a_topic_or_queue_that_is_missing_is_named_with_what_makes_it(aws: Endpoint) -> None:
    async def run() -> None:
        async with channel_on(aws) as channel:
            with pytest.raises(ChannelError, match="headwater channel apply"):
                await channel.publish([Publication("nowhere", "k", {"id": "1"}, b"1")])
            with pytest.raises(ChannelError, match="headwater channel apply"):
                await channel.subscribe("strangers", ["orders"], "m")

    asyncio.run(run())


@pytest.fixture
def guarded_aws(own_aws: Endpoint, monkeypatch: pytest.MonkeyPatch) -> Iterator[Endpoint]:
    """A server that looks at who asks, and one who may do anything but publish."""

    async def make() -> tuple[str, str]:
        async with AioSession().create_client("iam", region_name=REGION, endpoint_url=own_aws.url) as iam:
            await iam.create_user(UserName="reader")
            policy = (
                '{"Version":"2012-10-17","Statement":[{"Effect":"Allow","Action":"*","Resource":"*"},'
                '{"Effect":"Deny","Action":"sns:Publish*","Resource":"*"}]}'
            )
            await iam.put_user_policy(UserName="reader", PolicyName="reading", PolicyDocument=policy)
            key = (await iam.create_access_key(UserName="reader"))["AccessKey"]
            return key["AccessKeyId"], key["SecretAccessKey"]

    name, secret = asyncio.run(make())
    urlopen(Request(f"{own_aws.url}/moto-api/reset-auth", data=b"0", headers={"Content-Type": "text/plain"})).close()
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", name)
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", secret)
    yield own_aws


def test_who_is_unknown_or_may_not_is_told_so(guarded_aws: Endpoint, monkeypatch: pytest.MonkeyPatch) -> None:
    async def run() -> None:
        async with channel_on(guarded_aws, account="") as channel:
            with pytest.raises(ChannelError, match=r"does not allow sns\.publish_batch"):
                await channel.publish(messages("orders", [1]))
        monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "wrong")
        with pytest.raises(ConfigurationError, match="does not know the credentials") as wrong:
            await AwsChannel.from_url(guarded_aws.channel(account=""), SystemClock()).open()
        assert "wrong" not in str(wrong.value)
        monkeypatch.setenv("AWS_ACCESS_KEY_ID", "nobody")
        with pytest.raises(ConfigurationError, match="does not know the credentials"):
            await AwsChannel.from_url(guarded_aws.channel(account=""), SystemClock()).open()

    asyncio.run(run())


def test_where_there_are_no_credentials_it_says_how_they_are_given(
    aws: Endpoint, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in [name for name in os.environ if name.startswith("AWS_")]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    monkeypatch.setenv("AWS_CONFIG_FILE", os.devnull)
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", os.devnull)

    async def run(url: str, match: str) -> None:
        with pytest.raises(ConfigurationError, match=match):
            await AwsChannel.from_url(url, SystemClock()).open()

    asyncio.run(run(aws.channel(account=""), "finds no credentials"))
    asyncio.run(run("aws://", "no region is given"))
    monkeypatch.setenv("AWS_PROFILE", "not-there")
    asyncio.run(run(aws.channel(), "AWS's client cannot start"))


def test_what_aws_says_of_a_signature_is_not_repeated() -> None:
    from headwater.adapters.aws.faults import translate

    told = {"Error": {"Code": "SignatureDoesNotMatch", "Message": "x-amz-security-token:SECRET"}}
    assert "SECRET" not in str(translate(ClientError(told, "Publish"), "sns.publish_batch", "AWS"))
