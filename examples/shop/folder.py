"""The folder of a run: four databases, a channel, logs, and what the run was started with, so that it can go on."""

from __future__ import annotations

import fcntl
import json
import os
from dataclasses import asdict, dataclass
from hashlib import blake2b
from pathlib import Path
from urllib.parse import quote

from headwater import ConfigurationError

from .routes import SERVICES


@dataclass(frozen=True)
class Run:
    """What the outcome of a run depends on."""

    orders: str
    digest: str
    limit: int | None
    seed: int


class Folder:
    """Paths in the folder of a run. `claim` it before use: one driver at a time."""

    def __init__(self, path: Path) -> None:
        self.path = path.absolute()
        self.logs = self.path / "logs"
        self.pids = self.path / "pids.json"
        self._settings = self.path / "demo.json"
        self._lock = -1

    def database(self, service: str) -> Path:
        return self.path / f"{service}.db"

    def environment(self, service: str) -> dict[str, str]:
        """Where a service keeps its log, and what carries its messages."""
        return {"HEADWATER_STORE": url(self.database(service)), "HEADWATER_CHANNEL": url(self.path / "channel.db")}

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
            return Run(**json.loads(self._settings.read_text()))
        if any(self.database(service).exists() for service in SERVICES):
            raise ConfigurationError(f"{self.path} has databases of something else: choose another --dir")
        return None

    def keep(self, run: Run) -> None:
        """Write down what the run was started with."""
        replace(self._settings, json.dumps(asdict(run)))


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
    beside.write_text(text)
    os.replace(beside, path)  # noqa: PTH105 - one call says what happens
