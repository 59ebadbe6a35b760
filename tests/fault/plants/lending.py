"""Bugs of what is written within somebody's own transaction: it is written outside of it, or is dropped."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any
from unittest import mock

from sqlalchemy.orm import Session

from headwater import sqlalchemy
from headwater.adapters.postgres import guest as postgres_guest
from headwater.adapters.sqlite import dbapi
from headwater.adapters.sqlite import guest as sqlite_guest
from headwater.sqlalchemy import SessionLender
from tests.fault.plants.detectors import Suite
from tests.fault.plants.plant import Patch, Promise, patched, planted

OUTBOX = "tests/flow/test_sqlalchemy.py::"
LENT = "tests/flow/test_lent.py::"
UNDONE = f"{OUTBOX}test_what_is_rolled_back_leaves_neither_rows_nor_events"


@planted(
    Promise.ATOMIC,
    Suite(f"{UNDONE}[sqlite+headwater]"),
    Suite(f"{OUTBOX}test_a_process_that_dies_around_its_commit_leaves_both_or_neither[before-sqlite+headwater]"),
)
def events_are_committed_at_once() -> Patch:
    """Events in a caller's transaction on SQLite are committed as they are appended, with what the caller has written so far."""
    write = sqlite_guest.write

    def written(connection: Any, *rest: Any) -> Any:
        answers = write(connection, *rest)
        connection.connection.dbapi_connection.commit()
        return answers

    return patched("write", written, sqlite_guest)


@planted(
    Promise.ATOMIC,
    Suite(f"{UNDONE}[postgresql+psycopg]", slow=True),
    Suite(f"{UNDONE}[postgresql+asyncpg async]", slow=True),
)
def append_outside_of_the_callers_transaction() -> Patch:
    """Events in a caller's transaction on PostgreSQL are appended on another connection of its engine."""
    write = postgres_guest.write

    def written(connection: Any, *rest: Any) -> Any:
        with connection.engine.begin() as another:
            return write(another, *rest)

    return patched("write", written, postgres_guest)


@planted(
    Promise.NO_WINDOW, Suite(f"{OUTBOX}test_a_command_key_is_done_once_and_kept_with_the_transaction[sqlite+headwater]")
)
def appends_forget_their_command_key() -> Patch:
    """Appends in a caller's transaction are made without their command key."""
    return mock.patch.object(sqlalchemy, "CommandKey", lambda *_: None)


@planted(
    Promise.NOTHING_LOST,
    Suite(
        f"{OUTBOX}test_beside_headwaters_own_writers_a_reader_sees_every_event_once_and_in_order[sqlite+headwater]",
        "database is locked",
        slow=True,
    ),
)
def a_transaction_of_sqlalchemys_takes_no_turn() -> Patch:
    """A transaction by SQLAlchemy on SQLite begins to write when its first change comes, having read before that."""

    @contextmanager
    def begun(self: Any) -> Iterator[Any]:
        if self._writing is None:
            self._writing = self._session._connection
            self._writing.execute("BEGIN")
        yield self._writing

    return mock.patch.object(dbapi.FileConnection, "_begun", begun)


@planted(Promise.ATOMIC, Suite(f"{LENT}test_rows_are_written_with_the_marks[sqlite-Session-remark]"))
def rows_of_a_session_are_dropped() -> Patch:
    """A handler's session is closed, and never flushed."""

    @contextmanager
    def lend(self: SessionLender, transaction: Any) -> Iterator[Session]:
        with self._connections(transaction) as connection, Session(connection) as session:
            yield session

    return mock.patch.object(SessionLender, "__call__", lend)


@planted(
    Promise.ATOMIC, Suite(f"{LENT}test_what_a_handler_rolls_back_itself_is_undone_and_its_message_is_done[sqlite]")
)
def a_handlers_rollback_undoes_nothing() -> Patch:
    """A handler's session has no savepoint, and its transaction is not its own to undo."""
    return mock.patch.object(sqlalchemy, "Session", lambda connection, **_: Session(connection))
