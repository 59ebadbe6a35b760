"""Topics as they should be: what one is made with, and what is unsafe in one that is there."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from typing import Final

from confluent_kafka.admin import NewTopic, TopicDescription
from msgspec import Struct

from headwater.adapters.kafka.faults import APPLY
from headwater.adapters.kafka.options import MAX_BYTES, ChannelOptions
from headwater.channel import Finding

NAME: Final = re.compile(r"(?!\.{1,2}$)[a-zA-Z0-9._-]{1,249}")
COPIES: Final = 3
SHORT: Final = 86_400
"""Seconds: a consumer that is down for longer loses messages that are kept no longer."""


def is_name(topic: str) -> bool:
    """Whether Kafka takes it as the name of a topic."""
    return NAME.fullmatch(topic) is not None


class Copies(Struct, frozen=True):
    """How many brokers have a topic, and how many must have a message before it is confirmed."""

    all: int
    insync: int


def copies(options: ChannelOptions, brokers: int) -> Copies:
    """Those of a topic that is made in a cluster of so many brokers."""
    wanted = options.replication or min(COPIES, brokers)
    return Copies(wanted, options.insync or max(wanted - 1, 1))


def new_topic(name: str, options: ChannelOptions, brokers: int) -> NewTopic:
    """A topic as it is made."""
    wanted = copies(options, brokers)
    settings = {
        "min.insync.replicas": str(wanted.insync),
        "retention.ms": str(round(options.retention * 1_000)),
        "cleanup.policy": "delete",
        "unclean.leader.election.enable": "false",
    }
    if options.max_bytes > MAX_BYTES:
        settings["max.message.bytes"] = str(options.max_bytes)
    return NewTopic(name, options.partitions, wanted.all, config=settings)


def missing(topic: str) -> Finding:
    """A topic that is not there."""
    return Finding("missing", f"topic {topic}", f"it is not there; {APPLY}")


def impossible(topic: str) -> Finding:
    """A topic that cannot be."""
    return Finding(
        "impossible", f"topic {topic}", "Kafka takes letters, digits, '.', '_' and '-' in the name of a topic"
    )


def unsafe(
    topic: TopicDescription, settings: Mapping[str, str] | None, options: ChannelOptions, brokers: int
) -> Iterator[Finding]:
    """What is unsafe in a topic that is there; `settings` are None where we may not see them."""
    what = f"topic {topic.name}"
    for why in (*_of_copies(topic, settings, brokers), *_of_settings(settings, options)):
        yield Finding("unsafe", what, why)


def _of_copies(topic: TopicDescription, settings: Mapping[str, str] | None, brokers: int) -> Iterator[str]:
    has = min((len(part.replicas) for part in topic.partitions), default=0)
    if has == 1 and brokers > 1:
        yield f"one broker alone has it (replication factor 1 of {brokers}): what it loses is lost; add replicas"
    insync = int((settings or {}).get("min.insync.replicas", 0))
    if insync == 1 and has > 1:
        yield "a message is confirmed that one broker alone has: set min.insync.replicas=2"
    if insync >= has > 1:
        yield f"nothing can be published while one broker is down: set min.insync.replicas below {has}"


def _of_settings(settings: Mapping[str, str] | None, options: ChannelOptions) -> Iterator[str]:
    if settings is None:
        yield "its settings cannot be seen: allow this user DescribeConfigs"
        return
    if "compact" in settings.get("cleanup.policy", ""):
        yield "earlier messages of a key are deleted (compaction): set cleanup.policy=delete"
    if settings.get("unclean.leader.election.enable") == "true":
        yield "confirmed messages may be lost when a leader fails: set unclean.leader.election.enable=false"
    kept = int(settings.get("retention.ms", -1))
    least = min(SHORT, round(options.retention))
    if 0 <= kept < least * 1_000:
        yield f"messages are kept for {kept // 1_000} s only: a consumer that is down for longer loses some; raise retention.ms"
    if int(settings.get("retention.bytes", -1)) >= 0:
        yield "old messages are deleted when there are many (retention.bytes), consumed or not: set retention.bytes=-1"
    if int(settings.get("max.message.bytes", options.max_bytes)) < options.max_bytes:
        yield f"it takes {settings['max.message.bytes']} bytes, the channel sends up to {options.max_bytes}: raise max.message.bytes"
