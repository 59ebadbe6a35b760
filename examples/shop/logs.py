"""The logs and journals of the services as one who looks from outside sees them, wherever they are kept."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol

from headwater.errors import MissingExtra

from .folder import Folder

Kind = tuple[str, str, str, str]
"""Of messages: whose log, kind, category and type."""


@dataclass(frozen=True)
class Counts:
    """How many messages of each kind are logged, each consumer has taken, and are held for each reason."""

    logged: Counter[Kind] = field(default_factory=Counter)
    taken: Counter[str] = field(default_factory=Counter)
    held: Counter[str] = field(default_factory=Counter)


class Logs(Protocol):
    """What can be asked of them."""

    def count(self) -> Counts:
        """All there is so far; journals are read before logs, so that no message hides between the two."""
        ...

    def placed(self) -> set[int]:
        """The ids of the orders that are in the log."""
        ...

    def books(self) -> Path:
        """A folder with an SQLite file a service, for the ledger."""
        ...

    def make(self) -> None:
        """Make what the services need to start; nothing happens to what is there."""
        ...

    def remove(self) -> None:
        """Remove what lies outside the folder."""
        ...

    def close(self) -> None: ...


def logs_of(folder: Folder) -> Logs:
    """The logs of a run. Raises MissingExtra."""
    from .files import Files  # noqa: PLC0415 - each imports what it needs

    if folder.run is None or not folder.run.store:
        return Files(folder)
    try:
        from .server import Server  # noqa: PLC0415 - only who asks for a server needs its library
    except ImportError as error:
        raise MissingExtra(
            f"postgresql:// needs {error.name}, which is not installed; run: pip install 'headwater[postgres]'"
        ) from error
    return Server(folder)
