"""The tables of a service's database, as versioned forward migrations."""

from __future__ import annotations

from typing import Final

COMPONENT: Final = "database"

FIRST: Final = """
CREATE TABLE events (
    position INTEGER PRIMARY KEY AUTOINCREMENT,
    stream TEXT NOT NULL,
    version INTEGER NOT NULL,
    kind TEXT NOT NULL,
    id ANY NOT NULL,             -- a UUID as 16 bytes, any other id as text
    type TEXT NOT NULL,
    type_version INTEGER NOT NULL,
    codec INTEGER NOT NULL,
    time INTEGER NOT NULL,       -- microseconds since 1970
    previous INTEGER NOT NULL,
    data ANY NOT NULL,           -- JSON text where the codec is 0, else bytes
    meta ANY NOT NULL            -- JSON text
) STRICT;
CREATE UNIQUE INDEX events_by_stream ON events (stream, version);

CREATE TABLE command_keys (
    tenant TEXT NOT NULL,
    key TEXT NOT NULL,
    hash BLOB NOT NULL,
    position INTEGER NOT NULL,
    version INTEGER NOT NULL,
    time INTEGER NOT NULL,
    PRIMARY KEY (tenant, key)
) STRICT, WITHOUT ROWID;

CREATE TABLE marks (
    consumer TEXT NOT NULL,
    stream TEXT NOT NULL,
    version INTEGER NOT NULL,
    PRIMARY KEY (consumer, stream)
) STRICT, WITHOUT ROWID;

CREATE TABLE held (
    consumer TEXT NOT NULL,
    key TEXT NOT NULL,
    stream TEXT NOT NULL,
    version INTEGER NOT NULL,
    reason TEXT NOT NULL,
    due INTEGER NOT NULL,
    attempts INTEGER NOT NULL,
    crashes INTEGER NOT NULL,
    cause TEXT NOT NULL,
    fingerprint TEXT NOT NULL,
    history TEXT NOT NULL,       -- JSON
    since INTEGER NOT NULL,
    headers TEXT NOT NULL,       -- JSON
    raw INTEGER NOT NULL,
    position INTEGER NOT NULL,
    kind TEXT NOT NULL,
    id TEXT NOT NULL,
    type TEXT NOT NULL,
    type_version INTEGER NOT NULL,
    codec INTEGER NOT NULL,
    time INTEGER NOT NULL,
    previous INTEGER NOT NULL,
    data ANY NOT NULL,
    meta ANY NOT NULL,
    first INTEGER NOT NULL DEFAULT 0,  -- 1: the first of its key, kept by the triggers
    PRIMARY KEY (consumer, stream, version)
) STRICT;
CREATE INDEX held_by_key ON held (consumer, key, stream, version);
CREATE UNIQUE INDEX held_first ON held (consumer, key) WHERE first = 1;
CREATE INDEX held_turn ON held (consumer, reason, due, since, key) WHERE first = 1;
CREATE INDEX held_by_reason ON held (reason, consumer, stream, version);

CREATE TABLE held_totals (
    consumer TEXT PRIMARY KEY,
    messages INTEGER NOT NULL,
    bytes INTEGER NOT NULL
) STRICT, WITHOUT ROWID;

CREATE TRIGGER held_in AFTER INSERT ON held BEGIN
    UPDATE held SET first = 0 WHERE consumer = new.consumer AND key = new.key AND first = 1;
    UPDATE held SET first = 1 WHERE rowid =
        (SELECT rowid FROM held WHERE consumer = new.consumer AND key = new.key ORDER BY stream, version LIMIT 1);
    INSERT INTO held_totals VALUES (new.consumer, 1, octet_length(new.data))
        ON CONFLICT DO UPDATE SET messages = messages + 1, bytes = bytes + excluded.bytes;
END;
CREATE TRIGGER held_out AFTER DELETE ON held BEGIN
    UPDATE held SET first = 1 WHERE old.first = 1 AND rowid =
        (SELECT rowid FROM held WHERE consumer = old.consumer AND key = old.key ORDER BY stream, version LIMIT 1);
    UPDATE held_totals SET messages = messages - 1, bytes = bytes - octet_length(old.data)
        WHERE consumer = old.consumer;
END;

CREATE TABLE notes (
    feed TEXT PRIMARY KEY,
    messages TEXT NOT NULL       -- JSON: [[stream, version], …]
) STRICT, WITHOUT ROWID;

CREATE TABLE steps (
    message_id TEXT NOT NULL,
    consumer TEXT NOT NULL,
    name TEXT NOT NULL,
    done INTEGER NOT NULL,
    outcome TEXT NOT NULL,       -- JSON
    PRIMARY KEY (message_id, consumer, name)
) STRICT, WITHOUT ROWID;
CREATE INDEX steps_open ON steps (consumer) WHERE done = 0;

CREATE TABLE timers (
    owner TEXT NOT NULL,
    key TEXT NOT NULL,
    name TEXT NOT NULL,
    due INTEGER NOT NULL,
    stream TEXT NOT NULL,
    kind TEXT NOT NULL,
    id TEXT NOT NULL,
    type TEXT NOT NULL,
    type_version INTEGER NOT NULL,
    codec INTEGER NOT NULL,
    time INTEGER NOT NULL,
    data ANY NOT NULL,
    meta ANY NOT NULL,
    PRIMARY KEY (owner, key, name)
) STRICT;
CREATE INDEX timers_due ON timers (due, owner, key, name);

CREATE TABLE sagas (
    saga TEXT NOT NULL,
    key TEXT NOT NULL,
    version INTEGER NOT NULL,
    data ANY NOT NULL,           -- JSON
    ended INTEGER NOT NULL,
    PRIMARY KEY (saga, key)
) STRICT, WITHOUT ROWID;

CREATE TABLE checkpoints (
    name TEXT PRIMARY KEY,
    position INTEGER NOT NULL
) STRICT, WITHOUT ROWID;

CREATE TABLE consumers (
    name TEXT NOT NULL,
    source TEXT NOT NULL,
    kind TEXT NOT NULL,
    topics TEXT NOT NULL         -- JSON
) STRICT;

CREATE TABLE leases (
    name TEXT PRIMARY KEY,
    owner TEXT NOT NULL,         -- empty: nobody
    epoch INTEGER NOT NULL,
    expires INTEGER NOT NULL     -- microseconds since 1970
) STRICT, WITHOUT ROWID;

CREATE TABLE journal (
    sequence INTEGER PRIMARY KEY AUTOINCREMENT,
    consumer TEXT NOT NULL,
    stream TEXT NOT NULL,
    version INTEGER NOT NULL
) STRICT;

CREATE TABLE read_models (
    name TEXT PRIMARY KEY,
    columns TEXT NOT NULL,       -- JSON: [[name, type], …]
    keys INTEGER NOT NULL
) STRICT, WITHOUT ROWID;
"""


def _uuid(value: str) -> str:
    """The SQL of a UUID's usual form."""
    parts = ((1, 4), (5, 2), (7, 2), (9, 2), (11, 6))
    return "lower(" + " || '-' || ".join(f"hex(substr({value}, {at}, {size}))" for at, size in parts) + ")"


def _trace(value: str) -> str:
    """The SQL of a traceparent."""
    parts = ((1, 16), (17, 8), (25, 1))
    return "'00-' || lower(" + " || '-' || ".join(f"hex(substr({value}, {at}, {size}))" for at, size in parts) + ")"


SECOND: Final = f"""
ALTER TABLE events RENAME TO first_events;
DROP INDEX events_by_stream;
CREATE TABLE events (
    position INTEGER PRIMARY KEY,  -- given by the writer, one after the other
    stream TEXT NOT NULL,
    version INTEGER NOT NULL,
    kind TEXT NOT NULL,
    id ANY NOT NULL,             -- a UUID as 16 bytes, any other id as text
    type TEXT NOT NULL,
    type_version INTEGER NOT NULL,
    codec INTEGER NOT NULL,
    time INTEGER NOT NULL,       -- microseconds since 1970
    previous INTEGER NOT NULL,
    data ANY NOT NULL,           -- JSON text where the codec is 0, else bytes
    meta ANY NOT NULL            -- packed (see `encode_metadata`), or JSON text; the view has it in columns
) STRICT;
INSERT INTO events SELECT * FROM first_events ORDER BY position;
DROP TABLE first_events;
CREATE UNIQUE INDEX events_by_stream ON events (stream, version);

CREATE VIEW headwater_events AS
SELECT position, stream, version, kind,
    CASE typeof(id) WHEN 'blob' THEN {_uuid("id")} ELSE id END AS id,
    type, type_version, codec, time, previous, data,
    CASE WHEN marks IS NULL THEN meta ->> 'correlation' WHEN marks & 1 THEN {_uuid("substr(meta, 2, 16)")} END AS correlation,
    CASE WHEN marks IS NULL THEN meta ->> 'causation' WHEN marks & 2 THEN {_uuid("substr(meta, cause, 16)")} END AS causation,
    CASE WHEN marks IS NULL THEN meta ->> 'traceparent' WHEN marks & 4 THEN {_trace("substr(meta, trace, 25)")} END AS traceparent,
    CASE WHEN marks IS NULL THEN meta ->> 'actor'
        ELSE nullif(CAST(substr(meta, rest, nul - 1) AS TEXT), '') END AS actor,
    CASE WHEN marks IS NULL THEN meta ->> 'tenant'
        ELSE nullif(CAST(substr(meta, rest + nul) AS TEXT), '') END AS tenant
FROM (SELECT *, coalesce(nullif(instr(substr(meta, rest), x'00'), 0), length(meta) + 1) AS nul
FROM (SELECT *, trace + (marks & 4) / 4 * 25 AS rest
FROM (SELECT *, cause + (marks & 2) / 2 * 16 AS trace
FROM (SELECT *, 2 + (marks & 1) * 16 AS cause
FROM (SELECT *, CASE typeof(meta) WHEN 'blob' THEN unicode(CAST(substr(meta, 1, 1) AS TEXT)) - 64 END AS marks
FROM events)))));
"""

THIRD: Final = """
CREATE TABLE event_tags (
    tag TEXT NOT NULL,
    position INTEGER NOT NULL,
    type TEXT NOT NULL,          -- of the event at the position
    PRIMARY KEY (tag, position)
) STRICT, WITHOUT ROWID;
"""

MIGRATIONS: Final = (FIRST, SECOND, THIRD)

RESERVED: Final = frozenset(
    {
        "events",
        "event_tags",
        "command_keys",
        "marks",
        "held",
        "held_totals",
        "notes",
        "steps",
        "timers",
        "sagas",
        "checkpoints",
        "consumers",
        "leases",
        "journal",
        "read_models",
    }
)
"""Names that a read model's table cannot have."""
