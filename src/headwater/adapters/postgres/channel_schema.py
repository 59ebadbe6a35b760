"""The tables of a channel, as versioned forward migrations, in a schema of their own, and the statements that read them.

Who publishes holds a lock of each partition that it writes to, until its end: within a partition positions rise in the
order of commits, so that whoever reads on from the last one misses nothing.
"""

from __future__ import annotations

from typing import Final

COMPONENT: Final = "channel"

PARTITION_ENDS: Final = 1_212_962_647
"""The space of advisory locks that guard the ends of partitions."""
GROUPS: Final = 1_212_962_648
"""The space of advisory locks under which a group shares its partitions."""
PRESENCE: Final = 1_212_962_649
"""The space of advisory locks that processes hold for as long as they live."""
MOVER: Final = 1_212_962_650
"""The space of the advisory lock of who moves what is due."""

FIRST: Final = """
CREATE SCHEMA headwater_channel;
CREATE SEQUENCE headwater_channel.positions AS bigint CACHE 1;

CREATE TABLE headwater_channel.messages (
    position bigint NOT NULL DEFAULT nextval('headwater_channel.positions'),
    time bigint NOT NULL,                -- when it was published, or was due; microseconds since 1970
    partition integer NOT NULL,
    topic text COLLATE "C" NOT NULL,
    for_group text COLLATE "C",          -- NULL: for every group
    key bytea NOT NULL,                  -- UTF-8
    headers bytea NOT NULL,              -- JSON in UTF-8
    body bytea NOT NULL,
    PRIMARY KEY (topic, partition, position)
);

CREATE TABLE headwater_channel.delayed (
    id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    due bigint NOT NULL,
    partition integer NOT NULL,
    topic text COLLATE "C" NOT NULL,
    for_group text COLLATE "C",
    key bytea NOT NULL,
    headers bytea NOT NULL,
    body bytea NOT NULL
);
CREATE INDEX delayed_by_due ON headwater_channel.delayed (due, id);

CREATE TABLE headwater_channel.cursors (
    "group" text COLLATE "C" NOT NULL,
    topic text COLLATE "C" NOT NULL,
    partition integer NOT NULL,
    position bigint NOT NULL,            -- all up to it is acknowledged
    epoch bigint NOT NULL,               -- raised whenever a member takes the partition
    PRIMARY KEY ("group", topic, partition)
) WITH (fillfactor = 50);
CREATE INDEX cursors_by_place ON headwater_channel.cursors (topic, partition);

CREATE TABLE headwater_channel.members (
    id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    "group" text COLLATE "C" NOT NULL,
    name text NOT NULL,
    process integer NOT NULL,            -- which holds an advisory lock of this number
    expires timestamptz NOT NULL         -- by the server's clock
) WITH (fillfactor = 50);
CREATE INDEX members_by_group ON headwater_channel.members ("group");

CREATE TABLE headwater_channel.seats (
    "group" text COLLATE "C" NOT NULL,
    partition integer NOT NULL,
    member bigint NOT NULL REFERENCES headwater_channel.members ON DELETE CASCADE,
    PRIMARY KEY ("group", partition)
);

CREATE TABLE headwater_channel.producers (
    name text COLLATE "C" PRIMARY KEY,
    position bigint NOT NULL,
    epoch bigint NOT NULL
) WITH (fillfactor = 50);

CREATE TABLE headwater_channel.settings (
    partitions integer NOT NULL
);
CREATE UNIQUE INDEX settings_once ON headwater_channel.settings ((true));
"""

MIGRATIONS: Final = (FIRST,)

HEAD: Final = "SELECT CASE WHEN is_called THEN last_value ELSE 0 END FROM headwater_channel.positions"
NEXT_DUE: Final = "SELECT min(due) FROM headwater_channel.delayed"
PRODUCER: Final = "SELECT position FROM headwater_channel.producers WHERE name = %s"
PARTITIONS: Final = "INSERT INTO headwater_channel.settings VALUES (%s) ON CONFLICT DO NOTHING"
PARTITIONED: Final = "SELECT partitions FROM headwater_channel.settings"

PUBLISHED: Final = """
WITH told AS (
    INSERT INTO headwater_channel.producers AS p VALUES (%s, %s, %s)
    ON CONFLICT (name) DO UPDATE SET position = greatest(p.position, excluded.position), epoch = excluded.epoch
    WHERE p.epoch <= excluded.epoch RETURNING 1
) SELECT headwater.expect(count(*), 1) FROM told
"""
MESSAGES: Final = """
INSERT INTO headwater_channel.messages (time, partition, topic, for_group, key, headers, body)
SELECT * FROM unnest(%s::bigint[], %s::integer[], %s::text[], %s::text[], %s::bytea[], %s::bytea[], %s::bytea[])
"""
DELAYED: Final = """
INSERT INTO headwater_channel.delayed (due, partition, topic, for_group, key, headers, body)
SELECT * FROM unnest(%s::bigint[], %s::integer[], %s::text[], %s::text[], %s::bytea[], %s::bytea[], %s::bytea[])
"""
DUE: Final = """
SELECT id, due, partition, topic, for_group, key, headers, body FROM headwater_channel.delayed
WHERE due <= %s ORDER BY due, id LIMIT 1000
"""
MOVED: Final = "DELETE FROM headwater_channel.delayed WHERE id = ANY(%s::bigint[])"

FETCH: Final = """
SELECT m.* FROM unnest(%(order)s::integer[]) AS turn CROSS JOIN LATERAL (
    SELECT one.position, w.topic, w.partition, one.key, one.headers, one.body
    FROM unnest(%(topics)s::text[], %(partitions)s::integer[], %(after)s::bigint[]) AS w (topic, partition, after)
    CROSS JOIN LATERAL (
        SELECT position, key, headers, body FROM headwater_channel.messages
        WHERE topic = w.topic AND partition = w.partition AND position > w.after
            AND (for_group IS NULL OR for_group = %(group)s)
        ORDER BY position LIMIT %(limit)s
    ) AS one
    WHERE w.partition = turn ORDER BY one.position LIMIT %(limit)s
) AS m LIMIT %(limit)s
"""
"""Partition by partition, each in order of position, and no further than the limit."""
JOIN: Final = """
INSERT INTO headwater_channel.cursors
SELECT %s, named, place, CASE WHEN %s THEN coalesce((
    SELECT max(position) FROM headwater_channel.messages WHERE topic = named AND partition = place
), 0) ELSE 0 END, 0
FROM unnest(%s::text[]) AS named CROSS JOIN generate_series(0, %s - 1) AS place ON CONFLICT DO NOTHING
"""
SETTLE: Final = """
UPDATE headwater_channel.cursors c SET position = greatest(c.position, w.position)
FROM unnest(%s::text[], %s::text[], %s::integer[], %s::bigint[], %s::bigint[]) AS w ("group", topic, partition, epoch, position)
WHERE c."group" = w."group" AND c.topic = w.topic AND c.partition = w.partition AND c.epoch = w.epoch
RETURNING c."group", c.topic, c.partition
"""
LAG: Final = """
SELECT c."group", c.topic, count(m.position), min(m.time) FROM headwater_channel.cursors c
LEFT JOIN headwater_channel.messages m ON m.topic = c.topic AND m.partition = c.partition AND m.position > c.position
    AND (m.for_group IS NULL OR m.for_group = c."group")
WHERE %(group)s::text IS NULL OR c."group" = %(group)s GROUP BY 1, 2 ORDER BY 1, 2
"""
TRIM: Final = """
WITH RECURSIVE places AS (
    (SELECT topic, partition FROM headwater_channel.messages ORDER BY topic, partition LIMIT 1)
    UNION ALL
    SELECT n.topic, n.partition FROM places p CROSS JOIN LATERAL (
        SELECT topic, partition FROM headwater_channel.messages
        WHERE (topic, partition) > (p.topic, p.partition) ORDER BY topic, partition LIMIT 1
    ) AS n
), old AS (
    SELECT m.topic, m.partition, m.position FROM places p CROSS JOIN LATERAL (
        SELECT topic, partition, position, time FROM headwater_channel.messages
        WHERE topic = p.topic AND partition = p.partition AND position <= coalesce((
            SELECT min(c.position) FROM headwater_channel.cursors c WHERE c.topic = p.topic AND c.partition = p.partition
        ), 9223372036854775807) ORDER BY position LIMIT 1000
    ) AS m WHERE m.time < %s
), gone AS (
    DELETE FROM headwater_channel.messages m USING old
    WHERE m.topic = old.topic AND m.partition = old.partition AND m.position = old.position RETURNING 1
) SELECT count(*) FROM gone
"""
"""Deletes the first messages of each place that are old and behind the cursors of all groups."""
