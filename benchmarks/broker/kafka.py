"""Kafka: a topic of four partitions under a prefix of its own; what is to be read is written once, and read by ever new groups."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any
from urllib.parse import urlsplit
from uuid import uuid4

from benchmarks.works.consume import TOPIC
from headwater.channel import Publication
from tests.servers.kafka import VERSION, KafkaServer, admin, install

from .server import GROUP, Place, cpu_of, establish, fill

PARTITIONS = 4
STOCK = {"group_coordinator_append_linger_ms": "5", "num_network_threads": "3", "num_io_threads": "8"}
"""What the server of the tests has otherwise than Kafka as it comes."""


class KafkaBroker:
    """Makes topics on a broker; `own` is None where it was given."""

    name = "Kafka"

    def __init__(self, address: str, own: KafkaServer | None) -> None:
        self._address = address
        self._own = own
        self._unsafe: list[str] = []
        self._filled: dict[int, str] = {}
        self._groups = 0

    def facts(self) -> dict[str, Any]:
        with self.empty():
            version = VERSION if self._own else "given"
            return {"version": version, "partitions": PARTITIONS, "acks": "all", "unsafe": len(self._unsafe)}

    def cpu(self) -> float:
        return cpu_of(self._own.pid) if self._own else 0.0

    @contextmanager
    def empty(self, partitions: int = PARTITIONS) -> Iterator[Place]:
        prefix = self._made(partitions)
        try:
            yield self._place(prefix, GROUP)
        finally:
            self._delete(prefix)

    @contextmanager
    def filled(self, messages: Sequence[Publication]) -> Iterator[Place]:
        prefix = self._filled.get(len(messages))
        if prefix is None:
            prefix = self._filled[len(messages)] = self._made()
            fill(self._url(prefix), messages)
        self._groups += 1
        yield self._place(prefix, f"{GROUP}{self._groups}")

    def close(self) -> None:
        """Delete what was filled."""
        for prefix in self._filled.values():
            self._delete(prefix)

    def _made(self, partitions: int = PARTITIONS) -> str:
        prefix = f"bench{uuid4().hex[:8]}."
        self._unsafe = establish(self._url(prefix, partitions))
        return prefix

    def _delete(self, prefix: str) -> None:
        client = admin(self._address)
        topics = [one for one in client.list_topics(timeout=10).topics if one.startswith(prefix)]
        for future in client.delete_topics(topics).values():
            future.result()

    def _url(self, prefix: str, partitions: int = PARTITIONS) -> str:
        return f"kafka://{self._address}?prefix={prefix}&partitions={partitions}"

    def _place(self, prefix: str, group: str) -> Place:
        topic = f"{prefix}{TOPIC}"
        return Place(self._url(prefix), group, self._address, topic, topic, f"{prefix}{group}")


@contextmanager
def kafka(url: str) -> Iterator[KafkaBroker]:
    """The broker at `kafka://host:port`, in plain text; with no URL, one of our own."""
    if url:
        broker = KafkaBroker(urlsplit(url).netloc, None)
        yield broker
        broker.close()
        return
    install()
    own = KafkaServer.make(**STOCK)
    try:
        own.start()
        yield KafkaBroker(own.address, own)
    finally:
        own.remove()
