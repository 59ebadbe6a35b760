"""The folder of a run: four databases and a channel or where they are, logs, and what the run was started with."""

from __future__ import annotations

import fcntl
import json
import os
from dataclasses import asdict, dataclass
from hashlib import blake2b
from pathlib import Path
from urllib.parse import parse_qsl, quote, urlsplit

from headwater import ConfigurationError

from .routes import SERVICES

DATABASES = ("sqlite", "memory", "postgresql", "postgres")


@dataclass(frozen=True)
class Run:
    """What the outcome of a run depends on, and the server that has its databases: those whose names begin with `name`."""

    orders: str
    digest: str
    limit: int | None
    seed: int
    store: str = ""
    channel: str = ""
    name: str = ""


class Folder:
    """Paths in the folder of a run. `claim` it before use: one driver at a time."""

    def __init__(self, path: Path) -> None:
        self.path = path.absolute()
        self.logs = self.path / "logs"
        self.pids = self.path / "pids.json"
        self.run: Run | None = None
        self._settings = self.path / "demo.json"
        self._lock = -1

    def database(self, service: str) -> Path:
        return self.path / f"{service}.db"

    def environment(self, service: str) -> dict[str, str]:
        """Where a service keeps its log, and what carries its messages."""
        return {"HEADWATER_STORE": self.store(service), "HEADWATER_CHANNEL": self.channel()}

    def store(self, service: str) -> str:
        return self._on_server(service) if self.run and self.run.store else url(self.database(service))

    def channel(self) -> str:
        if self.run and self.run.channel:
            return with_prefix(self.run.channel, f"{self.run.name}-")
        return self._on_server("channel") if self.run and self.run.store else url(self.path / "channel.db")

    def made(self, place: str) -> bool:
        """Whether the database at a URL is one of this run alone."""
        return self.run is not None and urlsplit(place).path.startswith(f"/{self.run.name}_")

    def _on_server(self, service: str) -> str:
        assert self.run is not None
        return urlsplit(self.run.store)._replace(path=f"/{self.run.name}_{service}").geturl()

    def claim(self) -> None:
        """Make the folder if it is missing, and lock it; `release` it after use. Raises ConfigurationError."""
        try:
            self.logs.mkdir(parents=True, exist_ok=True)
            self._lock = os.open(self.path / "demo.lock", os.O_CREAT | os.O_WRONLY)
            fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise ConfigurationError(
                f"another demo is running in {self.path}: stop it, or choose another --dir"
            ) from None
        except OSError as error:
            raise ConfigurationError(f"the folder {self.path} cannot be used: {error.strerror}") from error

    def release(self) -> None:
        os.close(self._lock)

    def earlier(self) -> Run | None:
        """What the run in this folder was started with; None where there was none. Raises ConfigurationError."""
        if self._settings.exists():
            self.run = Run(**json.loads(self._settings.read_text()))
            return self.run
        if any(self.database(service).exists() for service in SERVICES):
            raise ConfigurationError(f"{self.path} has databases of something else: choose another --dir")
        return None

    def keep(self, run: Run) -> None:
        """Write down what the run was started with."""
        self.run = run
        replace(self._settings, json.dumps(asdict(run)))


def with_prefix(channel: str, prefix: str) -> str:
    """The URL of a broker with topics of this run's own, unless it says whose they are; a channel in a database needs none."""
    parts = urlsplit(channel)
    if parts.scheme in DATABASES or "prefix" in dict(parse_qsl(parts.query, keep_blank_values=True)):
        return channel
    before, mark, query = channel.partition("?")
    return f"{before}?{query}{'&' if mark and query else ''}prefix={prefix}"


def url(path: Path) -> str:
    return f"sqlite:///{quote(str(path))}"


def digest(path: Path) -> str:
    """A fingerprint of a file. Raises ConfigurationError."""
    try:
        return blake2b(path.read_bytes(), digest_size=16).hexdigest()
    except OSError as error:
        raise ConfigurationError(f"the orders file {path} cannot be read: {error.strerror}") from error


def replace(path: Path, text: str) -> None:
    """Write a file so that it is there whole or as it was."""
    beside = path.with_suffix(".new")
    beside.touch(0o600)  # a URL may hold a password
    beside.write_text(text)
    os.replace(beside, path)  # noqa: PTH105 - one call says what happens
