"""Bugs of who reads a log on a server while others write: gaps that are taken for settled, and orders that are not the log's."""

from __future__ import annotations

from contextlib import ExitStack
from typing import Any
from unittest import mock

from headwater.adapters.postgres import database
from headwater.adapters.postgres.horizon import FORWARDS, HOLDERS, Horizon
from headwater.adapters.postgres.rows import EVENT
from headwater.adapters.postgres.statement import Row, Statement
from tests.fault.plants.detectors import Rig
from tests.fault.plants.plant import Patch, Promise, planted

EVENTS = 6_000
MISSED = Rig("gap", "the reader missed", range(1, 6), slow=True, arguments=("", EVENTS))
DISORDER = Rig("gap", "out of order", range(1, 6), slow=True, arguments=("", EVENTS))
BY_XMIN = f"""
SELECT {EVENT} FROM headwater.events
WHERE position > %s AND began < pg_snapshot_xmin(pg_current_snapshot()) ORDER BY position LIMIT %s
"""
IN_ORDER_OF_XMIN = f"""
SELECT {EVENT} FROM headwater.events
WHERE (began, position) > (coalesce((SELECT began FROM headwater.events WHERE position = %s), '0'), %s)
    AND began < pg_snapshot_xmin(pg_current_snapshot()) ORDER BY began, position LIMIT %s
"""
WITH_BEGINNING = "ALTER TABLE headwater.events ADD COLUMN began xid8 NOT NULL DEFAULT pg_current_xact_id();"


@planted(Promise.NOTHING_LOST, MISSED)
def reader_after_the_last_position() -> Patch:
    """A reader on a server goes on from the highest position it saw, whoever may still write below it."""

    async def read(self: Any, after: int, limit: int) -> list[Row]:
        (found,) = await self._pool.rows(Statement(FORWARDS, (after, limit)))
        return list(found)

    return mock.patch.object(Horizon, "read", read)


@planted(Promise.NOTHING_LOST, MISSED)
def reader_below_the_oldest_transaction() -> Patch:
    """A reader on a server goes by position, up to what began before the oldest transaction that still runs."""

    async def read(self: Any, after: int, limit: int) -> list[Row]:
        (found,) = await self._pool.rows(Statement(BY_XMIN, (after, limit)))
        return list(found)

    return _by_beginning(read)


@planted(Promise.ORDER, DISORDER)
def reader_in_order_of_transactions() -> Patch:
    """A reader on a server goes by the numbers of transactions, and by position within each."""

    async def read(self: Any, after: int, limit: int) -> list[Row]:
        (found,) = await self._pool.rows(Statement(IN_ORDER_OF_XMIN, (after, after, limit)))
        return list(found)

    return _by_beginning(read)


@planted(Promise.NOTHING_LOST, MISSED)
def prepared_transactions_not_waited_for() -> Patch:
    """A reader on a server waits for processes alone: a prepared transaction has none."""
    blind = Statement(
        HOLDERS.sql.replace("pid IS DISTINCT FROM pg_backend_pid()", "pid <> pg_backend_pid()"), HOLDERS.values
    )
    return mock.patch("headwater.adapters.postgres.horizon.HOLDERS", blind)


def _by_beginning(read: Any) -> Patch:
    """Each event says which transaction wrote it, and a reader goes by that."""
    *before, last = database.MIGRATIONS
    stack = ExitStack()
    stack.enter_context(mock.patch.object(database, "MIGRATIONS", (*before, last + WITH_BEGINNING)))
    stack.enter_context(mock.patch.object(Horizon, "read", read))
    return stack
