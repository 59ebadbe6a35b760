"""URLs of SQLite files: `sqlite:///relative/path.db` and `sqlite:////absolute/path.db`."""

from __future__ import annotations

from pathlib import Path
from typing import Final
from urllib.parse import unquote

from headwater.errors import ConfigurationError

SCHEME: Final = "sqlite:///"


def path_of(url: str) -> Path:
    """The path that a URL names. Raises ConfigurationError."""
    path = unquote(url.removeprefix(SCHEME))
    if not url.startswith(SCHEME) or not path or "?" in url or "#" in url or "\0" in path or path == ":memory:":
        raise ConfigurationError(
            f"{url!r} names no SQLite file: write sqlite:///relative/path.db or sqlite:////absolute/path.db"
        )
    return Path(path)
