"""Decisions over events of several streams: a dynamic consistency boundary (DCB).

What a decision rests on is said where it is folded: each evolve function takes events of some classes that carry the command's
tags. These make the query of the decision, and so the condition of its append: no other such event has come since.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any

from msgspec import Struct

from headwater.decider import (
    Decide,
    Deciding,
    Evolve,
    argument_types,
    category_of,
    field_types,
    has_field,
    methods_by_type,
)
from headwater.errors import DeclarationError
from headwater.message import tag_of
from headwater.schema import Schema
from headwater.store import Item


class Part(Struct, frozen=True):
    """What a decision rests on in part: events of some classes, whose tags are fields of the command, and what they change.

    `by` has the field of the command for each tag; with none, all events of these classes are meant.
    """

    events: tuple[type, ...]
    by: Mapping[str, str]
    evolve: Evolve


class Boundary(Struct, frozen=True):
    """How one kind of decision is made: `Decider` for what no single stream has. Its events go to the stream of the key."""

    category: str
    key: str
    initial: Callable[[], Any]
    decide: Mapping[type, Decide]
    parts: Sequence[Part]


class Query(Struct, frozen=True):
    """What a decision on one command asks for, and what each of its items changes."""

    items: tuple[Item, ...]
    evolvers: tuple[Evolve, ...]

    def fold(self, state: Any, events: Iterable[tuple[Any, Iterable[int]]]) -> Any:
        """The state after some events, each with the places of the items that take it."""
        for event, places in events:
            for place in places:
                changed = self.evolvers[place](state, event)
                state = state if changed is None else changed
        return state

    def takers(self, name: str, tags: Sequence[str]) -> list[int]:
        """The places of the items that take an event of a type with such tags."""
        return [place for place, item in enumerate(self.items) if item.takes(name, tags)]


def query_of(boundary: Boundary, command: Any, schema: Schema) -> Query:
    """What a decision on a command asks for; a part by a field that is None asks for nothing."""
    items, evolvers = [], []
    for part in boundary.parts:
        values = {tag: getattr(command, field) for tag, field in part.by.items()}
        if None not in values.values():
            names = sorted({name for event in part.events for name in schema.names(event)})
            items.append(Item(tuple(names), tuple(sorted(tag_of(tag, value) for tag, value in values.items()))))
            evolvers.append(part.evolve)
    return Query(tuple(items), tuple(evolvers))


class Decision(Deciding):
    """One decision over several streams: fields with defaults, `@decide` for commands, `@evolve(by=…)` for events.

    An evolve method takes the events that carry the tags named by `by`, with the values that the command has in the fields of
    these names; `by={"tag": "field"}` where the field has another. Class keywords: `key`, the name of the command field that
    names the stream of its events, and `category`, the stored name of these streams (by default `<service>.<ClassName>`).
    """


def boundary_of(decision: type[Decision], service: str) -> Boundary:
    """The boundary behind a decision class; DeclarationError where the class cannot work."""
    if not decision.__key__:
        raise DeclarationError(
            f"class {decision.__name__}(Decision, key=…): name the command field that names its stream"
        )
    field_types(decision)
    decide = methods_by_type(decision, "__decides__")
    parts = list(_parts(decision))
    for command in decide:
        for field in (decision.__key__, *(field for part in parts for field in part.by.values())):
            if not has_field(command, field):
                raise DeclarationError(
                    f"{command.__name__} has no field {field!r}, by which {decision.__name__} decides"
                )
    return Boundary(category_of(decision, service), decision.__key__, decision, decide, parts)


def _parts(decision: type[Decision]) -> Iterator[Part]:
    """A part for each evolve method, in the order in which they are written."""
    names = dict.fromkeys(name for base in reversed(decision.__mro__) for name in vars(base))
    for method in (getattr(decision, name) for name in names):
        if not hasattr(method, "__evolves__"):
            continue
        by = getattr(method, "__by__", None)
        if by is None:
            raise DeclarationError(
                f"{method.__qualname__}: say which events it means: @evolve(by=…) with the fields in which they agree "
                "with the command, or by=() for all there are"
            )
        yield Part(argument_types(method, skip=1), by, method)
