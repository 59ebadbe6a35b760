"""SQLAlchemy's dialect `sqlite+headwater:///file.db`, for `create_engine` and `create_async_engine`."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from types import ModuleType
from typing import Any, TypeVar

import apsw
from sqlalchemy import URL
from sqlalchemy.dialects.sqlite.base import SQLiteDialect
from sqlalchemy.exc import ArgumentError
from sqlalchemy.pool import AsyncAdaptedQueuePool, Pool, QueuePool
from sqlalchemy.util import await_only

from headwater.adapters.sqlite import dbapi
from headwater.adapters.sqlite.file import File

Result = TypeVar("Result")


class Dialect(SQLiteDialect):
    """SQLite by apsw. A transaction is one of the writers of its file, one after another, from its first statement on."""

    driver = "headwater"
    supports_statement_cache = True
    default_paramstyle = "qmark"

    @classmethod
    def import_dbapi(cls) -> ModuleType:
        return dbapi

    @classmethod
    def get_pool_class(cls, url: URL) -> type[Pool]:
        return QueuePool

    @classmethod
    def get_async_dialect_cls(cls, url: URL) -> type[Dialect]:
        return AsyncDialect

    def create_connect_args(self, url: URL) -> tuple[list[str], dict[str, Any]]:
        if not url.database or url.database == ":memory:" or url.host or url.query:
            raise ArgumentError(
                "sqlite+headwater names a file and nothing else: write sqlite+headwater:///relative/path.db or "
                "sqlite+headwater:////absolute/path.db"
            )
        return [url.database], {}

    def get_isolation_level_values(self, dbapi_connection: Any) -> list[Any]:
        return ["SERIALIZABLE", "AUTOCOMMIT"]

    def get_isolation_level(self, dbapi_connection: Any) -> Any:
        return "AUTOCOMMIT" if dbapi_connection.autocommit else "SERIALIZABLE"

    def set_isolation_level(self, dbapi_connection: Any, level: str) -> None:
        dbapi_connection.autocommit = level == "AUTOCOMMIT"

    def get_default_isolation_level(self, dbapi_conn: Any) -> Any:
        return "SERIALIZABLE"


class AsyncDialect(Dialect):
    """The same for SQLAlchemy's asyncio."""

    is_async = True
    supports_statement_cache = True

    @classmethod
    def get_pool_class(cls, url: URL) -> type[Pool]:
        return AsyncAdaptedQueuePool

    def connect(self, *arguments: Any, **options: Any) -> Any:
        return AwaitedConnection(File(arguments[0]))


class AwaitedConnection(dbapi.Connection):
    """A connection that works in a thread of its own, one thing after another, while the loop goes on."""

    def __init__(self, file: File) -> None:
        self._thread = ThreadPoolExecutor(1, thread_name_prefix=f"headwater {file.path.name}")
        self._inner: dbapi.FileConnection = self._there(partial(dbapi.FileConnection, file))

    def _there(self, work: Callable[[], Result]) -> Result:
        return await_only(asyncio.get_running_loop().run_in_executor(self._thread, work))

    def run(self, work: Callable[[apsw.Connection], Result]) -> Result:
        return self._there(partial(self._inner.run, work))

    @property
    def grown(self) -> bool:
        return self._inner.grown

    @grown.setter
    def grown(self, value: bool) -> None:
        self._inner.grown = value

    @property
    def autocommit(self) -> bool:
        return self._inner.autocommit

    @autocommit.setter
    def autocommit(self, value: bool) -> None:
        self._there(partial(setattr, self._inner, "autocommit", value))

    def commit(self) -> None:
        self._there(self._inner.commit)

    def rollback(self) -> None:
        self._there(self._inner.rollback)

    def close(self) -> None:
        self._there(self._inner.close)
        self._thread.shutdown(wait=False)
