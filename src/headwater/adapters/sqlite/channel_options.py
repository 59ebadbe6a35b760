"""The URL of a channel file: `sqlite:///relative.db` or `sqlite:////absolute.db`, and the options behind its `?`."""

from __future__ import annotations

from pathlib import Path
from typing import Final
from urllib.parse import parse_qsl

from msgspec import Struct

from headwater.adapters.sqlite.url import path_of
from headwater.errors import ConfigurationError

PARTITIONS: Final = 8
MOST: Final = 62
"""Partitions are bits of an integer of SQLite."""
GREATEST: Final = 10**12
"""Of seconds and messages: what is more does not fit SQLite's integers once it is microseconds."""


class ChannelOptions(Struct, frozen=True):
    """`retention` in seconds of what all groups have acknowledged; `limit` of messages that the slowest group has not.

    `limit` 0: none. `partitions` 0: as the file has them, 8 in a new one.
    """

    retention: float = 7 * 86_400.0
    limit: int = 0
    partitions: int = 0


def parse_url(url: str) -> tuple[Path, ChannelOptions]:
    """The path and the options of a URL. Raises ConfigurationError."""
    file, _, query = url.partition("?")
    path = path_of(file)
    options: dict[str, float] = {}
    for name, value in parse_qsl(query, keep_blank_values=True):
        if name not in ChannelOptions.__struct_fields__:
            known = ", ".join(ChannelOptions.__struct_fields__)
            raise ConfigurationError(f"{url!r}: {name!r} is no option of a channel file; the options are {known}")
        try:
            options[name] = float(value) if name == "retention" else int(value)
        except ValueError as error:
            raise ConfigurationError(f"{url!r}: {name} is {value!r}, which is no number") from error
    if not 0 <= options.get("partitions", 0) <= MOST or not all(0 <= value <= GREATEST for value in options.values()):
        raise ConfigurationError(
            f"{url!r}: an option is negative or over {GREATEST:,}, or there are more than {MOST} partitions"
        )
    return path, ChannelOptions(**options)  # type: ignore[arg-type]  # each has the type of its field
