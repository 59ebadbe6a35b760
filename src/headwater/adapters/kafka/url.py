"""URLs of Kafka clusters: `kafka://user:password@host:port,host:port?option=value`."""

from __future__ import annotations

from typing import Final
from urllib.parse import parse_qsl, unquote

import msgspec

from headwater.adapters.kafka.options import ChannelOptions
from headwater.adapters.kafka.security import PASSWORD, SecurityOptions, properties
from headwater.errors import ConfigurationError

Properties = dict[str, str | int | float | bool]
"""Settings of librdkafka."""

SCHEME: Final = "kafka://"
PORT: Final = 9092
EXAMPLE: Final = "write kafka://host:9092, or kafka://host:9092,other:9092?prefix=shop."
UNQUOTED: Final = f"write ? in a password as %3F and @ in an option as %40, or set {PASSWORD}"
COMMON: Final[Properties] = {
    "client.id": "headwater",
    "socket.keepalive.enable": True,
    "reconnect.backoff.ms": 50,
    "reconnect.backoff.max.ms": 1_000,
    "topic.metadata.refresh.fast.interval.ms": 20,
    "topic.metadata.refresh.interval.ms": 30_000,  # partitions that are added are found after so long
    "allow.auto.create.topics": False,
    "log.connection.close": False,
}


class Place:
    """Where a cluster is, and how it is used: a `name` without credentials for messages, `properties` for clients."""

    def __init__(self, url: str) -> None:
        if not url.startswith(SCHEME):
            raise ConfigurationError(f"the URL of the channel names no Kafka cluster: {EXAMPLE}")
        rest, _, query = url.removeprefix(SCHEME).partition("?")
        credentials, _, hosts = rest.rpartition("@")
        if "@" in query and not credentials:
            raise ConfigurationError(f"the URL of the channel has an @ behind its ?: {UNQUOTED}")
        user, _, password = credentials.partition(":")
        pairs = [_host_and_port(one) for one in hosts.rstrip("/").split(",")]
        addresses = [f"[{host}]:{port}" if ":" in host else f"{host}:{port}" for host, port in pairs]
        self.name = SCHEME + ",".join(addresses)
        self.options, security = _options(query)
        self.properties: Properties = COMMON | {"bootstrap.servers": ",".join(addresses)}
        self.properties |= properties(security, [host for host, _ in pairs], unquote(user), unquote(password))


def _host_and_port(text: str) -> tuple[str, int]:
    host, found, port = text.rpartition(":")
    if not found or text.endswith("]"):
        host, port = text, str(PORT)
    bare = host.removeprefix("[").removesuffix("]")
    if not bare or not port.isdecimal() or not 0 < int(port) < 1 << 16 or "/" in host:
        raise ConfigurationError(f"{text!r} is no host and port of a Kafka broker: {EXAMPLE}")
    return bare, int(port)


def _options(query: str) -> tuple[ChannelOptions, SecurityOptions]:
    given = dict(parse_qsl(query, keep_blank_values=True))
    ours = {name: value for name, value in given.items() if name in SecurityOptions.__struct_fields__}
    others = {name: value for name, value in given.items() if name not in ours}
    try:
        return msgspec.convert(others, ChannelOptions, strict=False), msgspec.convert(ours, SecurityOptions)
    except msgspec.ValidationError as error:
        known = ", ".join([*ChannelOptions.__struct_fields__, *SecurityOptions.__struct_fields__])
        raise ConfigurationError(
            f"the URL of the channel has an option that cannot be: {error}; known: {known}"
        ) from None
