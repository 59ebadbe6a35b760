"""Write sets within a transaction of somebody else's, on a connection of SQLAlchemy's, whatever its driver."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import count
from typing import Any, Final

from sqlalchemy import Connection
from sqlalchemy.exc import DBAPIError

from headwater.adapters.postgres.faults import AGAIN
from headwater.adapters.postgres.migrations import THERE, versions
from headwater.adapters.postgres.schema import COMPONENT, MIGRATIONS
from headwater.adapters.postgres.statement import Plan, Result, Row, Statement
from headwater.adapters.postgres.text import escaped, plain
from headwater.adapters.postgres.writes import writing
from headwater.database import Answer, InlineFold, WriteSet
from headwater.errors import ConfigurationError, Conflict, SchemaMismatch

OUTSIDE: Final = "25P01"
"""A savepoint was asked for where no transaction is open."""


def check(connection: Connection) -> None:
    """Refuse an engine by which nothing can be appended. Raises ConfigurationError."""
    place = connection.engine.url.render_as_string()
    version = _driven(connection, _version())
    if not version:
        raise ConfigurationError(f"{place} has no log: run `headwater db init` for it, or start the app once")
    if version != len(MIGRATIONS):
        raise SchemaMismatch(f"{place} is at version {version} of {len(MIGRATIONS)}: run `headwater db upgrade`")


def write(connection: Connection, writes: Sequence[WriteSet], folds: Sequence[InlineFold]) -> list[Answer]:
    """Judge and write sets; the answers hold once the transaction commits. Raises Conflict where it must be run again."""
    try:
        with connection.begin_nested():
            return _driven(connection, writing(writes, folds))
    except DBAPIError as error:
        code = getattr(error.orig, "sqlstate", None) or getattr(error.orig, "pgcode", None)
        if code in AGAIN:
            raise Conflict("another transaction was faster: run yours again") from None
        if code == OUTSIDE:
            raise ConfigurationError(
                "the engine is in AUTOCOMMIT, which has no transaction: leave isolation_level away"
            ) from None
        raise


def _version() -> Plan[int]:
    (((there,),),) = yield [THERE]
    return (yield from versions()).get(COMPONENT, 0) if there else 0


def _driven(connection: Connection, plan: Plan[Result]) -> Result:
    try:
        step = next(plan)
        while True:
            step = plan.send([_rows(connection, statement) for statement in step])
    except StopIteration as end:
        result: Result = end.value
        return result


def _rows(connection: Connection, statement: Statement) -> list[Row]:
    sql, values = statement.sql, tuple(escaped(statement.values) or ())
    if connection.dialect.paramstyle == "numeric_dollar":
        sql = _numbered(sql, values)
    found = connection.exec_driver_sql(sql, values or None)
    return plain([tuple(map(_value, row)) for row in found]) if found.returns_rows else []


def _numbered(sql: str, values: Sequence[Any]) -> str:
    """The statement as asyncpg takes it: an array that is written as text has to be called one."""
    first, *rest = sql.split("%s")
    parts = zip(count(1), values, rest, strict=False)
    return first + "".join(f"${n}{'::text' if isinstance(value, str) else ''}{part}" for n, value, part in parts)


def _value(value: Any) -> Any:
    return bytes(value) if isinstance(value, memoryview) else value
