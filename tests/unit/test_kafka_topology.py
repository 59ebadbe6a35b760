"""How many copies a topic of Kafka has and needs, and what of that is unsafe."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest

from headwater.adapters.kafka.options import ChannelOptions
from headwater.adapters.kafka.topology import Copies, copies, is_name, unsafe

SAFE = {"min.insync.replicas": "2", "retention.ms": "604800000"}


@pytest.mark.parametrize(
    ("brokers", "options", "wanted"),
    [
        (1, ChannelOptions(), Copies(1, 1)),
        (2, ChannelOptions(), Copies(2, 1)),
        (3, ChannelOptions(), Copies(3, 2)),
        (9, ChannelOptions(), Copies(3, 2)),
        (9, ChannelOptions(replication=5), Copies(5, 4)),
        (3, ChannelOptions(insync=1), Copies(3, 1)),
    ],
)
def test_a_topic_gets_three_copies_where_it_can_and_needs_all_but_one(
    brokers: int, options: ChannelOptions, wanted: Copies
) -> None:
    assert copies(options, brokers) == wanted


def why(replicas: int, settings: dict[str, str] | None = None, brokers: int = 3) -> list[str]:
    topic: Any = SimpleNamespace(name="t", partitions=[SimpleNamespace(replicas=[0] * replicas)])
    return [one.why for one in unsafe(topic, SAFE if settings is None else settings, ChannelOptions(), brokers)]


def test_copies_as_they_should_be_are_no_finding() -> None:
    assert why(3) == why(1, SAFE | {"min.insync.replicas": "1"}, 1) == []


@pytest.mark.parametrize(
    ("replicas", "insync", "advice"),
    [
        (1, "1", "one broker alone has it (replication factor 1 of 3): what it loses is lost; add replicas"),
        (3, "1", "a message is confirmed that one broker alone has: set min.insync.replicas=2"),
        (3, "3", "nothing can be published while one broker is down: set min.insync.replicas below 3"),
    ],
)
def test_copies_that_lose_messages_or_stop_are_named(replicas: int, insync: str, advice: str) -> None:
    assert why(replicas, SAFE | {"min.insync.replicas": insync}) == [advice]


def test_settings_that_cannot_be_seen_are_named() -> None:
    topic: Any = SimpleNamespace(name="t", partitions=[SimpleNamespace(replicas=[0, 1, 2])])
    [finding] = unsafe(topic, None, ChannelOptions(), 3)
    assert finding.why == "its settings cannot be seen: allow this user DescribeConfigs"


@pytest.mark.parametrize(
    ("name", "holds"), [("a.B_c-9", True), ("", False), (".", False), ("..", False), ("a/b", False)]
)
def test_names_are_those_that_kafka_takes(name: str, holds: bool) -> None:
    assert is_name(name) is holds


def test_a_name_may_be_so_long() -> None:
    assert is_name("a" * 249)
    assert not is_name("a" * 250)
