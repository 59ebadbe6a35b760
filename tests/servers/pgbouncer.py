"""A pgbouncer for tests, before a PostgreSQL server: every transaction gets another of its sessions."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import psycopg

from tests.servers.postgres import Unavailable, _free_port, _wait_for_end, install_package

SETTINGS = """
[databases]
* = host={host} port={port}
[pgbouncer]
listen_addr = 127.0.0.1
listen_port = {own}
unix_socket_dir =
auth_type = trust
auth_file = {folder}/users
pool_mode = transaction
default_pool_size = 5
max_client_conn = 500
server_login_retry = 0.1
ignore_startup_parameters = extra_float_digits
logfile = {folder}/log
pidfile = {folder}/pid
"""


def program() -> str | None:
    return shutil.which("pgbouncer") or shutil.which("pgbouncer", path="/usr/sbin:/usr/local/sbin")


def install() -> None:
    """See to it that it is there. Raises Unavailable."""
    install_package("pgbouncer", lambda: program() is not None)


@contextmanager
def pgbouncer(url: str) -> Iterator[str]:
    """The URL by which the database at a URL is reached through it. Raises Unavailable."""
    found = program()
    if found is None:
        raise Unavailable("pgbouncer is not installed")
    parts, own = urlsplit(url), _free_port()
    folder = Path(tempfile.mkdtemp(prefix="headwater-pgbouncer-"))
    config = folder / "pgbouncer.ini"
    (folder / "users").write_text(f'"{parts.username}" ""\n')
    config.write_text(SETTINGS.format(host=parts.hostname, port=parts.port, own=own, folder=folder))
    options: dict[str, Any] = {}
    if not os.getuid():
        shutil.chown(folder, "postgres")
        options = {"user": "postgres", "group": "postgres"}
    process = subprocess.Popen([found, "-q", str(config)], cwd=folder, stderr=subprocess.DEVNULL, **options)
    through = parts._replace(netloc=f"{parts.username}@127.0.0.1:{own}").geturl()
    try:
        _wait_for_connections(through)
        yield through
    finally:
        process.send_signal(signal.SIGTERM)
        process.wait(10)
        _wait_for_end(process.pid)
        shutil.rmtree(folder)


def _wait_for_connections(url: str) -> None:
    end = time.monotonic() + 10
    while True:
        try:
            psycopg.connect(url, connect_timeout=2).close()
            return
        except psycopg.OperationalError as error:
            if time.monotonic() > end:
                raise Unavailable(f"pgbouncer takes no connections: {error}") from None
            time.sleep(0.05)
