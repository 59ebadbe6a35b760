"""Adapters by URL scheme, found through entry points."""

from __future__ import annotations

from typing import Any, cast

from headwater.channel import Channel
from headwater.claims import Claims
from headwater.clock import Clock
from headwater.config import redact, scheme_of
from headwater.database import Database
from headwater.errors import ConfigurationError, MissingExtra

EXTRAS = {
    "postgresql": "postgres",
    "postgres": "postgres",
    "kafka": "kafka",
    "rabbitmq": "rabbitmq",
    "amqp": "rabbitmq",
    "amqps": "rabbitmq",
    "aws": "aws",
    "s3": "aws",
}


def open_database(url: str, clock: Clock) -> Database:
    """The database of a URL, not yet opened. Raises ConfigurationError."""
    return cast(Database, _load("headwater.databases", "store", url).from_url(url, clock))


def open_channel(url: str, clock: Clock) -> Channel:
    """The channel of a URL, not yet opened. Raises ConfigurationError."""
    return cast(Channel, _load("headwater.channels", "channel", url).from_url(url, clock))


def open_claims(url: str) -> Claims | None:
    """The claims of a URL; none if it is empty. Raises ConfigurationError."""
    return cast(Claims, _load("headwater.claims", "place for claims", url).from_url(url)) if url else None


def _load(group: str, what: str, url: str) -> Any:
    from importlib.metadata import entry_points  # noqa: PLC0415 - takes as long to import as all the rest

    scheme = scheme_of(url)
    found = next(iter(entry_points(group=group, name=scheme)), None)
    if found is None:
        if scheme in EXTRAS:
            raise MissingExtra(
                f"no adapter for {scheme}:// is installed; run: pip install 'headwater[{EXTRAS[scheme]}]'"
            )
        known = sorted(one.name for one in entry_points(group=group))
        raise ConfigurationError(f"{redact(url)!r}: no {what} has the scheme {scheme!r}; known: {', '.join(known)}")
    try:
        return found.load()
    except ImportError as error:
        extra = EXTRAS.get(scheme, scheme)
        raise MissingExtra(
            f"{scheme}:// needs {error.name}, which is not installed; run: pip install 'headwater[{extra}]'"
        ) from error
