"""FastStream on aiokafka, its other client of Kafka."""

from __future__ import annotations

from faststream.kafka import KafkaBroker

from .faststream_kafka import FastStreamKafka


class FastStreamAio(FastStreamKafka):
    """A handler for each message, or for `batches` of so many; acknowledged as `policy` says."""

    broker = KafkaBroker
