"""RabbitMQ: a vhost a measurement, with one quorum queue behind the topic, for whoever reads it."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from benchmarks.works.consume import TOPIC
from headwater.channel import Publication
from tests.servers.rabbitmq import ByManagement, RabbitmqServer, Vhosts, install

from .server import GROUP, Place, cpu_of, establish, fill

PREFETCH = 1_000
"""Messages that any client has in hand: two batches of ours."""
QUEUE = f"{TOPIC}/{GROUP}/0-of-1"


class RabbitmqBroker:
    """Makes vhosts on a server; `own` is None where it was given."""

    name = "RabbitMQ"

    def __init__(self, vhosts: Vhosts, own: RabbitmqServer | None) -> None:
        self._vhosts = vhosts
        self._own = own
        self._unsafe: list[str] = []

    def facts(self) -> dict[str, Any]:
        with self.empty():
            version = (
                self._own.run("binary_to_list(rabbit_data_coercion:to_binary(rabbit_misc:version()))")
                if self._own
                else "given"
            )
            return {"version": version.strip('"'), "queues": "quorum, durable, one", "unsafe": len(self._unsafe)}

    def cpu(self) -> float:
        return cpu_of(self._own.pid) if self._own else 0.0

    @contextmanager
    def empty(self, partitions: int = 1) -> Iterator[Place]:
        vhosts = self._vhosts.fresh()
        url = vhosts.make()
        try:
            ours = f"{url}?partitions={partitions}&prefetch={PREFETCH}"
            self._unsafe = establish(ours)
            yield Place(ours, GROUP, url.replace("rabbitmq://", "amqp://"), TOPIC, QUEUE, GROUP)
        finally:
            vhosts.delete()

    @contextmanager
    def filled(self, messages: Sequence[Publication]) -> Iterator[Place]:
        with self.empty() as place:
            fill(place.url, messages)
            yield place


@contextmanager
def rabbitmq(url: str) -> Iterator[RabbitmqBroker]:
    """The server that an administrator's URL names (as `HEADWATER_TEST_RABBITMQ` does); with no URL, one of our own."""
    if url:
        yield RabbitmqBroker(Vhosts(ByManagement(url)), None)
        return
    install()
    own = RabbitmqServer.make()
    try:
        own.start()
        yield RabbitmqBroker(Vhosts.of(own), own)
    finally:
        own.remove()
