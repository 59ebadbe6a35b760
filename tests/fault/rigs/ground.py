"""Where the services of a rig keep their data, and how it is seen from outside: SQLite files, or databases of a server.

A folder stands for either: if it names databases, they are on PostgreSQL.
"""

from __future__ import annotations

import json
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Protocol

import apsw
import psycopg

from headwater.adapters.postgres.server import Server
from headwater.adapters.postgres.upkeep import verify
from headwater.adapters.postgres.url import Place
from tests.fault.rigs.on_server import fresh_databases
from tests.servers.postgres import PostgresServer

URLS = "urls.json"
AWAY = 20.0
"""Seconds for which a server may be away."""
PATH = "-c search_path=public,headwater,headwater_channel"
EVENTS = """WITH events AS (
SELECT position, stream, version, kind, type, convert_from(data, 'UTF8')::jsonb AS data FROM headwater.events
)"""
MESSAGES = """WITH messages AS (
SELECT position, topic, for_group, convert_from(key, 'UTF8') AS key, convert_from(headers, 'UTF8')::jsonb AS headers, body
FROM headwater_channel.messages
)"""


class Ground(Protocol):
    """The data of some services and of their channel, by their names."""

    on_server: bool

    def url(self, name: str) -> str:
        """The URL of a database, or of the `channel`."""
        ...

    def rows(self, name: str, sql: str) -> list[tuple[Any, ...]]:
        """Ask a database, or the `channel`, in SQLite's words."""
        ...

    def damage(self, name: str) -> list[str]:
        """What the database itself finds to be wrong with it."""
        ...


def ground(folder: Path) -> Ground:
    """The ground that a folder stands for."""
    urls = folder / URLS
    return Databases(json.loads(urls.read_text())) if urls.exists() else Files(folder)


@contextmanager
def on_server(folder: Path, store: str, names: Sequence[str]) -> Iterator[PostgresServer | None]:
    """Have a folder name databases of the server at `store`, or of one that is started meanwhile: that one is given."""
    with fresh_databases(store) as databases:
        (folder / URLS).write_text(json.dumps({name: databases.make() for name in names}))
        yield databases.server


class Files:
    """SQLite files in a folder."""

    on_server = False

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def url(self, name: str) -> str:
        return f"sqlite:///{self._folder / name}.db"

    def rows(self, name: str, sql: str) -> list[tuple[Any, ...]]:
        connection = apsw.Connection(str(self._folder / f"{name}.db"), flags=apsw.SQLITE_OPEN_READWRITE)
        connection.set_busy_timeout(5_000)
        try:
            return connection.execute(sql).fetchall()
        finally:
            connection.close()

    def damage(self, name: str) -> list[str]:
        return [line for (line,) in self.rows(name, "PRAGMA integrity_check") if line != "ok"]


class Databases:
    """Databases of a PostgreSQL server, which may be away for a while."""

    on_server = True

    def __init__(self, urls: dict[str, str]) -> None:
        self._urls = urls

    def url(self, name: str) -> str:
        return self._urls[name]

    def rows(self, name: str, sql: str) -> list[tuple[Any, ...]]:
        end = time.monotonic() + AWAY
        while True:
            try:
                with psycopg.connect(self.url(name), autocommit=True, options=PATH) as connection:
                    return connection.execute(_in_words_of_postgres(name, sql)).fetchall()
            except psycopg.OperationalError:
                if time.monotonic() > end:
                    raise
                time.sleep(0.05)

    def damage(self, name: str) -> list[str]:
        return verify(Server(Place(self.url(name))))


def _in_words_of_postgres(name: str, sql: str) -> Any:
    """With data as JSON, whose numbers are numbers: `->>` would give text."""
    return f"{MESSAGES if name == 'channel' else EVENTS} {sql.replace('data ->>', 'data ->')}"
