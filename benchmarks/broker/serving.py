"""The broker of a run."""

from __future__ import annotations

from contextlib import AbstractContextManager

from .kafka import kafka
from .rabbitmq import rabbitmq
from .server import Broker


def served(channel: str) -> AbstractContextManager[Broker]:
    """The broker that a URL names; where there is none but a kind of broker, one of our own."""
    kind, given, _ = channel.partition("://")
    return (kafka if kind == "kafka" else rabbitmq)(channel if given else "")
