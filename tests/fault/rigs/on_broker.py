"""Channels for the rigs: the one that a URL names, or one on a broker that is started for it."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from tests.servers import kafka, rabbitmq

OURS = ("kafka", "rabbitmq")
"""In place of a URL: a broker that is started for it."""


@contextmanager
def channel_at(channel: str) -> Iterator[str]:
    """The URL of a channel; for a kind of broker, on one that runs for as long as this."""
    if channel == "kafka":
        with kafka.own_server() as broker:
            yield f"kafka://{broker.address}?session=1"
    elif channel == "rabbitmq":
        rabbitmq.install()
        with rabbitmq.own_server() as server:
            yield server.url("/")
    else:
        yield channel


def with_option(channel: str, name: str, value: object) -> str:
    """The URL with an option, unless it has it."""
    before, _, query = channel.partition("?")
    options = [one for one in query.split("&") if one]
    if not any(one.startswith(f"{name}=") for one in options):
        options.append(f"{name}={value}")
    return f"{before}?{'&'.join(options)}"
