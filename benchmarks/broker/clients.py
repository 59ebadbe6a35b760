"""The subjects of each broker, by what they are asked to do."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass
from typing import Final

from faststream import AckPolicy

from benchmarks.names import AWAITED, CLIENT, FASTSTREAM, OURS

from .aio import FastStreamAio
from .amqp import AioPika, FastStreamRabbit
from .client import Client, Ours
from .confluent import LARGE, Confluent, FastStreamConfluent
from .inbox import AT_ONCE, Inbox
from .server import Place

AIO: Final = "FastStream on aiokafka"
BATCHES: Final = "FastStream, batches"
Keep = Callable[[Place, Inbox], AbstractAsyncContextManager[None]]


@dataclass(frozen=True)
class Clients:
    """Who publishes; who consumes, by the peer's mode; who does both with each message at once; who has an effect of each."""

    publish: Mapping[str, Client]
    consume: Mapping[str, Mapping[str, Client]]
    prompt: Mapping[str, Client]
    keep: Mapping[str, Keep]


def _beside(faststream: Client, aio: Client) -> dict[str, Client]:
    return {OURS: Ours(), FASTSTREAM: faststream, AIO: aio, CLIENT: Confluent()}


LOSSY: Final = AckPolicy.ACK_FIRST
SAFE: Final = AckPolicy.NACK_ON_ERROR
KAFKA: Final = Clients(
    publish=_beside(FastStreamConfluent(), FastStreamAio()),
    consume={
        "at least once": _beside(FastStreamConfluent(SAFE), FastStreamAio(SAFE)) | {AWAITED: Confluent(awaited=True)},
        "the peer's default, which may lose": _beside(FastStreamConfluent(LOSSY), FastStreamAio(LOSSY)),
        "the peer in batches": _beside(FastStreamConfluent(SAFE, LARGE), FastStreamAio(SAFE, LARGE)),
    },
    prompt={OURS: Ours(), FASTSTREAM: FastStreamConfluent(), CLIENT: Confluent(each=True)},
    keep={
        FASTSTREAM: lambda place, inbox: FastStreamConfluent().storing(place, inbox.store),
        BATCHES: lambda place, inbox: FastStreamConfluent(SAFE, 500).keeping(place, inbox.store_many),
        CLIENT: lambda place, inbox: Confluent().keeping(place, inbox.store_many),
    },
)
RABBITMQ: Final = Clients(
    publish={OURS: Ours(), FASTSTREAM: FastStreamRabbit(), CLIENT: AioPika()},
    consume={"at least once": {OURS: Ours(), FASTSTREAM: FastStreamRabbit(), CLIENT: AioPika()}},
    prompt={OURS: Ours(), FASTSTREAM: FastStreamRabbit(), CLIENT: AioPika(each=1)},
    keep={
        FASTSTREAM: lambda place, inbox: FastStreamRabbit().storing(place, inbox.store, AT_ONCE),
        CLIENT: lambda place, inbox: AioPika().keeping(place, inbox.store_many),
    },
)
CLIENTS: Final = {"Kafka": KAFKA, "RabbitMQ": RABBITMQ}
