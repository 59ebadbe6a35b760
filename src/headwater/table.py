"""Tables of read models: plain typed columns that any tool can query."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Protocol

from msgspec import Struct


class Column(Struct, frozen=True, gc=False):
    """A column: its name and its type, one of `text`, `integer`, `real`, `boolean`, `bytes`, `json`."""

    name: str
    type: str


class Table(Struct, frozen=True, gc=False):
    """A table of a read model; the first `keys` columns are its primary key."""

    name: str
    columns: Sequence[Column]
    keys: int = 1
    version: int = 1

    @property
    def names(self) -> tuple[str, ...]:
        """The column names in order."""
        return tuple(column.name for column in self.columns)


class Upsert(Struct, frozen=True, gc=False):
    """Rows to write and keys to delete in a table; a row is a tuple in column order, a key a tuple of the key columns."""

    table: Table
    rows: Sequence[tuple[Any, ...]]
    deleted: Sequence[tuple[Any, ...]] = ()


def turn_of(reader: str) -> str:
    """The name of a checkpoint that moves with every change to the rows of a reader's table that the reader did not make."""
    return f"{reader}/turn"


class Tables(Protocol):
    """Reads and makes the tables of read models."""

    async def create_table(self, table: Table) -> None:
        """Make the table if it is missing; refuses one with other columns, and says to rebuild."""
        ...

    async def rows(self, table: Table, keys: Sequence[tuple[Any, ...]]) -> dict[tuple[Any, ...], tuple[Any, ...]]:
        """The rows of those keys that exist."""
        ...

    async def find(self, table: Table, where: Mapping[str, Any], limit: int) -> list[tuple[Any, ...]]:
        """Rows whose columns equal the values, in key order."""
        ...

    async def swap_table(self, built: Table, live: Table, reader: str, built_reader: str, expect: int) -> bool:
        """Put `built` in the place of `live`, and the checkpoint of `built_reader` in that of `reader`, in one transaction.

        Only if both readers stand at `expect`; no `reader` (empty) means a table that is folded inline, which stands where
        the log ends. The old table is dropped, and the turn of `reader` moves: what it folded on the old rows falls.
        """
        ...

    async def drop_table(self, table: Table) -> None:
        """Remove a table if it is there."""
        ...
