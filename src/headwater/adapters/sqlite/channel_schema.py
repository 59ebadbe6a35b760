"""The tables of a channel file, as versioned forward migrations, and the statements that read them."""

from __future__ import annotations

from functools import cache
from typing import Final

COMPONENT: Final = "channel"

FIRST: Final = """
CREATE TABLE messages (
    position INTEGER PRIMARY KEY AUTOINCREMENT,
    topic TEXT NOT NULL,
    partition INTEGER NOT NULL,
    time INTEGER NOT NULL,       -- when it was published, or was due; microseconds since 1970
    for_group TEXT,              -- NULL: for every group
    key TEXT NOT NULL,
    headers TEXT NOT NULL,       -- JSON
    body BLOB NOT NULL
) STRICT;
CREATE INDEX messages_by_topic ON messages (topic, position, partition, for_group);

CREATE TABLE delayed (
    id INTEGER PRIMARY KEY,
    due INTEGER NOT NULL,
    topic TEXT NOT NULL,
    partition INTEGER NOT NULL,
    for_group TEXT,
    key TEXT NOT NULL,
    headers TEXT NOT NULL,
    body BLOB NOT NULL
) STRICT;
CREATE INDEX delayed_by_due ON delayed (due, id);

CREATE TABLE cursors (
    "group" TEXT NOT NULL,
    topic TEXT NOT NULL,
    partition INTEGER NOT NULL,
    position INTEGER NOT NULL,   -- all up to it is acknowledged
    epoch INTEGER NOT NULL,      -- raised whenever a member takes the partition
    PRIMARY KEY ("group", topic, partition)
) STRICT, WITHOUT ROWID;
CREATE INDEX cursors_by_place ON cursors (topic, partition, position);

CREATE TABLE producers (
    name TEXT PRIMARY KEY,
    position INTEGER NOT NULL,
    epoch INTEGER NOT NULL
) STRICT, WITHOUT ROWID;

CREATE TABLE channel (
    partitions INTEGER NOT NULL
) STRICT;
"""

MIGRATIONS: Final = (FIRST,)

HEAD: Final = "SELECT seq FROM sqlite_sequence WHERE name = 'messages'"
LOOK: Final = f"SELECT ({HEAD}), (SELECT min(due) FROM delayed)"
PRODUCER: Final = "SELECT position FROM producers WHERE name = ?"

LAG: Final = """
SELECT "group", topic, coalesce(n, 0), (SELECT time FROM messages WHERE position = oldest)
FROM (SELECT DISTINCT "group", topic FROM cursors WHERE ?1 IS NULL OR "group" = ?1)
LEFT JOIN (
    SELECT "group", topic, count(*) AS n, min(m.position) AS oldest
    FROM (SELECT "group", topic, min(position) AS low FROM cursors WHERE ?1 IS NULL OR "group" = ?1 GROUP BY 1, 2)
    CROSS JOIN messages m USING (topic)
    CROSS JOIN cursors c USING ("group", topic, partition)
    WHERE m.position > low AND m.position > c.position AND (m.for_group IS NULL OR m.for_group = "group")
    GROUP BY 1, 2
) USING ("group", topic)
ORDER BY 1, 2
"""
"""How far groups (?1, or all) are behind, by topic; one pass over what lies behind the furthest cursor of each."""


@cache
def fetch_sql(topics: int) -> str:
    """The next messages of some topics: parameters are low, high, group, limit, then a topic and its partitions (bits) each.

    Each topic is a range of the index; SQLite merges them by position and stops at the limit.
    """
    one = (
        "SELECT position, topic, partition, key, headers, body FROM messages WHERE topic = ?{} AND position > ?1"
        " AND position <= ?2 AND (?{} >> partition) & 1 AND (for_group IS NULL OR for_group = ?3)"
    )
    arms = (one.format(5 + 2 * index, 6 + 2 * index) for index in range(topics))
    return " UNION ALL ".join(arms) + " ORDER BY position LIMIT ?4"
