"""What an operator does with a database as such: make, upgrade, look, verify, back up; where its adapter can."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final, Protocol, cast

from headwater.database import Database
from headwater.operations.refusal import NotPossible

NEEDED: Final = ("backup", "verify", "query", "status", "statements")


class Upkeep(Protocol):
    """What an adapter offers for operators. All but `open` work on a database that is not open."""

    async def open(self, *, upgrade: bool = False) -> None:
        """Make it if it is missing; `upgrade` the tables that an older Headwater made."""
        ...

    async def close(self) -> None:
        """Let go of it."""
        ...

    async def backup(self, target: str | Path) -> None:
        """Copy it, as it is now, to a new file."""
        ...

    async def verify(self) -> list[str]:
        """What is wrong with it, in words."""
        ...

    async def query(self, sql: str, parameters: Sequence[Any] = ()) -> list[tuple[Any, ...]]:
        """The rows of a statement that cannot write."""
        ...

    async def status(self) -> dict[str, object]:
        """Its figures."""
        ...

    async def statements(self) -> list[str]:
        """The SQL of its tables."""
        ...


def upkeep_of(database: Database) -> Upkeep:
    """The database as an operator keeps it up. Raises NotPossible where its adapter offers nothing."""
    if not all(hasattr(database, name) for name in NEEDED):
        raise NotPossible(f"{type(database).__name__} has nothing to keep up: it is gone with its process")
    return cast(Upkeep, database)
