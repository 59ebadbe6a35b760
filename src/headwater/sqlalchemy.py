"""SQLAlchemy: events appended within your own transaction, and sessions within a handler's."""

from __future__ import annotations

import hashlib
from collections.abc import Awaitable, Iterator
from contextlib import contextmanager
from functools import cached_property
from importlib.metadata import entry_points
from typing import Any, overload
from weakref import WeakSet

from sqlalchemy import URL, Connection, Dialect, Engine, make_url
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncSession
from sqlalchemy.orm import Session, scoped_session
from sqlalchemy.pool import NullPool

from headwater.app import App
from headwater.database import Transaction, WriteSet, stands
from headwater.errors import ConfigurationError, DeclarationError, SchemaError
from headwater.message import Metadata, encode_metadata, stream_of
from headwater.outbox import Outbox as Drafting
from headwater.projection import inline_fold
from headwater.store import ANY, Append, CommandKey, Committed

__all__ = ["ConnectionLender", "Outbox", "SessionLender"]

Within = Connection | Session | scoped_session[Any]
AsyncWithin = AsyncConnection | AsyncSession


class Outbox:
    """Appends events to the log of an app within a transaction of yours: they are published once it commits, or never.

    The engine is one of the database that is the app's store: `postgresql+psycopg://…`, or `sqlite+headwater:///….db`.
    """

    def __init__(self, app: App) -> None:
        self._app = app
        self._drafting = Drafting(app.schema, app.clock, app.name)
        self._checked: WeakSet[Engine] = WeakSet()

    @overload
    def append(
        self,
        within: Within,
        key: str,
        *events: Any,
        expect: int | None = None,
        command_key: str = "",
        metadata: Metadata | None = None,
    ) -> Committed: ...

    @overload
    def append(
        self,
        within: AsyncWithin,
        key: str,
        *events: Any,
        expect: int | None = None,
        command_key: str = "",
        metadata: Metadata | None = None,
    ) -> Awaitable[Committed]: ...

    def append(
        self,
        within: Within | AsyncWithin,
        key: str,
        *events: Any,
        expect: int | None = None,
        command_key: str = "",
        metadata: Metadata | None = None,
    ) -> Committed | Awaitable[Committed]:
        """Append events of one category to the stream of `key`. The answer holds once the transaction commits.

        `expect` is the version that the stream must be at. With a `command_key` it is done once: the answer to a second time
        is `repeated`, and nothing is appended. Raises Conflict or KeyReused, after which the transaction is as it was before.
        """
        write = self._write_set(key, events, ANY if expect is None else expect, command_key, metadata)
        if isinstance(within, AsyncConnection | AsyncSession):
            return within.run_sync(lambda inner: self._append(inner, write))
        return self._append(within, write)

    def _append(self, within: Within, write: WriteSet) -> Committed:
        connection = within if isinstance(within, Connection) else within.connection()
        guest = _guest(connection.dialect.name)
        if connection.engine not in self._checked:
            guest.check(connection)
            self._checked.add(connection.engine)
        [answer] = guest.write(connection, [write], self._folds)
        return stands(answer)

    @cached_property
    def _folds(self) -> list[Any]:
        declared = self._app.declared
        inline = [one for one in declared.projections.values() if one.model.__inline__]
        return [inline_fold(one, declared.schema) for one in inline]

    def _write_set(
        self, key: str, events: tuple[Any, ...], expect: int, command_key: str, metadata: Metadata | None
    ) -> WriteSet:
        if not key or not events:
            raise SchemaError("an append names the key of its stream and has one event at least")
        if metadata and ("/" in metadata.tenant or ":" in metadata.tenant):
            raise SchemaError(f"the tenant {metadata.tenant!r} cannot name streams: it must be without / and :")
        known = metadata or Metadata(command_key or self._app.clock.new_id())
        meta = encode_metadata(known)
        [category, *others] = dict.fromkeys(self._category(event) for event in events)
        if others:
            raise DeclarationError(f"events of {category} and of {others[0]} are not of one stream: append them apart")
        drafts = [self._drafting.draft(event, meta) for event in events]
        stream = stream_of(category, key, known.tenant)
        digest = hashlib.blake2b(stream.encode(), digest_size=16)
        for draft in drafts:
            digest.update(b"\0".join((draft.type.encode(), draft.data, b"")))
        name = CommandKey(known.tenant, command_key, digest.digest(), self._app.clock.now())
        return WriteSet(appends=[Append(stream, expect, drafts)], key=name if command_key else None)

    def _category(self, event: Any) -> str:
        """The category of an event that this service may state so."""
        found, service = self._app.schema.of(type(event)), self._app.name
        name = type(event).__name__
        if found.kind != "event" or found.service != service:
            raise DeclarationError(
                f"{found.name} is a {found.kind} of {found.service}; {service} appends its own events"
            )
        if not found.category:
            raise DeclarationError(
                f"say what {name} is about, its stream is called so: class {name}(Event, category='…')"
            )
        if not self._app.declared.is_free(found.category):
            raise DeclarationError(
                f"{found.category!r} of {service} is not for {name}: send a command to what is called so, or name another category"
            )
        return f"{service}.{found.category}"


def _guest(name: str) -> Any:
    """How a database is written to within a transaction of somebody else's."""
    found = next(iter(entry_points(group="headwater.guests", name=name)), None)
    if found is None:
        raise ConfigurationError(
            f"there is no log on {name}: make the engine one of the app's store, PostgreSQL or SQLite"
        )
    return found.load()


def _dialect(url: URL) -> Dialect:
    kind: Any = url.get_dialect()
    found: Dialect = kind(dbapi=kind.import_dbapi())
    return found


class ConnectionLender:
    """Lends a handler a connection of SQLAlchemy's within its transaction."""

    def __init__(self) -> None:
        self._dialect: Dialect | None = None

    @contextmanager
    def __call__(self, transaction: Transaction) -> Iterator[Connection]:
        """The connection; what it wrote is committed or undone with the transaction, whoever else says so."""
        url = make_url(f"{transaction.dialect}+headwater://")
        known = self._dialect
        dialect = known or _dialect(url)
        pool = NullPool(lambda: transaction.connection, dialect=dialect, reset_on_return=None)
        with Engine(pool, dialect, url).connect() as connection:
            if known is None:
                dialect.initialize(connection)
                self._dialect = dialect
            yield connection


class SessionLender:
    """Lends a handler a session of SQLAlchemy's ORM within its transaction."""

    def __init__(self) -> None:
        self._connections = ConnectionLender()

    @contextmanager
    def __call__(self, transaction: Transaction) -> Iterator[Session]:
        """The session; it is flushed at the end. What it commits or rolls back itself is a part of the transaction."""
        with self._connections(transaction) as connection:
            connection.get_transaction() or connection.begin()
            with Session(connection, join_transaction_mode="create_savepoint") as session:
                yield session
                session.commit()
