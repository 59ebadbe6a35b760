"""A PostgreSQL server for tests, one for a whole run: all workers of pytest-xdist share it, each test has its own database.

It runs as a user that is not root, on loopback, with fsync on. `HEADWATER_TEST_POSTGRES` (a URL of a superuser) names a
server to be used in its place.
"""

from __future__ import annotations

import os
import pwd
import shutil
import signal
import socket
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit
from uuid import uuid4

import psycopg
import pytest
from psycopg import sql

from tests.servers.sharing import Found, folder_of_run, locked, shared

GIVEN = "HEADWATER_TEST_POSTGRES"
OLDEST = 13
WITH_PASSWORD = "headwater_with_password"
"""The one user who needs a password."""
SETTINGS = {
    "listen_addresses": "127.0.0.1",
    "fsync": "on",
    "max_connections": "200",
    "max_prepared_transactions": "20",
    "track_commit_timestamp": "on",
    "shared_buffers": "64MB",
    "log_min_messages": "warning",
    "lc_messages": "C",
}


class Unavailable(Exception):
    """There is no server, and none can be had; the text says why."""


# --- programs ---


def programs() -> Path | None:
    """The folder of the newest PostgreSQL of this machine that has all its parts."""
    found = [Path(name).resolve().parent for name in (shutil.which("postgres"), shutil.which("initdb")) if name]
    for pattern in ("/usr/lib/postgresql/*/bin", "/usr/pgsql-*/bin", "/opt/homebrew/opt/postgresql@*/bin"):
        found += Path("/").glob(pattern[1:])
    usable = [(_version(folder), folder) for folder in set(found) if (folder / "initdb").exists()]
    usable = [(version, folder) for version, folder in usable if version >= OLDEST]
    return max(usable)[1] if usable else None


def _version(folder: Path) -> int:
    try:
        said = subprocess.run([folder / "postgres", "--version"], capture_output=True, text=True, check=True).stdout
        return int(said.split()[-1 if "(" not in said else 2].split(".")[0])
    except (OSError, ValueError, subprocess.CalledProcessError):
        return 0


def install() -> None:
    """See to it that there are programs, by Debian's packages if need be. Raises Unavailable."""
    if not os.environ.get(GIVEN):
        install_package("postgresql", lambda: programs() is not None)


def install_package(package: str, there: Callable[[], bool], given: str = GIVEN) -> None:
    """Install one of Debian's packages where it is not `there`; `given` would name a server. Raises Unavailable."""
    if there():
        return
    if os.getuid() or not shutil.which("apt-get"):
        raise Unavailable(f"{package} is not installed: install it, or set {given} to a server's URL")
    with locked(Path(tempfile.gettempdir()) / "headwater-apt.lock"), _no_service_starts():
        if there():
            return
        environment = os.environ | {"DEBIAN_FRONTEND": "noninteractive"}
        for command in (["update"], ["install", "--yes", "--no-install-recommends", package]):
            words = ["apt-get", "--quiet", *command]
            done = subprocess.run(words, check=False, env=environment, capture_output=True, text=True)
            if done.returncode:
                raise Unavailable(f"apt-get {command[0]} failed: {done.stderr.strip()[-300:]}")
    if not there():
        raise Unavailable(f"Debian's {package} is installed, but its programs are not where they should be")


@contextmanager
def _no_service_starts() -> Iterator[None]:
    policy = Path("/usr/sbin/policy-rc.d")
    if policy.exists():
        yield
        return
    policy.write_text("#!/bin/sh\nexit 101\n")
    policy.chmod(0o755)
    try:
        yield
    finally:
        policy.unlink()


# --- a server ---


class PostgresServer:
    """A server on a port of its own, with its data in `folder`. `start`, `stop`, `kill` (-9) and start it again."""

    def __init__(self, folder: Path, port: int) -> None:
        self.folder = folder
        self.port = port

    @classmethod
    def make(cls, **settings: str) -> PostgresServer:
        """A new one, not yet started. Raises Unavailable."""
        bin_folder = programs()
        if bin_folder is None:
            raise Unavailable("no PostgreSQL is installed")
        folder = _own_folder()
        server = cls(folder, _free_port())
        made = server._run(
            bin_folder / "initdb", "-D", folder / "data", "-U", "postgres", "-A", "trust", "-E", "UTF8", "--locale=C"
        )
        if made.returncode:
            shutil.rmtree(folder)
            raise Unavailable(f"initdb failed: {made.stderr.strip()[-300:]}")
        access = folder / "data" / "pg_hba.conf"
        access.write_text(f"host all {WITH_PASSWORD} 127.0.0.1/32 scram-sha-256\n{access.read_text()}")
        lines = SETTINGS | {"port": str(server.port), "unix_socket_directories": ""} | settings
        with (folder / "data" / "postgresql.conf").open("a") as file:
            file.writelines(f"{name} = '{value}'\n" for name, value in lines.items())
        return server

    def replica(self) -> PostgresServer:
        """A new one that follows this one, which runs; not yet started. Raises Unavailable."""
        bin_folder = programs()
        assert bin_folder is not None
        found = PostgresServer(_own_folder(), _free_port())
        data = found.folder / "data"
        made = found._run(bin_folder / "pg_basebackup", "-D", data, "-R", "-c", "fast", "-d", self.url("postgres"))
        if made.returncode:
            raise Unavailable(f"pg_basebackup failed: {made.stderr.strip()[-300:]}")
        with (data / "postgresql.auto.conf").open("a") as file:
            file.write(f"port = '{found.port}'\n")
        return found

    def start(self) -> None:
        """Start it and wait until it takes connections."""
        bin_folder = programs()
        assert bin_folder is not None
        control = [
            bin_folder / "pg_ctl",
            "-D",
            self.folder / "data",
            "-l",
            self.folder / "log",
            "-w",
            "-t",
            "30",
            "start",
        ]
        if self._run(*control).returncode:
            raise Unavailable(f"PostgreSQL does not start: {self.log()[-500:]}")

    def stop(self) -> None:
        """End it as an operator does: clients are cut off."""
        self._end(signal.SIGINT)

    def kill(self) -> None:
        """End it as a power cut does: all its processes at once, without a word."""
        pid = self.pid
        children = Path(f"/proc/{pid}/task/{pid}/children")
        doomed = [pid, *map(int, children.read_text().split())] if children.exists() else [pid]
        for one in doomed:
            try:
                os.kill(one, signal.SIGKILL)
            except ProcessLookupError:
                continue
        for one in doomed:
            _wait_for_end(one)

    def restart(self) -> None:
        """Start it again after `kill` or `stop`."""
        (self.folder / "data" / "postmaster.pid").unlink(missing_ok=True)
        self.start()

    def remove(self) -> None:
        """Stop it and delete all its data."""
        if (self.folder / "data" / "postmaster.pid").exists():
            self.stop()
        shutil.rmtree(self.folder)

    @property
    def pid(self) -> int:
        """The process of the server that runs; its children are its own."""
        return int((self.folder / "data" / "postmaster.pid").read_text().split()[0])

    def log(self) -> str:
        """What the server has said."""
        return (self.folder / "log").read_text()

    def url(self, database: str, user: str = "postgres") -> str:
        return f"postgresql://{user}@127.0.0.1:{self.port}/{database}"

    def _end(self, how: int) -> None:
        pid = self.pid
        os.kill(pid, how)
        _wait_for_end(pid)

    def _run(self, *command: Any) -> subprocess.CompletedProcess[str]:
        with (self.folder / "said").open("w+") as said:  # not a pipe: a server that was started would keep it open
            done = subprocess.run(command, check=False, stdout=said, stderr=said, **self._as_owner())
            said.seek(0)
            return subprocess.CompletedProcess(command, done.returncode, stderr=said.read())

    def _as_owner(self) -> dict[str, Any]:
        return {"cwd": self.folder} | ({} if os.getuid() else {"user": "postgres", "group": "postgres"})


def _own_folder() -> Path:
    """A new folder of the user that the server runs as."""
    folder = Path(tempfile.mkdtemp(prefix="headwater-postgres-"))
    if not os.getuid():
        owner = pwd.getpwnam("postgres")
        os.chown(folder, owner.pw_uid, owner.pw_gid)
    return folder


def _wait_for_end(pid: int) -> None:
    deadline = time.monotonic() + 30
    while time.monotonic() < deadline:
        if not _runs(pid):
            return
        time.sleep(0.01)
    raise RuntimeError(f"process {pid} does not end")


def _runs(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False


def _free_port() -> int:
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        port: int = one.getsockname()[1]
        return port


# --- databases ---

CUT_OFF = "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = %s"
EMPTY = """
DROP SCHEMA IF EXISTS headwater, headwater_channel, public CASCADE;
CREATE SCHEMA public;
GRANT USAGE ON SCHEMA public TO PUBLIC
"""


class Databases:
    """Makes databases on a server whose superuser's URL is given; what has been in use is emptied and used again.

    Emptying one takes 14 ms, making and dropping one 350.
    """

    def __init__(self, url: str, server: PostgresServer | None = None, free: list[str] | None = None) -> None:
        self._url = url
        self.server = server
        self.free: list[str] = [] if free is None else free
        self._made: list[str] = []

    @property
    def server_url(self) -> str:
        """The URL of the server."""
        return urlsplit(self._url)._replace(path="").geturl()

    def make(self) -> str:
        """The URL of an empty database."""
        if self.free:
            name = self.free.pop()
        else:
            name = f"headwater_{uuid4().hex[:16]}"
            self.run(sql.SQL("CREATE DATABASE {}").format(sql.Identifier(name)))
        self._made.append(name)
        return self.url(name)

    def url(self, database: str, user: str = "") -> str:
        """The URL of a database, of the superuser or another user."""
        parts = urlsplit(self._url)
        place = f"{user}@{parts.netloc.rpartition('@')[2]}" if user else parts.netloc
        return parts._replace(path=f"/{database}", netloc=place).geturl()

    def run(self, statement: str | sql.Composable, *values: object) -> list[tuple[Any, ...]]:
        """Run a statement as superuser."""
        return run(self._url, statement, *values)

    def empty(self) -> None:
        """Empty what was made, whoever is still connected to it, for others to use."""
        while self._made:
            name = self._made.pop()
            self.run(CUT_OFF, name)
            self.run(sql.SQL("ALTER DATABASE {} RESET ALL").format(sql.Identifier(name)))
            run(self.url(name), EMPTY)
            self.free.append(name)

    def drop(self) -> None:
        """Drop all that is free."""
        while self.free:
            self.run(sql.SQL("DROP DATABASE IF EXISTS {} WITH (FORCE)").format(sql.Identifier(self.free.pop())))


def run(url: str, statement: str | sql.Composable, *values: object) -> list[tuple[Any, ...]]:
    """Run a statement in the database at `url`."""
    with psycopg.connect(url, autocommit=True) as connection:
        cursor = connection.execute(statement, values or None)  # type: ignore[arg-type]
        return cursor.fetchall() if cursor.description else []


BY_COMMIT = """
SELECT CASE WHEN id_text = '' THEN id::text ELSE id_text END FROM headwater.events
ORDER BY pg_xact_commit_timestamp(xmin), position
"""


async def commit_order(database: Any) -> dict[str, int] | None:
    """The places of all events, by their ids, in the order of their commits, where the server keeps it."""
    if await database.query("SHOW track_commit_timestamp") != [("on",)]:
        return None
    return {mark: place for place, (mark,) in enumerate(await database.query(BY_COMMIT))}


def _started() -> Found:
    server = PostgresServer.make()
    server.start()
    return {"folder": str(server.folder), "port": server.port}


def _at(found: Found) -> PostgresServer:
    return PostgresServer(Path(found["folder"]), found["port"])


@contextmanager
def shared_server(folder: Path) -> Iterator[Databases]:
    """The server of this test run: the first worker starts it, the last one stops it. Raises Unavailable."""
    if given := os.environ.get(GIVEN):
        databases = Databases(given)
        yield databases
        databases.drop()
        return
    with shared(folder, "postgres", _started, lambda found: _at(found).remove()) as found:
        server = _at(found)
        yield Databases(server.url("postgres"), server)


@pytest.fixture(scope="session")
def postgres_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Databases]:
    """The server; the test is skipped where there is none."""
    try:
        install()
        with shared_server(folder_of_run(tmp_path_factory)) as databases:
            yield databases
    except Unavailable as error:
        pytest.skip(str(error))


@pytest.fixture
def postgres(postgres_server: Databases) -> Iterator[Databases]:
    """Makes databases for one test."""
    databases = Databases(postgres_server._url, postgres_server.server, postgres_server.free)
    yield databases
    databases.empty()
