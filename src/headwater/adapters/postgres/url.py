"""URLs of PostgreSQL databases: `postgresql://user@host:port/database?option=value`, as libpq reads them."""

from __future__ import annotations

from ipaddress import ip_address
from typing import Final

import psycopg
from psycopg.conninfo import conninfo_to_dict

from headwater.errors import ConfigurationError

SCHEMES: Final = ("postgresql://", "postgres://")
DEFAULTS: Final[dict[str, str]] = {
    "application_name": "headwater",
    "connect_timeout": "10",
    "keepalives_idle": "30",
    "tcp_user_timeout": "30000",
    "client_encoding": "utf8",
}
VERIFIED: Final[dict[str, str]] = {"sslmode": "verify-full", "sslrootcert": "system"}
"""What libpq prefers falls back to plain text without a word."""


class Place:
    """Where a database is: `options` for libpq, and a `name` without password for messages."""

    def __init__(self, url: str) -> None:
        if not url.startswith(SCHEMES):
            raise ConfigurationError(f"{_example(url)}: write postgresql://user@host:5432/database")
        try:
            given = {name: str(value) for name, value in conninfo_to_dict(url).items()}
        except psycopg.Error as error:  # its text may hold the password
            raise ConfigurationError(f"{_example(url)}: write postgresql://user@host:5432/database") from error
        if not given.get("dbname"):
            raise ConfigurationError(
                "the URL of the store names no database: write postgresql://user@host:5432/database"
            )
        self.host = given.get("hostaddr") or given.get("host", "")
        self.database = given["dbname"]
        self.user = given.get("user", "")
        self.options: dict[str, str] = DEFAULTS | ({} if self.local else VERIFIED) | given
        port = f":{given['port']}" if "port" in given else ""
        self.name = f"postgresql://{given.get('host', self.host)}{port}/{self.database}"

    @property
    def local(self) -> bool:
        """Whether the server is on this machine: nobody listens on the way."""
        return all(_local(host) for host in self.host.split(","))


def _local(host: str) -> bool:
    if not host or host.startswith(("/", "@")) or host == "localhost":
        return True
    try:
        return ip_address(host.strip("[]")).is_loopback
    except ValueError:
        return False


def _example(url: str) -> str:
    return f"the URL of the store, {url.partition('://')[0]}://…, names no PostgreSQL database"
