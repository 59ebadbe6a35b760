"""What an operator does with a database file: back it up, verify it, look at it. Each on a connection of its own."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final

import apsw

from headwater.adapters.sqlite.faults import translated
from headwater.adapters.sqlite.file import File, fetch
from headwater.errors import ConfigurationError

CHECKS: Final = (
    (
        "SELECT stream, count(*), max(version) FROM events GROUP BY stream HAVING min(version) <> 1 OR max(version) <> count(*)",
        "stream {} has {} messages up to version {}",
    ),
    (
        """SELECT stream, version, position FROM
        (SELECT stream, version, position, lag(position, 1, 0) OVER (PARTITION BY stream ORDER BY version) AS before FROM events)
        WHERE position <= before""",
        "stream {} version {} lies at position {}, before the version before it",
    ),
    (
        "SELECT stream, version, previous FROM events WHERE previous <> version - 1",
        "stream {} version {} names {} as the version before it",
    ),
    (
        "SELECT count(*), max(position) FROM events HAVING count(*) <> max(position)",
        "the log has {} messages up to position {}",
    ),
    (
        """SELECT tag, position FROM event_tags t
        WHERE NOT EXISTS (SELECT 1 FROM events e WHERE e.position = t.position AND e.type = t.type AND e.kind = 'event')""",
        "tag {} stands at position {}, where the log has no such event",
    ),
    (
        """SELECT key, tenant, position FROM command_keys
        WHERE position > (SELECT coalesce(max(position), 0) FROM events)""",
        "command key {} of tenant {!r} names position {}, which the log has not reached",
    ),
)
"""Statements that find what cannot be, and how to say it."""


def backup(file: File, target: Path) -> None:
    """Copy the database, as it is now, to a new file; writers go on meanwhile."""
    if target.exists():
        raise ConfigurationError(f"{target} exists: name a new file for the backup")
    if not target.parent.is_dir():
        raise ConfigurationError(f"the folder {target.parent} does not exist: make it, or choose another path")
    source = file.connect(writable=False)
    try:
        with translated(target):
            copy = apsw.Connection(str(target))
            with copy.backup("main", source, "main") as copying:
                copying.step(-1)
            copy.close()
    finally:
        source.close()


def verify(file: File) -> list[str]:
    """What is wrong with the file, in words; empty if nothing was found."""
    checked = [line for (line,) in query(file, "PRAGMA integrity_check") if line != "ok"]
    for sql, words in CHECKS:
        checked += [words.format(*row) for row in query(file, f"SELECT * FROM ({sql}) LIMIT 100")]
    return checked


def query(file: File, sql: str, parameters: Sequence[Any] = ()) -> list[tuple[Any, ...]]:
    """The rows of a statement that cannot write."""
    connection = file.connect(writable=False)
    try:
        with translated(file.path):
            return fetch(connection, sql, parameters)
    finally:
        connection.close()


def status(file: File) -> dict[str, object]:
    """Figures of the file: bytes, versions of its tables, messages, and what waits."""
    pages, size = (query(file, f"PRAGMA {name}")[0][0] for name in ("page_count", "page_size"))
    wal = file.path.with_name(file.path.name + "-wal")
    return {
        "path": str(file.path),
        "sqlite": apsw.sqlite_lib_version(),
        "bytes": pages * size,
        "wal_bytes": wal.stat().st_size if wal.exists() else 0,
        "schema": dict(query(file, "SELECT component, max(version) FROM headwater_schema GROUP BY component")),
        "position": query(file, "SELECT coalesce(max(position), 0) FROM events")[0][0],
        "held": query(file, "SELECT coalesce(sum(messages), 0) FROM held_totals")[0][0],
        "timers": query(file, "SELECT count(*) FROM timers")[0][0],
    }


def statements(file: File) -> list[str]:
    """The SQL of all that the file has: tables, indexes, triggers."""
    return [sql for (sql,) in query(file, "SELECT sql FROM sqlite_schema WHERE sql IS NOT NULL ORDER BY rowid")]
