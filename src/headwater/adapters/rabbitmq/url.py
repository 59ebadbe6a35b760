"""URLs of RabbitMQ channels: `rabbitmq://user:password@host:port/vhost?option=value`; `amqp://` and `amqps://` as well."""

from __future__ import annotations

import ssl
from collections.abc import Mapping
from ipaddress import ip_address
from typing import Any, Final
from urllib.parse import SplitResult, parse_qsl, unquote, urlsplit

from msgspec import Struct

from headwater.config import redact
from headwater.errors import ConfigurationError

EXAMPLE: Final = "rabbitmq://user:password@host:5672/vhost"
SCHEMES: Final = ("rabbitmq", "amqp", "amqps")
PLAIN_PORT: Final = 5672
TLS_PORT: Final = 5671
SLOTS: Final = 64
"""What the keys of a topic hash to: part of the wire, for good."""
COUNTS: Final = (1, 2, 4, 8, 16, 32, 64)
"""How many partitions a group may have on a topic: each has as many slots as the others."""


class ChannelOptions(Struct, frozen=True):
    """What a URL may say behind its `?`.

    `partitions`: how many a group gets on a topic where it has none; 0: as many as it has, or 4. `limit`: how many messages
    may wait in a partition that is made; 0: any number. `prefetch`: how many of a partition a member gets ahead; members of
    one group must not lower it while others run. `prefix`: what all names on the server begin with. `timeout`: seconds that
    the server may give no answer. `heartbeat`: seconds after which a silent connection is asked for a sign of life.
    `tls`: on or off; else on for `amqps`, and for a server that is not on this machine. `ca`, `cert`, `key`: files of
    certificates. `auth`: plain (user and password) or external (the certificate says who it is).
    """

    partitions: int = 0
    limit: int = 0
    prefetch: int = 500
    prefix: str = ""
    timeout: float = 10.0
    heartbeat: int = 10
    tls: str = ""
    ca: str = ""
    cert: str = ""
    key: str = ""
    auth: str = "plain"


class Place:
    """Where a server is and how one gets in; a `name` without secrets for messages."""

    def __init__(self, url: str) -> None:
        parts = _parts(url)
        self.options = _options(url, parts.query)
        self.host = parts.hostname or "localhost"
        self.user = unquote(parts.username or "guest")
        self.password = unquote(parts.password or ("" if parts.username else "guest"))
        self.vhost = unquote(parts.path[1:]) or "/"
        self.encrypted = self._is_encrypted(url, parts.scheme)
        self.port = parts.port or (TLS_PORT if self.encrypted else PLAIN_PORT)
        self.name = f"rabbitmq://{self.host}:{self.port}/{'' if self.vhost == '/' else self.vhost}"
        self.tls = self._context() if self.encrypted else None

    @property
    def local(self) -> bool:
        """Whether the server is on this machine: nobody listens on the way."""
        if self.host == "localhost":
            return True
        try:
            return ip_address(self.host).is_loopback
        except ValueError:
            return False

    def _is_encrypted(self, url: str, scheme: str) -> bool:
        tls = self.options.tls
        if scheme == "amqps" and tls == "off":
            raise ConfigurationError(f"{redact(url)!r}: amqps and tls=off contradict each other: leave one of them out")
        if tls:
            return tls == "on"
        if scheme == "amqp" and not self.local:
            raise ConfigurationError(
                f"{redact(url)!r} would send passwords and messages to {self.host} as plain text: write amqps://, "
                "or tls=off behind the ? if that is what you mean"
            )
        return scheme == "amqps" or not self.local

    def _context(self) -> ssl.SSLContext:
        """The system's authorities or one's own; the name of the server is always checked."""
        options = self.options
        try:
            context = ssl.create_default_context(cafile=options.ca or None)
            if options.cert:
                context.load_cert_chain(options.cert, options.key or None)
        except (OSError, ValueError) as error:
            files = ", ".join(name for name in (options.ca, options.cert, options.key) if name)
            raise ConfigurationError(f"the certificates of {self.name} ({files}) cannot be read: {error}") from error
        return context


def _parts(url: str) -> SplitResult:
    try:
        parts = urlsplit(url)
        _ = parts.port
        url.encode()
    except ValueError as error:  # its text may hold the password
        raise ConfigurationError(f"the URL of the channel is none of RabbitMQ: write {EXAMPLE}") from error
    if parts.scheme not in SCHEMES or not url.startswith(f"{parts.scheme}://") or parts.fragment:
        raise ConfigurationError(f"{redact(url)!r} is no URL of RabbitMQ: write {EXAMPLE}")
    return parts


def _options(url: str, query: str) -> ChannelOptions:
    known: Mapping[str, Any] = {name: getattr(ChannelOptions(), name) for name in ChannelOptions.__struct_fields__}
    found: dict[str, Any] = {}
    for name, value in parse_qsl(query, keep_blank_values=True):
        if name not in known:
            raise ConfigurationError(f"{redact(url)!r}: {name} is none of the options {', '.join(known)}")
        try:
            found[name] = type(known[name])(value)
        except ValueError as error:
            raise ConfigurationError(f"{redact(url)!r}: {name} is {value!r}, which is no number") from error
    options = ChannelOptions(**found)
    for right, what in _rules(options):
        if not right:
            raise ConfigurationError(f"{redact(url)!r}: {what}")
    return options


def _rules(options: ChannelOptions) -> list[tuple[bool, str]]:
    """What must hold of options, and how it is said where it does not."""
    return [
        (options.partitions in (0, *COUNTS), f"partitions is one of {', '.join(map(str, COUNTS))}"),
        (0 <= options.limit < 1 << 31, "limit is a number of messages, or 0 for any"),
        (0 < options.prefetch < 1 << 16, "prefetch is from 1 to 65535"),
        (0 < options.timeout <= 3600, "timeout is in seconds, up to an hour"),  # noqa: PLR2004
        (0 < options.heartbeat < 1 << 16, "heartbeat is in seconds, from 1 to 65535"),
        (options.tls in ("", "on", "off"), "tls is on or off"),
        (options.auth in ("plain", "external"), "auth is plain or external"),
        (bool(options.cert) or not options.key, "key is the key of a cert: name that too"),
        (bool(options.cert) or options.auth == "plain", "auth=external needs a cert that says who it is"),
    ]
