"""What the services of the `kill` rig do not have in hand: what fails in the life of a process, and the world outside."""

from __future__ import annotations

import os
import zlib
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class Weather:
    """What fails in the life of one process."""

    salt: str
    calm: bool = False

    def fails(self, what: str, number: int | str, *, one_in: int = 12) -> bool:
        """Whether something fails for a payment, now and for as long as this process lives."""
        return not self.calm and zlib.crc32(f"{self.salt} {what} {number}".encode()) % one_in == 0


class Outside:
    """The world outside: it keeps what was done to it in a file, and knows nothing of keys."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def happen(self, number: int) -> None:
        """An effect: from here on it has happened."""
        descriptor = os.open(self.path, os.O_WRONLY | os.O_APPEND | os.O_CREAT)
        os.write(descriptor, f"{number}\n".encode())
        os.fsync(descriptor)
        os.close(descriptor)

    def happened(self) -> list[int]:
        """All effects there have been."""
        return [int(line) for line in self.path.read_text().split()] if self.path.exists() else []
