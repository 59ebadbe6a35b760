"""The events that a query takes: by tag from `event_tags`, which has the position and type of each tagged event.

An item without tags walks over the log from where its reader was.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final

import apsw

from headwater.adapters.sqlite import rows
from headwater.adapters.sqlite.file import Reader, fetch
from headwater.database import Judgement
from headwater.store import Condition, Item, Relevant, Seen

TAGGED: Final = """
SELECT t.position FROM event_tags t WHERE t.tag = ?1 AND t.position > ?2 AND t.position <= ?3
AND t.position NOT IN (SELECT value FROM json_each(?4)) AND (?5 = '[]' OR t.type IN (SELECT value FROM json_each(?5)))
AND NOT EXISTS (SELECT 1 FROM json_each(?6) j WHERE NOT EXISTS
    (SELECT 1 FROM event_tags o WHERE o.tag = j.value AND o.position = t.position))
LIMIT ?7
"""
TYPED: Final = """
SELECT position FROM events WHERE position > ?2 AND position <= ?3 AND kind = 'event'
AND position NOT IN (SELECT value FROM json_each(?4)) AND type IN (SELECT value FROM json_each(?5)) LIMIT ?7
"""
FEW: Final = "SELECT count(*) FROM (SELECT 1 FROM event_tags WHERE tag = ? LIMIT 1000)"
AT: Final = (
    f"SELECT {rows.EVENT} FROM (SELECT value AS wanted FROM json_each(?)) CROSS JOIN events ON position = wanted"
)
HEAD: Final = "SELECT coalesce(max(position), 0) FROM events"
END: Final = 2**63 - 1
ALL: Final = -1


def is_unmet(connection: apsw.Connection, condition: Condition) -> bool:
    """Whether an event stands that a condition has not seen."""
    return any(fetch(connection, *_positions(item, item.tags, condition.seen, END, 1)) for item in condition.items)


def read_relevant(reader: Reader, items: Sequence[Item], seen: Seen) -> Relevant:
    """The events that one of the items takes and that were not seen before.

    What is committed while it reads stands above the head that it began with, and is left for the next time.
    """
    head = reader.value(HEAD)
    takers: dict[int, list[int]] = {}
    for place, item in enumerate(items):
        for (position,) in reader.rows(*_positions(item, _rarest_first(reader, item.tags), seen, head, ALL)):
            takers.setdefault(position, []).append(place)
    found = rows.recorded(reader.rows(AT, (rows.as_text(sorted(takers)),))) if takers else []
    return Relevant([(one, takers[one.position]) for one in found], Seen(head))


def _positions(item: Item, tags: Sequence[str], seen: Seen, last: int, limit: int) -> tuple[str, tuple[Any, ...]]:
    """The statement for the positions of an item's events, found by the first of its tags."""
    first, others = (tags[0], rows.as_text(tags[1:])) if tags else (None, None)
    values = (first, seen.safe, last, rows.as_text(seen.above), rows.as_text(item.types), others, limit)
    return (TAGGED if tags else TYPED), values


def _rarest_first(reader: Reader, tags: Sequence[str]) -> Sequence[str]:
    return sorted(tags, key=lambda tag: int(reader.value(FEW, (tag,)))) if len(tags) > 1 else tags


def tag_rows(judged: Judgement) -> list[rows.Row]:
    """The rows of `event_tags` for the events that are to be written."""
    tagged = ((judged.recorded[place], tags) for place, tags in judged.tags.items())
    return [(tag, one.position, one.type) for one, tags in tagged for tag in tags]
