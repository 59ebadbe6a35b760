"""Write sets within a transaction of somebody else's, on a connection of SQLAlchemy's."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import Any

import apsw
from sqlalchemy import Connection

from headwater.adapters.sqlite import dbapi
from headwater.adapters.sqlite.migrations import version_of
from headwater.adapters.sqlite.schema import COMPONENT, MIGRATIONS
from headwater.adapters.sqlite.writes import commit
from headwater.database import Answer, InlineFold, WriteSet
from headwater.errors import ConfigurationError, SchemaMismatch


def check(connection: Connection) -> None:
    """Refuse an engine by which nothing can be appended. Raises ConfigurationError."""
    mine = _driver(connection)
    if mine.autocommit:
        raise ConfigurationError("the engine is in AUTOCOMMIT, which has no transaction: leave isolation_level away")
    version = mine.run(partial(version_of, component=COMPONENT))
    if not version:
        raise ConfigurationError(
            f"{connection.engine.url} has no log: run `headwater db init` for it, or start the app once"
        )
    if version != len(MIGRATIONS):
        raise SchemaMismatch(
            f"{connection.engine.url} is at version {version} of {len(MIGRATIONS)}: run `headwater db upgrade`"
        )


def write(connection: Connection, writes: Sequence[WriteSet], folds: Sequence[InlineFold]) -> list[Answer]:
    """Judge and write sets; the answers hold once the transaction commits."""
    mine = _driver(connection)
    answers: list[Answer] = mine.run(partial(_written, writes=writes, folds=folds))
    mine.grown = True
    return answers


def _written(connection: apsw.Connection, writes: Sequence[WriteSet], folds: Sequence[InlineFold]) -> list[Answer]:
    answers: list[Answer] = []
    with connection:  # a savepoint
        answers += commit(connection, writes, folds)
    return answers


def _driver(connection: Connection) -> Any:
    mine: Any = connection.connection.dbapi_connection
    if not isinstance(mine, dbapi.Connection):
        raise ConfigurationError(
            f"{connection.dialect.driver} brings another copy of SQLite, and two in one process lose writes: "
            "make the engine with sqlite+headwater:///… instead"
        )
    return mine
