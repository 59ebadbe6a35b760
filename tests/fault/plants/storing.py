"""Bugs of the database file: what is not synced, half written, or answered too soon."""

from __future__ import annotations

import time
from collections.abc import Sequence
from contextlib import asynccontextmanager
from typing import Any
from unittest import mock

import apsw

from headwater import fault
from headwater.adapters.memory import database as memory_database
from headwater.adapters.memory import writing
from headwater.adapters.postgres import database as postgres_database
from headwater.adapters.postgres import writes as postgres_writes
from headwater.adapters.sqlite import SqliteDatabase, session, tables, writer, writes
from headwater.adapters.sqlite import database as sqlite_database
from headwater.adapters.sqlite.file import PRAGMAS, File
from headwater.adapters.sqlite.lock import FileLock
from headwater.adapters.sqlite.session import Session
from headwater.adapters.sqlite.tables import fold_rows
from headwater.adapters.sqlite.transaction import SqliteTransaction
from headwater.adapters.sqlite.writer import Writer
from headwater.database import Collision, Facts, Judgement, WriteSet, judge
from headwater.errors import Unknown
from tests.fault.plants.detectors import Rig, Suite, kill
from tests.fault.plants.plant import Patch, Promise, patched, planted

CONTRACT = "tests/contract/test_database_sqlite.py::TestSqliteDatabase::"
WRITER = "tests/contract/test_sqlite_writer.py::"


@planted(Promise.DURABLE, Rig("power", "is lost|comes 0 times", range(1, 5)))
def normal_instead_of_full() -> Patch:
    """Commits are not synced, only checkpoints are."""
    return mock.patch.dict(PRAGMAS, synchronous=1)


@planted(
    Promise.DURABLE,
    Suite(f"{WRITER}test_an_error_of_the_disk_at_commit_is_unknown_for_all"),
    Rig("power", "lost", range(2, 6, 2)),
    kill("sqlite.written", "was read as|lost|acknowledged"),
)
def group_commit_answers_before_commit() -> Patch:
    """Callers are told their results while the transaction is open."""

    def write(self: Any, group: Sequence[Any]) -> None:
        with self._turn:
            connection = self._session.begin()
            try:
                for ticket in group:
                    results = list(self._work(connection, ticket.requests))
                    writer._answer(ticket.loop, [(ticket.future, results)])
                time.sleep(0.002)
                fault.point("sqlite.written")
                self._session.commit(connection)
            except Unknown:
                pass  # they have been answered
            finally:
                self._session.end(connection)

    return mock.patch.multiple(Writer, _write=write, _write_here=lambda self, ticket: None)


@planted(Promise.DURABLE, Suite("tests/contract/test_sqlite_file.py::test_a_forked_child_is_refused"))
def fork_with_an_open_connection() -> Patch:
    """A forked child goes on with the connections of its parent."""
    return mock.patch.object(File, "check", lambda self: None)


@planted(
    Promise.THREE_VALUED,
    Suite("tests/contract/test_sqlite_database.py::test_a_program_that_does_not_take_our_lock_is_waited_for"),
)
def deferred_begin() -> Patch:
    """A transaction begins by reading, and may find that it cannot write any more."""

    def begin(connection: apsw.Connection, *, wait: bool) -> None:
        connection.execute("BEGIN DEFERRED")

    return mock.patch.object(session, "_begin", begin)


@planted(Promise.THREE_VALUED, Suite(f"{WRITER}test_a_writer_has_the_lock_of_its_file_for_as_long_as_its_transaction"))
def lock_file_not_taken() -> Patch:
    """Writers of several processes meet in SQLite's busy handler, which sleeps and gives up."""
    take = FileLock.take

    def taken(self: FileLock, *, wait: bool = False) -> bool:
        return wait or take(self)

    return mock.patch.object(FileLock, "take", taken)


@planted(Promise.THREE_VALUED, Suite(f"{WRITER}test_an_error_of_the_disk_at_commit_is_unknown_for_all"))
def unknown_commit_tried_again() -> Patch:
    """A COMMIT whose outcome is not known is taken for one that failed."""

    def commit(self: Any, connection: apsw.Connection) -> None:
        connection.execute("COMMIT")

    return mock.patch.object(Session, "commit", commit)


@planted(
    Promise.ATOMIC,
    Suite(f"{CONTRACT}test_of_a_set_that_falls_nothing_is_written"),
    Rig("simulate", "neither done nor held|come to rest"),
    everywhere=True,
)
def fallen_set_half_written() -> Patch:
    """Of a set that does not stand, what concerns the inbox is written all the same."""

    def half(sets: Sequence[WriteSet], facts: Facts) -> Judgement:
        result = judge(sets, facts)
        for write, answer in zip(sets, result.answers, strict=True):
            if isinstance(answer, Collision):
                result.standing.append(WriteSet(marks=write.marks, checkpoints=write.checkpoints))
        return result

    return patched("judge", half, writes, writing, postgres_writes)


@planted(Promise.ATOMIC, Suite(f"{CONTRACT}test_a_fold_that_raises_fells_the_guilty_set_alone"))
def inline_read_model_after_the_commit() -> Patch:
    """An inline read model is folded in a transaction of its own, after the events."""

    def fold_after(connection: apsw.Connection, *fold: Any) -> None:
        connection.execute("COMMIT")
        connection.execute("BEGIN IMMEDIATE")
        fold_rows(connection, *fold)

    return mock.patch.object(writes, "fold_rows", fold_after)


@planted(Promise.ATOMIC, Suite(f"{CONTRACT}test_a_savepoint_undoes_sql"))
def failed_message_keeps_its_rows() -> Patch:
    """What a handler wrote before it failed is committed with the rest of its batch."""

    @asynccontextmanager
    async def savepoint(self: Any) -> Any:
        yield

    return mock.patch.object(SqliteTransaction, "savepoint", savepoint)


@planted(Promise.THREE_VALUED, Rig("disk", "Unknown", range(1, 4), slow=True))
def full_disk_leaves_the_outcome_unknown() -> Patch:
    """A commit that finds no space is answered as if it might have been written."""
    return mock.patch.object(session, "CERTAIN", (apsw.BusyError, apsw.ConstraintError))


@planted(Promise.ATOMIC, Suite(f"{CONTRACT}test_readers_that_stand_elsewhere_change_nothing"))
def rebuilt_read_model_swapped_unseen() -> Patch:
    """A read model that was built anew takes its place wherever the two readers are."""

    async def swap(self: Any, built: Any, live: Any, *_: Any) -> bool:
        async with self._writing() as connection:
            tables.swap(connection, built, live)
        return True

    return mock.patch.object(SqliteDatabase, "swap_table", swap)


@planted(
    Promise.EFFECT_ONCE,
    Suite(f"{CONTRACT}test_what_the_reader_folded_on_the_old_rows_falls"),
    Suite(
        "tests/flow/test_read_models.py::"
        "test_a_batch_that_was_folded_on_the_old_rows_is_folded_again_on_the_rebuilt_ones"
    ),
    everywhere=True,
)
def rebuilt_read_model_swapped_under_a_batch() -> Patch:
    """A batch that was folded on the old rows is written over the rebuilt ones."""
    return patched("turn_of", lambda _: "another", memory_database, sqlite_database, postgres_database)
