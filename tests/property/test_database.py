"""Whatever is done to a database, it does as the model does; and the machine sees bugs that are planted."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from typing import Any
from unittest import mock

import apsw
import pytest
from msgspec.structs import replace

from headwater.adapters.sqlite import writes
from headwater.adapters.sqlite.transaction import SqliteTransaction
from headwater.database import Facts, Judgement, WriteSet, judge
from headwater.testing.contracts.properties import DatabaseProperties
from tests.contract import test_database_memory, test_database_sqlite

pytestmark = pytest.mark.timeout(400)  # what fails is made short, which takes a while


class TestMemoryDatabase(DatabaseProperties):
    examples = 20
    make = test_database_memory.TestMemoryDatabase.make
    reopen = test_database_memory.TestMemoryDatabase.reopen


class TestSqliteDatabase(DatabaseProperties):
    examples = 40
    make = test_database_sqlite.TestSqliteDatabase.make
    reopen = test_database_sqlite.TestSqliteDatabase.reopen


# --- bugs, each planted from outside ---

Plant = AbstractContextManager[Any]


def judging(changed: Callable[[WriteSet], WriteSet]) -> Plant:
    def judged(sets: Sequence[WriteSet], facts: Facts) -> Judgement:
        return judge([changed(one) for one in sets], facts)

    return mock.patch.object(writes, "judge", judged)


def without(**parts: Any) -> Plant:
    """Sets are judged and written as if they had not these parts."""
    return judging(lambda one: replace(one, **parts))


def half_written() -> Plant:
    """Of a set that fell, what is no message is written."""

    def judged(sets: Sequence[WriteSet], facts: Facts) -> Judgement:
        result = judge(sets, facts)
        result.standing = list(sets)
        return result

    return mock.patch.object(writes, "judge", judged)


def overwriting() -> Plant:
    """A message takes the place of the one before it in its stream."""
    write_log = writes._write_log

    def overwrite(connection: apsw.Connection, judged: Judgement) -> None:
        write_log(connection, judged)
        for one in judged.recorded[-1:]:
            connection.execute("DELETE FROM events WHERE stream = ? AND version = ?", (one.stream, one.version - 1))

    return mock.patch.object(writes, "_write_log", overwrite)


def statement(name: str, sql: str) -> Plant:
    return mock.patch.object(writes, name, sql)


def without_tags() -> Plant:
    return mock.patch.object(writes, "tag_rows", lambda judged: [])


def kept_savepoint() -> Plant:
    """What was written within a savepoint that is undone, stays."""
    execute = SqliteTransaction.execute

    def executed(self: SqliteTransaction, sql: str, parameters: Sequence[Any] = ()) -> list[tuple[Any, ...]]:
        return execute(self, sql.replace("ROLLBACK TO part; ", ""), parameters)

    return mock.patch.object(SqliteTransaction, "execute", executed)


PLANTS: dict[str, Callable[[], Plant]] = {
    "a set that fell is half written": half_written,
    "an append overwrites": overwriting,
    "a release is lost": lambda: statement("RELEASE", "SELECT value FROM json_each(?)"),
    "a fence does not matter": lambda: without(fence=None),
    "the command before does not matter": lambda: without(after=None),
    "a command key is not kept": lambda: without(key=None),
    "a savepoint is not undone": kept_savepoint,
    "a condition does not matter": lambda: without(conditions=()),
    "tags are not kept": without_tags,
}


@pytest.mark.parametrize("plant", PLANTS)
def test_the_machine_sees(plant: str) -> None:
    case = TestSqliteDatabase()
    case.examples, case.shrink = 200, False
    with PLANTS[plant](), pytest.raises((AssertionError, ExceptionGroup)):
        case.test_it_does_as_the_model_does()
