"""Databases for the rigs on a PostgreSQL server: on a given one, or on one that is started for it."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from pathlib import Path
from unittest import mock

from tests.servers.postgres import GIVEN, Databases, install, shared_server

ANY = "postgresql"
"""In place of a URL: a server that is started for it."""


@contextmanager
def fresh_database(store: str) -> Iterator[str]:
    """The URL of an empty database of the server at `store`; where that is empty, of one that is started meanwhile."""
    with fresh_databases(store) as databases:
        yield databases.make()


@contextmanager
def fresh_databases(store: str) -> Iterator[Databases]:
    """Makes empty databases on the server at `store`; where that is empty or ANY, on one that is started meanwhile."""
    if store in ("", ANY):
        with started() as databases:
            yield databases
        return
    databases = Databases(f"{store.rstrip('/')}/postgres")
    try:
        yield databases
    finally:
        databases.empty()
        databases.drop()


@contextmanager
def started() -> Iterator[Databases]:
    """A server that runs for as long as this, or the one that the environment names."""
    install()
    with tempfile.TemporaryDirectory(prefix="headwater-rig-") as place, shared_server(Path(place)) as databases:
        yield databases


@contextmanager
def serving(store: str) -> Iterator[None]:
    """Whoever needs a server meanwhile, in this process or one below it, uses the one at `store`, or one that is started."""
    server = started() if store == ANY else nullcontext(Databases(f"{store.rstrip('/')}/postgres"))
    with server as databases, mock.patch.dict(os.environ, {GIVEN: databases.url("postgres")}):
        yield
