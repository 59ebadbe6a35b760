"""What a database does: reads, one way to commit write sets, and an interactive transaction for free SQL."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import AbstractAsyncContextManager
from typing import Any, Protocol

from msgspec import Struct

from headwater.checkpoint import Checkpoints
from headwater.database.writes import Answer, WriteSet
from headwater.inbox import Inbox
from headwater.lease import Leases
from headwater.message import Recorded
from headwater.store import Store
from headwater.table import Table, Tables, Upsert
from headwater.timer import Timers


class Capabilities(Struct, frozen=True):
    """What a database can do beyond the contract: `sql` (interactive SQL), `durable` (survives the process)."""

    sql: bool
    durable: bool


class InlineFold(Struct, frozen=True):
    """A read model folded inside the commit: which rows some messages touch, and what the rows become."""

    table: Table
    keys: Callable[[Sequence[Recorded]], list[tuple[Any, ...]]]
    fold: Callable[[dict[tuple[Any, ...], tuple[Any, ...]], Sequence[Recorded]], Upsert]


class Transaction(Protocol):
    """An open transaction of the service's database. Ask for it by annotation in a handler that writes its own rows.

    `dialect` is the SQL that it speaks: `postgresql` or `sqlite`.
    """

    @property
    def dialect(self) -> str: ...  # noqa: D102 - see above

    @property
    def connection(self) -> Any:
        """The connection to use within the transaction, and never after it: psycopg's, or a DB-API one to the SQLite file."""
        ...

    def execute(self, sql: str, parameters: Sequence[object] = ()) -> list[tuple[Any, ...]]:
        """Run one SQL statement and give its rows."""
        ...

    def savepoint(self) -> AbstractAsyncContextManager[None]:
        """A part of the transaction that is undone when its block raises."""
        ...

    def write(self, writes: Sequence[WriteSet]) -> list[Answer]:
        """Judge and write sets within this transaction; the answers hold once it commits."""
        ...


class Database(Store, Inbox, Checkpoints, Timers, Leases, Tables, Protocol):
    """A service's own database. All parts of a commit live in it."""

    capabilities: Capabilities

    async def open(self) -> None:
        """Connect; make or check the schema. Raises ConfigurationError or DatabaseError."""
        ...

    async def close(self) -> None:
        """Finish what is under way and let go of everything."""
        ...

    async def commit(self, writes: Sequence[WriteSet]) -> list[Answer]:
        """Decide which sets stand, write them in one durable transaction, and answer each in order.

        If the transaction fails, each set is tried alone. An error of the disk at COMMIT is `Unknown` for all of them.
        """
        ...

    def transaction(self) -> AbstractAsyncContextManager[Transaction]:
        """An interactive transaction; commits at the end of the block, is undone if the block raises."""
        ...

    def fold_inline(self, folds: Sequence[InlineFold]) -> None:
        """Fold these read models inside every commit from now on."""
        ...

    async def changed(self, after: int, timeout: float) -> bool:
        """Wait until the log has a position above `after`, at most `timeout` seconds; whether it has."""
        ...
