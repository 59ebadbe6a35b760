"""Messages that are larger than a real broker takes reach another service by claim check, and only with it."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest
from aiobotocore.session import AioSession

from headwater import App, ChannelError, SchemaError
from headwater.adapters.aws import S3Claims
from headwater.adapters.aws.services import client_of
from headwater.app import open_channel
from headwater.claims import name_of
from headwater.clock import SystemClock
from tests.flow.shop import Bump, Bumped, shop
from tests.servers.aws import REGION, Endpoint
from tests.servers.kafka import Brokers

SIZES = (10, 300_000, 20, 900_000)
"""Bytes: SNS and SQS take 256 KiB, the topic on Kafka below 100,000."""


async def carried(url: str, folder: Path, claims: str) -> list[tuple[int, int]]:
    """Which messages, by number and size, one service had of another."""
    at = {"channel": url, "claims": claims}
    producer = shop(store=f"sqlite:///{folder}/shop.db", **at)
    consumer = App("mail", store=f"sqlite:///{folder}/mail.db", **at)
    seen: list[tuple[int, int]] = []
    done = asyncio.Event()

    @consumer.on(Bumped)
    async def note(event: Bumped) -> None:
        seen.append((event.n, len(event.say)))
        if len(seen) == len(SIZES):
            done.set()

    channel = open_channel(url, SystemClock())
    await channel.open()
    for app in (producer, consumer):
        await channel.establish(app.routes())
    await channel.close()
    async with producer, consumer:
        for size in SIZES:
            await producer.send(Bump("a", "x" * size))
        await asyncio.wait_for(done.wait(), 30)
    return seen


def test_kafka_carries_by_claim_check_what_its_topic_does_not_take(kafka: Brokers, tmp_path: Path) -> None:
    url = kafka.url(max_bytes=100_000)
    (tmp_path / "claims").mkdir()
    seen = asyncio.run(carried(url, tmp_path, (tmp_path / "claims").as_uri()))
    assert seen == list(enumerate(SIZES, 1))
    assert len(list((tmp_path / "claims").iterdir())) == 2


def test_sqs_carries_by_claim_check_what_it_does_not_take(aws: Endpoint, tmp_path: Path) -> None:
    (tmp_path / "claims").mkdir()
    seen = asyncio.run(carried(aws.channel(poll=1), tmp_path, (tmp_path / "claims").as_uri()))
    assert seen == list(enumerate(SIZES, 1))
    assert len(list((tmp_path / "claims").iterdir())) == 2


def bucket_of(aws: Endpoint) -> str:
    """The URL of claims in a bucket that is made for this test."""
    claims = f"{aws.prefix}claims"

    async def make() -> None:
        async with client_of(AioSession(), "s3", REGION, aws.url) as client:
            await client.create_bucket(Bucket=claims, CreateBucketConfiguration={"LocationConstraint": REGION})

    asyncio.run(make())
    return f"s3://{claims}/shop?region={REGION}&endpoint={aws.url}"


def test_sqs_carries_with_claims_in_s3_what_it_does_not_take(aws: Endpoint, tmp_path: Path) -> None:
    seen = asyncio.run(carried(aws.channel(poll=1), tmp_path, bucket_of(aws)))
    assert seen == list(enumerate(SIZES, 1))


def test_a_bucket_keeps_what_is_left_and_says_what_is_not_there(aws: Endpoint) -> None:
    url = bucket_of(aws)

    async def main() -> None:
        claims = S3Claims.from_url(url)
        try:
            assert await claims.fetch(name_of(b"body")) is None
            assert await claims.leave(b"body") == f"s3://{claims.bucket}/shop/{name_of(b'body')}"
            await claims.close()
            assert await claims.leave(b"body") == f"s3://{claims.bucket}/shop/{name_of(b'body')}"
            assert await claims.fetch(name_of(b"body")) == b"body"
        finally:
            await claims.close()
        for place, why in (
            (url.replace("claims", "gone", 1), "NoSuchBucket"),
            (f"s3://bucket?region={REGION}&endpoint=http://127.0.0.1:1", "does not answer"),
        ):
            away = S3Claims.from_url(place)
            with pytest.raises(ChannelError, match=why):
                await away.leave(b"body")
            await away.close()

    asyncio.run(main())


def test_without_it_the_command_is_refused(kafka: Brokers, tmp_path: Path) -> None:
    with pytest.raises(SchemaError, match=r"more than the channel takes, which is 98,976; .*HEADWATER_CLAIMS"):
        asyncio.run(carried(kafka.url(max_bytes=100_000), tmp_path, ""))
