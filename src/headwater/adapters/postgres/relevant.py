"""The events that a query takes: by tag from `event_tags`, which has the position and type of each tagged event.

Who appends locks the type and the tags of its events, shared; who appends on a condition locks what it asked for, exclusive:
of each item one tag, which whatever it takes must carry, or the types where it names no tag. Whether a condition holds is then
looked at in a statement of its own, which sees what the holders before have left. Locks are wider than the question, since
types and tags are locked apart and share some buckets, but the look is exact.
"""

from __future__ import annotations

import asyncio
from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from typing import Any, Final

from headwater.adapters.postgres.rows import EVENT
from headwater.adapters.postgres.server import Pool
from headwater.adapters.postgres.statement import Row, Statement
from headwater.database import Judgement, WriteSet
from headwater.message import Recorded
from headwater.store import Condition, Item, Seen

ASKED: Final = """
unnest(%s::integer[], %s::bigint[], %s::text[], %s::text[], %s::text[]) AS w (place, safe, above, types, tags)
CROSS JOIN LATERAL (
    SELECT w.above::bigint[] AS above, w.types::text[] AS types, array_agg(n.tag ORDER BY c.few) AS tags
    FROM unnest(w.tags::text[]) AS n (tag) CROSS JOIN LATERAL
    (SELECT count(*) AS few FROM (SELECT FROM headwater.event_tags t WHERE t.tag = n.tag LIMIT 1000) AS thousand) AS c
) AS a
"""
"""The items, the rarest of their tags first; with no tags there are none in `tags`."""
TAKEN: Final = """
SELECT t.position FROM headwater.event_tags t WHERE t.tag = a.tags[1] AND t.position > w.safe
AND t.position <> ALL (a.above) AND (a.types = '{}' OR t.type = ANY (a.types))
AND NOT EXISTS (SELECT FROM unnest(a.tags[2:]) AS other WHERE NOT EXISTS
    (SELECT FROM headwater.event_tags o WHERE o.tag = other AND o.position = t.position))
UNION ALL
SELECT e.position FROM headwater.events e WHERE a.tags IS NULL AND e.position > w.safe
AND e.position <> ALL (a.above) AND e.kind = 'event' AND e.type = ANY (a.types)
"""
UNMET: Final = f"SELECT DISTINCT w.place FROM {ASKED} WHERE EXISTS ({TAKEN})"
RELEVANT: Final = f"""
SELECT places, {EVENT} FROM (
    SELECT position, array_agg(place ORDER BY place) AS places FROM {ASKED} CROSS JOIN LATERAL ({TAKEN}) AS taken
    GROUP BY position
) AS found JOIN headwater.events USING (position) ORDER BY position
"""
TAGS: Final = """
INSERT INTO headwater.event_tags (tag, position, type)
SELECT w.tag, e.position, e.type FROM unnest(%s::text[], %s::text[], %s::bigint[]) AS w (tag, stream, version)
JOIN headwater.events e ON e.stream = w.stream AND e.version = w.version
"""


class Query:
    """Items that somebody asks for, what was seen of them, and the events that were found, once they are."""

    __slots__ = ("found", "items", "seen")

    def __init__(self, items: Sequence[Item], seen: Seen) -> None:
        self.items = items
        self.seen = seen
        self.found: list[tuple[Recorded, list[int]]] | None = None


class Together:
    """Queries that wait while others are looked up are looked up next, in one statement."""

    def __init__(self, pool: Pool) -> None:
        self._pool = pool
        self._turn = asyncio.Lock()
        self._waiting: list[Query] = []

    async def find(self, items: Sequence[Item], seen: Seen) -> list[tuple[Recorded, list[int]]]:
        """The events that one of the items takes and that were not seen, as they are after the call."""
        mine = Query(items, seen)
        self._waiting.append(mine)
        async with self._turn:
            if mine.found is None:
                await self._find_all(mine)
        return mine.found or []

    async def _find_all(self, mine: Query) -> None:
        """Look up all that wait; where that fails, the others are left to the next of them."""
        queries, self._waiting = self._waiting, []
        asks = [(query, place) for query in queries for place in range(len(query.items))]
        rows = asked((number, query.items[place], query.seen) for number, (query, place) in enumerate(asks))
        try:
            (found,) = await self._pool.rows(Statement(RELEVANT, list(map(list, zip(*rows, strict=True)))))
        except BaseException:
            self._waiting = [*(one for one in queries if one is not mine), *self._waiting]
            raise
        for query in queries:
            query.found = []
        for numbers, *row in found:
            recorded, places = Recorded(*row), defaultdict(list)
            for number in numbers:
                query, place = asks[number]
                places[query].append(place)
            for query, some in places.items():
                query.found.append((recorded, some))


def asked(places: Iterable[tuple[int, Item, Seen]]) -> list[Row]:
    """The rows of `ASKED` for items, each with its place and what was seen."""
    return [
        (place, seen.safe, _array(seen.above), _array(item.types), _array(item.tags)) for place, item, seen in places
    ]


def conditions_of(conditions: Iterable[Condition]) -> list[Row]:
    """The rows of `ASKED` for the items of conditions, by the places of these."""
    return asked((place, item, one.seen) for place, one in enumerate(conditions) for item in one.items)


def bounds(writes: Sequence[WriteSet]) -> dict[str, bool]:
    """The names to be locked for the events of some sets and for their conditions, and whether exclusively."""
    found: dict[str, bool] = {}
    for write in writes:
        for append in write.appends:
            for draft in append.drafts:
                if draft.kind == "event":
                    found[f"type {draft.type}"] = False
                    for tag in draft.tags:
                        found[f"tag {tag}"] = False
    found.update((name, True) for write in writes for one in write.conditions for name in _asked_for(one.items))
    return found


def _asked_for(items: Iterable[Item]) -> Iterator[str]:
    for item in items:
        yield from (f"tag {item.tags[0]}",) if item.tags else (f"type {one}" for one in item.types)


def tag_rows(judged: Judgement) -> list[Row]:
    """The rows of `TAGS` for the events that are to be written."""
    tagged = ((judged.recorded[place], tags) for place, tags in judged.tags.items())
    return [(tag, one.stream, one.version) for one, tags in tagged for tag in tags]


def tagging(judged: Judgement) -> list[Statement]:
    """The statement that writes the tags of events, once these stand."""
    rows = tag_rows(judged)
    return [Statement(TAGS, list(map(list, zip(*rows, strict=True))))] if rows else []


def _array(values: Sequence[Any]) -> str:
    """Values as PostgreSQL writes an array: arrays of unequal length are no array."""
    return "{%s}" % ",".join('"%s"' % str(value).replace("\\", "\\\\").replace('"', '\\"') for value in values)  # noqa: UP031 - braces
