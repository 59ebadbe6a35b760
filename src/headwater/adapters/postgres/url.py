"""URLs of PostgreSQL databases: `postgresql://user@host:port/database?option=value`, as libpq reads them."""

from __future__ import annotations

from ipaddress import ip_address
from typing import Final
from urllib.parse import parse_qsl, quote, urlencode

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
LONGEST: Final = "-c idle_in_transaction_session_timeout=30000"
"""Who is stopped in the middle of a transaction holds up those who read the log for so many milliseconds, not for good."""
BY_KEY: Final = "-c enable_seqscan=off -c enable_hashjoin=off -c enable_mergejoin=off -c jit=off"
"""For our own statements, which all go by key: else one that is prepared while a table is empty reads all of it for ever."""
FREE: Final = "-c plan_cache_mode=force_custom_plan"
"""For connections that run a user's statements too: each is planned for the tables as they are."""
POOLER: Final = "pooler"
VERIFIED: Final[dict[str, str]] = {"sslmode": "verify-full", "sslrootcert": "system"}
"""What libpq prefers falls back to plain text without a word."""


class Place:
    """Where a database is: `options` for libpq, and a `name` without password for messages.

    `pooler=transaction` in the URL says that a pooler stands between that gives every transaction another session.
    """

    def __init__(self, url: str) -> None:
        if not url.startswith(SCHEMES):
            raise ConfigurationError(f"{_example(url)}: write postgresql://user@host:5432/database")
        try:
            url, self.pooled = _pooled(url)
            given = {name: str(value) for name, value in conninfo_to_dict(url).items()}
        except (psycopg.Error, UnicodeError) as error:  # its text may hold the password
            raise ConfigurationError(f"{_example(url)}: write postgresql://user@host:5432/database") from error
        if not given.get("dbname"):
            raise ConfigurationError(
                "the URL of the store names no database: write postgresql://user@host:5432/database"
            )
        self.host = given.get("hostaddr") or given.get("host", "")
        self.database = given["dbname"]
        self.user = given.get("user", "")
        self.options: dict[str, str] = DEFAULTS | ({} if self.local else VERIFIED) | given
        self._given = given.get("options", "")
        port = f":{given['port']}" if "port" in given else ""
        self.name = f"postgresql://{given.get('host', self.host)}{port}/{self.database}"

    def planned(self, how: str) -> dict[str, str]:
        """The options of a connection whose statements are planned `BY_KEY` or `FREE`; a pooler's sessions are everybody's."""
        if self.pooled:
            return self.options
        return self.options | {"options": f"{LONGEST} {how} {self._given}".strip()}

    @property
    def local(self) -> bool:
        """Whether the server is on this machine: nobody listens on the way."""
        return all(_local(host) for host in self.host.split(","))


def _pooled(url: str) -> tuple[str, bool]:
    place, _, query = url.partition("?")
    pairs = parse_qsl(query, keep_blank_values=True)
    if not (found := [value for name, value in pairs if name == POOLER]):
        return url, False
    if found != ["transaction"]:
        raise ConfigurationError(f"pooler={found[-1]} is no option of a PostgreSQL URL: write pooler=transaction")
    others = urlencode([pair for pair in pairs if pair[0] != POOLER], errors="surrogatepass", quote_via=quote)
    return (f"{place}?{others}" if others else place), True


def _local(host: str) -> bool:
    if not host or host.startswith(("/", "@")) or host == "localhost":
        return True
    try:
        return ip_address(host.strip("[]")).is_loopback
    except ValueError:
        return False


def _example(url: str) -> str:
    return f"the URL of the store, {url.partition('://')[0]}://…, names no PostgreSQL database"
