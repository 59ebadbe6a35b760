"""Settings: arguments > environment > `[tool.headwater]` in pyproject.toml > defaults. `*_FILE` names a file with the value."""

from __future__ import annotations

import os
import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from msgspec import Struct

from headwater.errors import ConfigurationError


class Settings(Struct, frozen=True):
    """Where an app keeps its log, what carries its messages, and where large ones are left (empty: nowhere), as URLs."""

    store: str
    channel: str
    claims: str = ""


def settings(
    app: str,
    *,
    store: str = "",
    channel: str = "",
    claims: str = "",
    environment: Mapping[str, str] | None = None,
) -> Settings:
    """The settings of an app. Raises ConfigurationError."""
    env = os.environ if environment is None else environment
    project = _project(Path("pyproject.toml"))
    return Settings(
        store or _from_environment(env, "HEADWATER_STORE") or project.get("store") or f"sqlite:///{app}.db",
        channel or _from_environment(env, "HEADWATER_CHANNEL") or project.get("channel") or "sqlite:///channel.db",
        claims or _from_environment(env, "HEADWATER_CLAIMS") or project.get("claims") or "",
    )


def setting(name: str) -> str:
    """A setting of an adapter from the environment, or from the file that NAME_FILE names; empty if there is none.

    Raises ConfigurationError.
    """
    return _from_environment(os.environ, name)


def _from_environment(env: Mapping[str, str], name: str) -> str:
    path = env.get(f"{name}_FILE")
    if path is None:
        return env.get(name, "")
    try:
        return Path(path).read_text(encoding="utf-8").strip()
    except (OSError, ValueError) as error:
        raise ConfigurationError(f"{name}_FILE names {path!r}, which cannot be read: {error}") from error


def _project(path: Path) -> dict[str, str]:
    if not path.is_file():
        return {}
    try:
        document: dict[str, Any] = tomllib.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise ConfigurationError(f"pyproject.toml cannot be read: {error}") from error
    tool = document.get("tool", {})
    found = tool.get("headwater", {}) if isinstance(tool, dict) else tool
    if not isinstance(found, dict):
        raise ConfigurationError(
            '[tool.headwater] in pyproject.toml is not a table; write: store = "sqlite:///orders.db" under it'
        )
    unknown = set(found) - {"store", "channel", "claims"}
    if unknown:
        raise ConfigurationError(
            f"[tool.headwater] has unknown settings: {', '.join(sorted(unknown))}; known: store, channel, claims"
        )
    return {name: str(value) for name, value in found.items()}


def scheme_of(url: str) -> str:
    """The scheme of a URL. Raises ConfigurationError where there is none."""
    scheme, found, _ = url.partition("://")
    if not found or not scheme:
        raise ConfigurationError(f"{redact(url)!r} is not a URL; write for example sqlite:///orders.db")
    return scheme


def redact(url: str) -> str:
    """A URL without its password, fit for a message or a log."""
    scheme, found, rest = url.partition("://")
    credentials, at, place = rest.rpartition("@")
    if not found or not at:
        return url
    return f"{scheme}://{credentials.partition(':')[0]}:***@{place}" if ":" in credentials else url
