"""What an operator does with a database: verify it, look at it. Each on a connection of its own."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final

import psycopg

from headwater.adapters.postgres.faults import translated
from headwater.adapters.postgres.migrations import REGISTER, split
from headwater.adapters.postgres.schema import COMPONENT, MIGRATIONS
from headwater.adapters.postgres.server import Server
from headwater.errors import DatabaseError

CHECKS: Final = (
    (
        """SELECT stream, count(*), max(version) FROM headwater.events GROUP BY stream
        HAVING min(version) <> 1 OR max(version) <> count(*)""",
        "stream {} has {} messages up to version {}",
    ),
    (
        """SELECT stream, version, position FROM
        (SELECT stream, version, position, lag(position, 1, 0::bigint) OVER (PARTITION BY stream ORDER BY version) AS before
        FROM headwater.events) AS placed WHERE position <= before""",
        "stream {} version {} lies at position {}, before the version before it",
    ),
    (
        """SELECT e.position, s.last_value FROM (SELECT max(position) AS position FROM headwater.events) AS e
        CROSS JOIN headwater.positions AS s WHERE e.position > s.last_value""",
        "the log ends at position {} and its counter at {}",
    ),
    (
        """SELECT tag, position FROM headwater.event_tags t WHERE NOT EXISTS
        (SELECT FROM headwater.events e WHERE e.position = t.position AND e.type = t.type AND e.kind = 'event')""",
        "tag {} stands at position {}, where the log has no such event",
    ),
    (
        """SELECT key, tenant, position FROM headwater.command_keys
        WHERE position > (SELECT coalesce(max(position), 0) FROM headwater.events)""",
        "command key {} of tenant {!r} names position {}, which the log has not reached",
    ),
)
"""Statements that find what cannot be, and how to say it."""
FIGURES: Final = """
SELECT pg_database_size(current_database()), (SELECT coalesce(max(position), 0) FROM headwater.events),
    (SELECT coalesce(sum(messages), 0)::bigint FROM headwater.held_totals), (SELECT count(*) FROM headwater.timers)
"""
VERSIONS: Final = "SELECT component, max(version) FROM headwater.schema_versions GROUP BY component ORDER BY component"
MADE: Final = "SELECT to_regclass('headwater.events') IS NOT NULL"


def verify(server: Server) -> list[str]:
    """What is wrong with the log, in words; empty if nothing was found."""
    found = []
    for sql, words in CHECKS:
        found += [words.format(*row) for row in query(server, f"SELECT * FROM ({sql}) AS wrong LIMIT 100")]
    return found


def query(server: Server, sql: str, parameters: Sequence[Any] = ()) -> list[tuple[Any, ...]]:
    """The rows of a statement that cannot write."""
    with server.connect_now() as connection, translated(server.place):
        connection.read_only = True
        connection.autocommit = False
        cursor = psycopg.RawCursor(connection)
        cursor.execute(sql, parameters or None)
        return cursor.fetchall() if cursor.description else []


def status(server: Server) -> dict[str, object]:
    """Figures of the database: bytes, versions of its tables, messages, and what waits."""
    ((version, made),) = query(server, f"SELECT current_setting('server_version'), ({MADE})")
    if not made:
        raise DatabaseError(f"{server.place.name} has no tables of Headwater: make them by `headwater db init`")
    ((size, position, held, timers),) = query(server, FIGURES)
    return {
        "store": server.place.name,
        "postgresql": version,
        "schema": dict(query(server, VERSIONS)),
        "bytes": size,
        "position": position,
        "held": held,
        "timers": timers,
    }


def statements() -> list[str]:
    """The SQL that makes our tables, for whoever may make them: in order, with the register of their versions."""
    written = [
        f"INSERT INTO headwater.schema_versions VALUES ('{COMPONENT}', {version}, extract(epoch FROM now()) * 1000000)"
        for version, _ in enumerate(MIGRATIONS, 1)
    ]
    return [*split(REGISTER), *(one for script in MIGRATIONS for one in split(script)), *written]
