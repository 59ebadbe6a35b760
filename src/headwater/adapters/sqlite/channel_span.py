"""Which places a member has read how far: places that have come equally far are read together, by one statement."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

from msgspec import Struct

from headwater.adapters.sqlite.channel_schema import fetch_sql
from headwater.adapters.sqlite.channel_writes import Place


class Span(Struct, frozen=True):
    """Places that are read up to the position `at`, and the statement that reads on; its topics and partitions (bits)."""

    at: int
    places: tuple[Place, ...]
    sql: str
    parameters: tuple[str | int, ...]

    def moved(self, at: int) -> Span:
        """The same places, read further."""
        return Span(at, self.places, self.sql, self.parameters)


def span(at: int, places: Iterable[Place]) -> Span:
    """The span of some places."""
    masks: dict[str, int] = {}
    given = tuple(places)
    for topic, partition in given:
        masks[topic] = masks.get(topic, 0) | 1 << partition
    parameters = tuple(part for pair in masks.items() for part in pair)
    return Span(at, given, fetch_sql(len(masks)), parameters)


def spans(reached: Mapping[Place, int]) -> list[Span]:
    """The spans of places that are read to different positions, the furthest behind first."""
    by_position: dict[int, list[Place]] = {}
    for place, at in reached.items():
        by_position.setdefault(at, []).append(place)
    return [span(at, by_position[at]) for at in sorted(by_position)]


def advanced(old: Sequence[Span], at: int) -> list[Span]:
    """The first span moved to a position, which is not beyond the second's: where they meet they become one."""
    first, *rest = old
    if rest and rest[0].at == at:
        return [span(at, first.places + rest[0].places), *rest[1:]]
    return [first.moved(at), *rest]
