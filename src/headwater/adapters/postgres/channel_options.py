"""The URL of a channel: that of its database, with the channel's own options among those behind its `?`."""

from __future__ import annotations

from typing import Final
from urllib.parse import parse_qsl, quote, urlencode

from msgspec import Struct

from headwater.clock import Clock
from headwater.config import redact
from headwater.errors import ConfigurationError

PARTITIONS: Final = 8
MOST: Final = 1_000
"""Partitions."""
GREATEST: Final = 10**12
"""Of seconds and messages."""


class ChannelOptions(Struct, frozen=True):
    """`retention` in seconds of what all groups have acknowledged; `limit` of messages that the slowest group has not.

    `limit` 0: none. `partitions` 0: as the channel has them, 8 in a new one.
    """

    retention: float = 7 * 86_400.0
    limit: int = 0
    partitions: int = 0


def parse_url(url: str, clock: Clock) -> tuple[str, Clock, ChannelOptions]:
    """What a channel is made of: its database's URL, the clock, and its options. Raises ConfigurationError."""
    place, _, query = url.partition("?")
    options: dict[str, float] = {}
    others: list[tuple[str, str]] = []
    for name, value in parse_qsl(query, keep_blank_values=True):
        if name not in ChannelOptions.__struct_fields__:
            others.append((name, value))
            continue
        try:
            options[name] = float(value) if name == "retention" else int(value)
        except ValueError as error:
            raise ConfigurationError(f"{redact(place)!r}: {name} is {value!r}, which is no number") from error
    if not 0 <= options.get("partitions", 0) <= MOST or not all(0 <= value <= GREATEST for value in options.values()):
        raise ConfigurationError(
            f"{redact(place)!r}: an option is negative or over {GREATEST:,}, or there are more than {MOST} partitions"
        )
    kept = urlencode(others, errors="surrogatepass", quote_via=quote)
    return f"{place}?{kept}" if others else place, clock, ChannelOptions(**options)  # type: ignore[arg-type]  # each has the type of its field
