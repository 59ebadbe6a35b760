"""A member's seat in a group: rows show who is there and who has which partition, decided under one lock a group.

A member is there while its row has not expired and its process holds its lock: one that was killed is seen to be gone at
once, one that is stopped when its row expires.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from msgspec import Struct

from headwater import fault
from headwater.adapters.postgres.channel_schema import GROUPS, PRESENCE
from headwater.adapters.postgres.facts import locking
from headwater.adapters.postgres.statement import Plan, Statement

Place = tuple[str, int]
"""A topic and one of its partitions."""

TTL: Final = 6.0
"""Seconds that a member which is not heard of keeps its partitions."""
SIT: Final = f"""
INSERT INTO headwater_channel.members ("group", name, process, expires)
VALUES (%s, %s, %s, clock_timestamp() + interval '{TTL} seconds') RETURNING id
"""
STAY: Final = f"""
UPDATE headwater_channel.members SET expires = clock_timestamp() + interval '{TTL} seconds'
WHERE id = %s AND expires < clock_timestamp() + interval '{TTL * 2 / 3} seconds'
"""
BURY: Final = f"""
DELETE FROM headwater_channel.members m WHERE "group" = %s AND (expires < clock_timestamp() OR NOT EXISTS (
    SELECT FROM pg_locks WHERE locktype = 'advisory' AND classid = {PRESENCE} AND objid::bigint = m.process AND objsubid = 2
        AND database = (SELECT oid FROM pg_database WHERE datname = current_database())
))
"""
MEMBERS: Final = """SELECT id FROM headwater_channel.members WHERE "group" = %s ORDER BY id"""
SEATS: Final = """SELECT partition, member FROM headwater_channel.seats WHERE "group" = %s"""
GIVE: Final = (
    """DELETE FROM headwater_channel.seats WHERE "group" = %s AND member = %s AND partition = ANY(%s::integer[])"""
)
SEAT: Final = "INSERT INTO headwater_channel.seats SELECT %s, partition, %s FROM unnest(%s::integer[]) AS partition"
TAKE: Final = """
UPDATE headwater_channel.cursors SET epoch = epoch + 1
WHERE "group" = %s AND topic = ANY(%s::text[]) AND partition = ANY(%s::integer[])
RETURNING topic, partition, position, epoch
"""
LEAVE: Final = "DELETE FROM headwater_channel.members WHERE id = %s"


class Shared(Struct, frozen=True):
    """How the partitions are shared now: what is ours, what is to be handed over, and where what was taken begins."""

    owned: set[int]
    leaving: set[int]
    taken: dict[Place, tuple[int, int]]


class Seat:
    """A member among those of its group."""

    def __init__(self, group: str, topics: Sequence[str], partitions: int, name: str, process: int) -> None:
        self._group = group
        self._topics = list(topics)
        self._partitions = partitions
        self._name = name
        self._process = process
        self._id = 0

    def sitting(self) -> Plan[None]:
        """Be seen by the other members."""
        *_, ((self._id,),) = yield [
            *locking(GROUPS, [self._group]),
            Statement(SIT, (self._group, self._name, self._process)),
        ]

    def sharing(self, in_hand: set[int]) -> Plan[Shared | None]:
        """Hand over what is another's share and not in hand, and take what is free of one's own; None if taken for dead."""
        *_, members, seats = yield [
            *locking(GROUPS, [self._group]),
            Statement(STAY, (self._id,)),
            Statement(BURY, (self._group,)),
            Statement(MEMBERS, (self._group,)),
            Statement(SEATS, (self._group,)),
        ]
        there = [member for (member,) in members]
        if self._id not in there:
            return None
        share = set(range(there.index(self._id), self._partitions, len(there)))
        owned = {partition for partition, member in seats if member == self._id}
        given = owned - share - in_hand
        free = share - {partition for partition, _ in seats}
        taken = yield from self._moving(given, free)
        owned = (owned - given) | free
        return Shared(owned, owned - share, taken)

    def leaving(self) -> Plan[None]:
        """Free everything and be seen no more."""
        yield [*locking(GROUPS, [self._group]), Statement(LEAVE, (self._id,))]

    def _moving(self, given: set[int], free: set[int]) -> Plan[dict[Place, tuple[int, int]]]:
        if given:
            yield [Statement(GIVE, (self._group, self._id, sorted(given)))]
        if not free:
            return {}
        _, taken = yield [
            Statement(SEAT, (self._group, self._id, sorted(free))),
            Statement(TAKE, (self._group, self._topics, sorted(free))),
        ]
        fault.point("channel.taking")
        return {(topic, partition): (position, epoch) for topic, partition, position, epoch in taken}
