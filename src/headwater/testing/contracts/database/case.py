"""How a promise is run: a fresh database on a virtual clock in an event loop of its own."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

from headwater.database import Database
from headwater.testing.clock import VirtualClock

LONGEST = 50.0
"""Seconds of real time after which a promise counts as broken."""

Promise = Callable[[Any, Database, VirtualClock], Awaitable[None]]


class DatabaseCase:
    """The hooks by which an adapter is handed to the promises."""

    tmp_path: Path
    databases: list[Database]

    async def make(self, tmp_path: Path, clock: VirtualClock) -> Database:
        """A fresh database, opened."""
        raise NotImplementedError

    async def reopen(self, database: Database) -> Database:
        """A new handle, opened, on the data of one that died; without its `close`, where that can be had."""
        raise NotImplementedError

    async def beside(self, database: Database) -> Database:
        """Another handle, opened, on the data of one that lives, as another process has it; closed at the end of the test.

        An adapter whose data only one handle may have gives that one.
        """
        other = await self.open_beside(database)
        if other is not database:
            self.databases.append(other)
        return other

    async def open_beside(self, database: Database) -> Database:
        """The handle that `beside` gives."""
        return database

    async def commit_order(self, database: Database) -> dict[str, int] | None:
        """The places of all events, by their ids, in the order of their commits; None where nobody can tell."""
        return None

    async def pass_time(self, clock: VirtualClock, seconds: float) -> None:
        """Let so much time pass for leases; an adapter that goes by the machine's clock sleeps instead."""
        await clock.run_for(seconds)

    async def journal_of(self, database: Database) -> list[tuple[str, str, int]] | None:
        """The lines of the journal in any order; None where nobody can read it."""
        return None

    async def again(self, database: Database) -> Database:
        """Reopen, and let the new handle be closed at the end."""
        self.databases.remove(database)
        self.databases.append(await self.reopen(database))
        return self.databases[-1]


def promise(test: Promise) -> Callable[[DatabaseCase, Path], None]:
    """A test that runs a coroutine over a fresh database; its name and docstring say the promise."""

    def run(self: DatabaseCase, tmp_path: Path) -> None:
        asyncio.run(_run(self, test, tmp_path))

    run.__name__, run.__qualname__, run.__doc__ = test.__name__, test.__qualname__, test.__doc__
    run.__module__ = test.__module__
    return run


async def _run(case: DatabaseCase, test: Promise, tmp_path: Path) -> None:
    clock = VirtualClock()
    case.tmp_path = tmp_path
    case.databases = [await case.make(tmp_path, clock)]
    try:
        async with asyncio.timeout(LONGEST):
            await test(case, case.databases[0], clock)
    finally:
        for database in case.databases:
            await database.close()
