"""The server of a run, and the databases that the works take from it: fsync on, everything in its usual mode."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from uuid import uuid4

import psycopg
from psycopg import sql

from tests.servers.postgres import Databases, PostgresServer, install

SETTINGS = {
    "shared_buffers": "256MB",
    "max_wal_size": "8GB",  # no checkpoint of the server's own falls into a round
    "checkpoint_timeout": "30min",
    "shared_preload_libraries": "pg_stat_statements",
    "pg_stat_statements.track": "none",  # W7 turns it on for its own databases
}
DURABLE = ("fsync", "synchronous_commit", "full_page_writes")
SIZE = "SELECT pg_database_size(current_database())"


@dataclass
class Server:
    """Where databases are made. `logs`: the filled ones of this run by subject and size."""

    databases: Databases
    own: PostgresServer | None = None
    logs: dict[tuple[str, int], str] = field(default_factory=dict)

    @contextmanager
    def fresh(self, template: str = "") -> Iterator[str]:
        """The URL of a new database, empty or a copy of another one, for one measurement."""
        url = self.make(template)
        try:
            yield url
        finally:
            self.drop(url)

    def drop(self, url: str) -> None:
        """Drop a database, whoever is connected to it."""
        self.databases.run(sql.SQL("DROP DATABASE {} WITH (FORCE)").format(sql.Identifier(name_of(url))))

    def make(self, template: str = "") -> str:
        """The URL of a new database; all of it is on disk, so that nothing measured shares the disk with it."""
        name = f"bench_{uuid4().hex[:12]}"
        source = sql.Identifier(name_of(template) if template else "template1")
        self.databases.run(sql.SQL("CREATE DATABASE {} TEMPLATE {}").format(sql.Identifier(name), source))
        self.databases.run("CHECKPOINT")
        return self.databases.url(name)

    def cpu(self) -> float:
        """Seconds of CPU that the server's processes have used so far; 0 of a server elsewhere."""
        if self.own is None:
            return 0.0
        pid = self.own.pid
        children = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
        return _cpu_of(pid, ended=True) + sum(_cpu_of(int(one)) for one in children)


@contextmanager
def served(store: str) -> Iterator[Server]:
    """The server that a URL names; with no URL, one of our own."""
    if "://" in store:
        yield Server(Databases(store))
        return
    install()
    own = PostgresServer.make(**SETTINGS)
    try:
        own.start()
        yield Server(Databases(own.url("postgres")), own)
    finally:
        own.remove()


def name_of(url: str) -> str:
    """The name of the database of a URL."""
    return url.rpartition("/")[2]


def ask(url: str, statement: str, *values: object) -> list[tuple[Any, ...]]:
    """The rows of a statement."""
    with psycopg.connect(url, autocommit=True) as connection:
        cursor = connection.execute(statement, values or None)
        return cursor.fetchall() if cursor.description else []


def settle(url: str) -> None:
    """After it was filled: vacuumed, analysed, on disk."""
    ask(url, "VACUUM (ANALYZE)")
    ask(url, "CHECKPOINT")


def bytes_of(url: str, empty: str) -> int:
    """The bytes of a database's files beyond those of an empty one."""
    settle(url)
    size: int = ask(url, SIZE)[0][0] - ask(empty, SIZE)[0][0]
    return size


def _cpu_of(pid: int, *, ended: bool = False) -> float:
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except (FileNotFoundError, ProcessLookupError):
        return 0.0
    return sum(int(one) for one in fields[11 : 15 if ended else 13]) / os.sysconf("SC_CLK_TCK")
