"""The tables of a service's database, as versioned forward migrations, in a schema of their own."""

from __future__ import annotations

from typing import Final

COMPONENT: Final = "database"

FENCE: Final = (1_212_962_642, 1)
"""The advisory lock that every append holds (shared) from before it draws a position until its end is visible."""
STREAMS: Final = 1_212_962_643
"""The space of advisory locks that guard the ends of streams."""
LEASES: Final = 1_212_962_644
"""The space of advisory locks that guard the epochs of leases."""
ROWS: Final = 1_212_962_645
"""The space of advisory locks that guard the rows of read models folded inside a commit."""
BOUNDS: Final = 1_212_962_652
"""The space of advisory locks that guard types and tags of events: see `relevant`."""
PRESENCE: Final = 1_212_962_651
"""The space of advisory locks that processes hold for as long as they live."""
TABLES: Final = (1_212_962_646, 1)
"""The advisory lock of who makes, drops or swaps tables."""

FIRST: Final = f"""
CREATE SEQUENCE headwater.positions AS bigint CACHE 1;

CREATE TABLE headwater.events (
    position bigint PRIMARY KEY DEFAULT nextval('headwater.positions'),
    version bigint NOT NULL,
    time bigint NOT NULL,                -- microseconds since 1970
    id uuid NOT NULL,                    -- nil where the id is no UUID: see id_text
    type_version integer NOT NULL,
    codec smallint NOT NULL,
    kind text COLLATE "C" NOT NULL,
    type text COLLATE "C" NOT NULL,
    stream text COLLATE "C" NOT NULL,
    id_text text COLLATE "C" NOT NULL DEFAULT '',
    data bytea NOT NULL,                 -- JSON in UTF-8 where the codec is 0
    meta bytea NOT NULL,                 -- packed, or JSON in UTF-8
    UNIQUE (stream, version)
);

CREATE FUNCTION headwater.fence() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    PERFORM pg_advisory_xact_lock_shared({FENCE[0]}, {FENCE[1]});
    RETURN NULL;
END $$;
CREATE TRIGGER fence BEFORE INSERT ON headwater.events FOR EACH STATEMENT EXECUTE FUNCTION headwater.fence();

CREATE TABLE headwater.horizon (
    position bigint NOT NULL             -- up to which the log is settled, for readers on replicas
) WITH (fillfactor = 50);
CREATE UNIQUE INDEX horizon_once ON headwater.horizon ((true));
INSERT INTO headwater.horizon VALUES (0);

CREATE TABLE headwater.command_keys (
    tenant text COLLATE "C" NOT NULL,
    key text COLLATE "C" NOT NULL,
    hash bytea NOT NULL,
    position bigint NOT NULL,
    version bigint NOT NULL,
    time bigint NOT NULL,
    PRIMARY KEY (tenant, key)
);

CREATE TABLE headwater.marks (
    consumer text COLLATE "C" NOT NULL,
    stream text COLLATE "C" NOT NULL,
    version bigint NOT NULL,
    PRIMARY KEY (consumer, stream)
) WITH (fillfactor = 80);

CREATE TABLE headwater.held (
    consumer text COLLATE "C" NOT NULL,
    key text COLLATE "C" NOT NULL,
    stream text COLLATE "C" NOT NULL,
    version bigint NOT NULL,
    reason text COLLATE "C" NOT NULL,
    due bigint NOT NULL,
    attempts integer NOT NULL,
    crashes integer NOT NULL,
    cause text NOT NULL,
    fingerprint text NOT NULL,
    history text NOT NULL,               -- JSON
    since bigint NOT NULL,
    headers text NOT NULL,               -- JSON
    raw boolean NOT NULL,
    position bigint NOT NULL,
    kind text NOT NULL,
    id text NOT NULL,
    type text NOT NULL,
    type_version integer NOT NULL,
    codec smallint NOT NULL,
    time bigint NOT NULL,
    previous bigint NOT NULL,
    data bytea NOT NULL,
    meta bytea NOT NULL,
    first boolean NOT NULL DEFAULT false,  -- the first of its key, kept by the triggers
    PRIMARY KEY (consumer, stream, version)
);
CREATE INDEX held_by_key ON headwater.held (consumer, key, stream, version);
CREATE UNIQUE INDEX held_first ON headwater.held (consumer, key) WHERE first;
CREATE INDEX held_turn ON headwater.held (consumer, reason, due, since, key) WHERE first;
CREATE INDEX held_by_reason ON headwater.held (reason, consumer, stream, version);

CREATE TABLE headwater.held_totals (
    consumer text COLLATE "C" PRIMARY KEY,
    messages bigint NOT NULL,
    bytes bigint NOT NULL
);

CREATE FUNCTION headwater.held_in() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN  -- the totals first: who changes what a consumer holds waits there for who did before, and sees what is left
    INSERT INTO headwater.held_totals AS t VALUES (new.consumer, 1, octet_length(new.data))
        ON CONFLICT (consumer) DO UPDATE SET messages = t.messages + 1, bytes = t.bytes + excluded.bytes;
    IF NOT EXISTS (
        SELECT FROM headwater.held
        WHERE consumer = new.consumer AND key = new.key AND first AND (stream, version) < (new.stream, new.version)
    ) THEN
        UPDATE headwater.held SET first = false WHERE consumer = new.consumer AND key = new.key AND first;
        UPDATE headwater.held SET first = true
        WHERE consumer = new.consumer AND stream = new.stream AND version = new.version;
    END IF;
    RETURN NULL;
END $$;
CREATE TRIGGER held_in AFTER INSERT ON headwater.held FOR EACH ROW EXECUTE FUNCTION headwater.held_in();

CREATE FUNCTION headwater.held_out() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    UPDATE headwater.held_totals SET messages = messages - 1, bytes = bytes - octet_length(old.data)
        WHERE consumer = old.consumer;
    IF old.first THEN
        UPDATE headwater.held SET first = true WHERE (consumer, stream, version) = (
            SELECT h.consumer, h.stream, h.version FROM headwater.held h
            WHERE h.consumer = old.consumer AND h.key = old.key ORDER BY h.stream, h.version LIMIT 1
        );
    END IF;
    RETURN NULL;
END $$;
CREATE TRIGGER held_out AFTER DELETE ON headwater.held FOR EACH ROW EXECUTE FUNCTION headwater.held_out();

CREATE TABLE headwater.notes (
    feed text COLLATE "C" PRIMARY KEY,
    messages text NOT NULL               -- JSON: [[stream, version], …]
);

CREATE TABLE headwater.steps (
    message_id text COLLATE "C" NOT NULL,
    consumer text COLLATE "C" NOT NULL,
    name text COLLATE "C" NOT NULL,
    done boolean NOT NULL,
    outcome bytea NOT NULL,              -- JSON in UTF-8
    PRIMARY KEY (message_id, consumer, name)
);
CREATE INDEX steps_open ON headwater.steps (consumer) WHERE NOT done;

CREATE TABLE headwater.timers (
    owner text COLLATE "C" NOT NULL,
    key text COLLATE "C" NOT NULL,
    name text COLLATE "C" NOT NULL,
    due bigint NOT NULL,
    stream text NOT NULL,
    kind text NOT NULL,
    id text NOT NULL,
    type text NOT NULL,
    type_version integer NOT NULL,
    codec smallint NOT NULL,
    time bigint NOT NULL,
    data bytea NOT NULL,
    meta bytea NOT NULL,
    PRIMARY KEY (owner, key, name)
);
CREATE INDEX timers_due ON headwater.timers (due, owner, key, name);

CREATE TABLE headwater.sagas (
    saga text COLLATE "C" NOT NULL,
    key text COLLATE "C" NOT NULL,
    version bigint NOT NULL,
    data bytea NOT NULL,                 -- JSON in UTF-8
    ended boolean NOT NULL,
    PRIMARY KEY (saga, key)
) WITH (fillfactor = 80);

CREATE TABLE headwater.checkpoints (
    name text COLLATE "C" PRIMARY KEY,
    position bigint NOT NULL
) WITH (fillfactor = 50);

CREATE TABLE headwater.consumers (
    place integer PRIMARY KEY,
    name text NOT NULL,
    source text NOT NULL,
    kind text NOT NULL,
    topics text NOT NULL                 -- JSON
);

CREATE TABLE headwater.leases (
    name text COLLATE "C" PRIMARY KEY,
    owner text NOT NULL,                 -- empty: nobody
    epoch bigint NOT NULL,
    expires timestamptz NOT NULL,        -- by the server's clock
    process integer NOT NULL             -- which holds an advisory lock of this number; 0: none can be told
) WITH (fillfactor = 50);

CREATE TABLE headwater.journal (
    sequence bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    consumer text NOT NULL,
    stream text NOT NULL,
    version bigint NOT NULL
);

CREATE TABLE headwater.read_models (
    name text COLLATE "C" PRIMARY KEY,
    columns text NOT NULL,               -- JSON: [[name, type], …]
    keys integer NOT NULL
);
"""

VIEW: Final = r"""
CREATE VIEW headwater_events AS
SELECT position, stream, version, kind, CASE WHEN id_text = '' THEN id::text ELSE id_text END AS id,
    type, type_version, codec, time, version - 1 AS previous,
    CASE codec WHEN 0 THEN convert_from(data, 'UTF8') ELSE encode(data, 'hex') END AS data,
    CASE WHEN marks IS NULL THEN json ->> 'correlation'
        WHEN marks & 1 = 1 THEN encode(substring(meta, 2, 16), 'hex')::uuid::text END AS correlation,
    CASE WHEN marks IS NULL THEN json ->> 'causation'
        WHEN marks & 2 = 2 THEN encode(substring(meta, cause, 16), 'hex')::uuid::text END AS causation,
    CASE WHEN marks IS NULL THEN json ->> 'traceparent'
        WHEN marks & 4 = 4 THEN concat_ws('-', '00', encode(substring(meta, trace, 16), 'hex'),
            encode(substring(meta, trace + 16, 8), 'hex'), encode(substring(meta, trace + 24, 1), 'hex')) END AS traceparent,
    CASE WHEN marks IS NULL THEN json ->> 'actor'
        ELSE nullif(convert_from(substring(meta, rest, nul - 1), 'UTF8'), '') END AS actor,
    CASE WHEN marks IS NULL THEN json ->> 'tenant'
        ELSE nullif(convert_from(substring(meta, rest + nul), 'UTF8'), '') END AS tenant
FROM headwater.events
CROSS JOIN LATERAL (SELECT
    CASE WHEN substring(meta, 1, 1) BETWEEN '\x40' AND '\x47' THEN get_byte(meta, 0) - 64 END AS marks) AS a
CROSS JOIN LATERAL (SELECT 2 + (marks & 1) * 16 AS cause) AS b
CROSS JOIN LATERAL (SELECT cause + (marks & 2) / 2 * 16 AS trace) AS c
CROSS JOIN LATERAL (SELECT trace + (marks & 4) / 4 * 25 AS rest) AS d
CROSS JOIN LATERAL (SELECT
    coalesce(nullif(position('\x00'::bytea IN substring(meta, rest)), 0), octet_length(meta) + 1) AS nul,
    CASE WHEN marks IS NULL THEN
        nullif(regexp_replace(convert_from(meta, 'UTF8'), '(?<!\\)((?:\\\\)*)\\u0000', '\1\\u2400', 'g'), '')::jsonb
    END AS json) AS e;
"""
"""The log for other tools: ids, metadata and data as text. jsonb holds no NUL: the picture of one stands for it."""

SECOND: Final = """
CREATE TABLE headwater.event_tags (
    tag text COLLATE "C" NOT NULL,
    position bigint NOT NULL,
    type text COLLATE "C" NOT NULL,      -- of the event at the position
    PRIMARY KEY (tag, position)
);
"""

MIGRATIONS: Final = (FIRST + VIEW, SECOND)
