"""What is written to a channel file: each request is applied in the writer's thread, within a transaction of many.

Every step of a statement lets go of the interpreter's lock, and a busy thread keeps it for 5 ms: so rows are written many
to a statement. Beside a thread that computes, `executemany` took from 20 ms up to a second for 500 rows, this 10 to 30 ms.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final, Protocol, TypeVar

import apsw
import msgspec
from msgspec import Struct

from headwater import fault
from headwater.adapters.sqlite.channel_schema import HEAD
from headwater.errors import ChannelError

Result_co = TypeVar("Result_co", covariant=True)
Place = tuple[str, int]
"""A topic and one of its partitions."""
Cursor = tuple[str, str, int, int, int]
"""Group, topic, partition, epoch and the position up to which all is acknowledged."""

SIZES: Final = (256, 64, 16, 4, 1)
"""How many rows one statement writes."""
COLUMNS: Final = "topic, partition, {}, for_group, key, headers, body"
WIDTH: Final = 7


def _statements(into: str) -> dict[int, str]:
    return {size: into + ", ".join(["(?, ?, ?, ?, ?, ?, ?)"] * size) for size in SIZES}


MESSAGES: Final = _statements(f"INSERT INTO messages ({COLUMNS.format('time')}) VALUES ")
DELAYED: Final = _statements(f"INSERT INTO delayed ({COLUMNS.format('due')}) VALUES ")

_json = msgspec.json.Encoder().encode
_decode = msgspec.json.Decoder(Cursor).decode


class Write(Protocol[Result_co]):
    """A request to the writer of a channel file."""

    def apply(self, connection: apsw.Connection) -> Result_co:
        """Write it; it may be applied again after its transaction failed."""
        ...


class Publish(Struct, frozen=True):
    """Rows of messages and of delayed ones, flat, and the position of their producer."""

    messages: list[Any]
    delayed: list[Any]
    producer: str
    position: int
    epoch: int

    def apply(self, connection: apsw.Connection) -> ChannelError | None:
        """Write all; a ChannelError if a producer of a newer epoch has published."""
        if self.producer:
            found = _first(connection, "SELECT epoch FROM producers WHERE name = ?", (self.producer,))
            if found is not None and found > self.epoch:
                return ChannelError(
                    f"another relay of {self.producer} has taken over: this one, of epoch {self.epoch}, stops"
                )
            sql = "INSERT INTO producers VALUES (?, ?, ?) ON CONFLICT DO UPDATE SET position = max(position, ?2), epoch = ?3"
            connection.execute(sql, (self.producer, self.position, self.epoch))
        _insert(connection, MESSAGES, self.messages)
        _insert(connection, DELAYED, self.delayed)
        fault.point("channel.publishing")
        return None


class MoveDue(Struct, frozen=True):
    """Put what is due among the messages, `limit` at a time."""

    now: int
    limit: int = 1_000

    def apply(self, connection: apsw.Connection) -> None:
        """Move them in order of time."""
        due = "FROM delayed WHERE due <= ?1 ORDER BY due, id LIMIT ?2"
        into = f"INSERT INTO messages ({COLUMNS.format('time')}) SELECT {COLUMNS.format('due')} {due}"
        connection.execute(into, (self.now, self.limit))
        fault.point("channel.moving")
        connection.execute(f"DELETE FROM delayed WHERE id IN (SELECT id {due})", (self.now, self.limit))


class Join(Struct, frozen=True):
    """Give each topic that is new to a group its start."""

    group: str
    topics: Sequence[str]
    partitions: int
    now: bool

    def apply(self, connection: apsw.Connection) -> None:
        """Write cursors where there are none."""
        start = (_first(connection, HEAD) or 0) if self.now else 0
        places = [(topic, partition) for topic in self.topics for partition in range(self.partitions)]
        connection.execute(
            "INSERT INTO cursors SELECT ?1, value ->> 0, value ->> 1, ?2, 0 FROM json_each(?3) WHERE true ON CONFLICT DO NOTHING",
            (self.group, start, _json(places).decode()),
        )
        fault.point("channel.joining")


class Take(Struct, frozen=True):
    """Take partitions for a member that has locked them: nobody who had them before can move their cursors any more."""

    group: str
    topics: Sequence[str]
    partitions: Sequence[int]

    def apply(self, connection: apsw.Connection) -> dict[Place, tuple[int, int]]:
        """Raise the epochs; the position and epoch of each place."""
        rows: list[Any] = connection.execute(
            """
            UPDATE cursors SET epoch = epoch + 1 WHERE "group" = ?
            AND topic IN (SELECT value FROM json_each(?)) AND partition IN (SELECT value FROM json_each(?))
            RETURNING topic, partition, position, epoch
            """,
            (self.group, _json(self.topics).decode(), _json(self.partitions).decode()),
        ).fetchall()
        fault.point("channel.taking")
        return {(topic, partition): (position, epoch) for topic, partition, position, epoch in rows}


class Settle(Struct, frozen=True):
    """Move cursors."""

    cursors: Sequence[Cursor]

    def apply(self, connection: apsw.Connection) -> list[Cursor]:
        """Move those whose epoch still holds; the others."""
        given = _json(self.cursors).decode()
        here = """c."group" = value ->> 0 AND c.topic = value ->> 1 AND c.partition = value ->> 2 AND c.epoch = value ->> 3"""
        sql = f"UPDATE cursors AS c SET position = max(position, value ->> 4) FROM json_each(?) WHERE {here}"
        before = connection.total_changes()
        connection.execute(sql, (given,))
        fault.point("channel.settling")
        if connection.total_changes() - before == len(self.cursors):
            return []
        lost = f"SELECT value FROM json_each(?) WHERE NOT EXISTS (SELECT 1 FROM cursors c WHERE {here})"
        rows: list[Any] = connection.execute(lost, (given,)).fetchall()
        return [_decode(value) for (value,) in rows]


class Trim(Struct, frozen=True):
    """Delete what is older than a time and behind the cursors of all groups, from a position on, a chunk at a time."""

    after: int
    before: int
    chunk: int = 500

    def apply(self, connection: apsw.Connection) -> tuple[int, int]:
        """Delete in one chunk; the position to go on from (0: this was the end), and how many went."""
        sql = "SELECT position, time FROM messages WHERE position > ? ORDER BY position LIMIT 1"
        first: list[Any] = connection.execute(sql, (self.after,)).fetchall()
        if not first or first[0][1] >= self.before:
            return 0, 0
        before = connection.total_changes()
        last = first[0][0] + self.chunk - 1
        connection.execute(
            """
            DELETE FROM messages AS m WHERE m.position BETWEEN ? AND ? AND m.time < ? AND NOT EXISTS
            (SELECT 1 FROM cursors c WHERE c.topic = m.topic AND c.partition = m.partition AND c.position < m.position)
            """,
            (first[0][0], last, self.before),
        )
        fault.point("channel.trimming")
        return last, connection.total_changes() - before


class Prepare(Struct, frozen=True):
    """Set the number of partitions, once for the life of the file."""

    partitions: int

    def apply(self, connection: apsw.Connection) -> int:
        """The number that holds."""
        connection.execute("INSERT INTO channel SELECT ? WHERE NOT EXISTS (SELECT 1 FROM channel)", (self.partitions,))
        return int(_first(connection, "SELECT partitions FROM channel"))


def _first(connection: apsw.Connection, sql: str, parameters: Sequence[Any] = ()) -> Any:
    rows = connection.execute(sql, parameters).fetchall()
    return rows[0][0] if rows else None


def _insert(connection: apsw.Connection, statements: dict[int, str], flat: list[Any]) -> None:
    at, end = 0, len(flat)
    for size in SIZES:
        while end - at >= size * WIDTH:
            connection.execute(statements[size], flat[at : at + size * WIDTH])
            at += size * WIDTH
