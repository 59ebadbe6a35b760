"""Topics of Kafka as they are made, and each setting of one that is unsafe, named by `examine` on a real broker."""

from __future__ import annotations

import asyncio

import pytest
from confluent_kafka.admin import ConfigResource, ResourceType

from headwater.channel import Finding, Route
from headwater.errors import ConfigurationError
from tests.fault.kafka import opened
from tests.servers.kafka import Brokers

UNSAFE = {
    "cleanup.policy": ("compact", "earlier messages of a key are deleted (compaction): set cleanup.policy=delete"),
    "unclean.leader.election.enable": ("true", "set unclean.leader.election.enable=false"),
    "retention.ms": ("60000", "messages are kept for 60 s only"),
    "retention.bytes": ("1000000", "consumed or not: set retention.bytes=-1"),
    "max.message.bytes": ("5000", "it takes 5000 bytes, the channel sends up to 1000000: raise max.message.bytes"),
}


def found(url: str, *names: str) -> list[Finding]:
    """What is found of topics."""

    async def main() -> list[Finding]:
        async with opened(url, made=False) as channel:
            return await channel.examine([Route(name) for name in names])

    return asyncio.run(main())


def whole(url: str, name: str) -> str:
    return f"{url.partition('prefix=')[2].partition('&')[0]}{name}"


def made(url: str) -> None:
    """Make the topic."""

    async def main() -> None:
        async with opened(url):
            pass

    asyncio.run(main())


@pytest.mark.parametrize("setting", UNSAFE)
def test_a_setting_that_loses_messages_is_named_with_what_to_set(kafka: Brokers, setting: str) -> None:
    url = kafka.url()
    made(url)
    assert found(url, "orders") == []
    value, why = UNSAFE[setting]
    kafka.configure(whole(url, "orders"), setting, value)
    [finding] = found(url, "orders")
    assert (finding.state, finding.what) == ("unsafe", f"topic {whole(url, 'orders')}")
    assert why in finding.why


def test_what_is_short_on_purpose_is_no_finding(kafka: Brokers) -> None:
    url = kafka.url(retention=3_600)
    made(url)
    assert found(url, "orders") == []


def test_a_topic_that_is_missing_or_cannot_be_is_found(kafka: Brokers) -> None:
    url = kafka.url()
    missing, impossible = found(url, "nowhere", "no topic")[::-1]
    assert (missing.state, impossible.state) == ("missing", "impossible")
    assert missing.why == "it is not there; make it: headwater channel apply"
    assert "letters, digits" in impossible.why


def test_a_name_that_cannot_be_is_refused_before_anything_is_made(kafka: Brokers) -> None:
    async def main() -> None:
        async with opened(kafka.url(), made=False) as channel:
            with pytest.raises(ConfigurationError, match="letters, digits"):
                await channel.establish([Route("orders"), Route("no topic")])
            assert [one.state for one in await channel.examine([Route("orders")])] == ["missing"]

    asyncio.run(main())


def test_a_topic_is_made_so_that_it_loses_nothing(kafka: Brokers) -> None:
    url = kafka.url(partitions=3, retention=90_000, max_bytes=2_000_000)
    made(url)
    resource = ConfigResource(ResourceType.TOPIC, whole(url, "orders"))
    entries = next(iter(kafka.admin.describe_configs([resource]).values())).result()
    settings = {name: entry.value for name, entry in entries.items()}
    assert {name: settings[name] for name in (*UNSAFE, "min.insync.replicas")} == {
        "cleanup.policy": "delete",
        "unclean.leader.election.enable": "false",
        "retention.ms": "90000000",
        "retention.bytes": "-1",
        "max.message.bytes": "2000000",
        "min.insync.replicas": "1",
    }
    topic = kafka.admin.list_topics(whole(url, "orders"), timeout=5).topics[whole(url, "orders")]
    assert len(topic.partitions) == 3
