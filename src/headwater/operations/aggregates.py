"""An aggregate as it is, or as it was at a version or a time, with how it came to be so."""

from __future__ import annotations

from typing import Any, Final

import msgspec
from msgspec import Struct

from headwater.app import App
from headwater.clock import iso
from headwater.database import Database
from headwater.decider import Decider, fold
from headwater.errors import NotFound
from headwater.message import Recorded, stream_of
from headwater.operations.events import is_named, plain

PAGE: Final = 1000


class Change(Struct, frozen=True):
    """One event in the history of an aggregate."""

    version: int
    position: int
    time: str
    type: str
    id: str
    actor: str
    data: Any


class AggregateState(Struct, frozen=True):
    """The state of an aggregate after `version`, as plain values, and the events up to it."""

    stream: str
    version: int
    time: str
    state: Any
    history: list[Change]


async def aggregate_state(
    app: App, database: Database, name: str, key: str, *, version: int = 0, at: int | None = None, tenant: str = ""
) -> AggregateState:
    """The state of the aggregate `name` (category or class name) at `version` (0: the newest) or a time (microseconds).

    Raises NotFound.
    """
    decider = find_decider(app, name)
    stream = stream_of(decider.category, key, tenant)
    events = await _history(database, stream, version, at)
    if not events:
        raise NotFound(f"{stream} has no events{' by then' if at is not None else ''}; check the key")
    if version and events[-1].version < version:
        raise NotFound(f"{stream} has not reached version {version}; it is at {events[-1].version}")
    state = decider.initial()
    for one in events:
        if one.kind == "event":
            state = fold(decider.evolve, state, (app.schema.decode(one.type, one.type_version, one.data),))
    last = events[-1]
    return AggregateState(stream, last.version, iso(last.time), to_plain(state), [_change(one) for one in events])


def find_decider(app: App, name: str) -> Decider:
    """The decider of an aggregate, by its category (whole or without the service) or its class name. Raises NotFound."""
    for aggregate, decider in app.declared.aggregates.items():
        if aggregate.__name__ == name:
            return decider
    for category, decider in app.declared.deciders.items():
        if is_named(category, name):
            return decider
    known = ", ".join(sorted(app.declared.deciders)) or "none"
    raise NotFound(f"{app.name} has no aggregate {name!r}; it has: {known}")


def to_plain(state: Any) -> Any:
    """A state as plain values, whatever it is made of."""
    fields = vars(state) if hasattr(state, "__dict__") else state
    return msgspec.to_builtins(fields, enc_hook=repr, str_keys=True)


async def _history(database: Database, stream: str, version: int, at: int | None) -> list[Recorded]:
    found: list[Recorded] = []
    while page := await database.read_stream(stream, found[-1].version if found else 0, PAGE):
        for one in page:
            if (version and one.version > version) or (at is not None and one.time > at):
                return found
            found.append(one)
    return found


def _change(one: Recorded) -> Change:
    return Change(one.version, one.position, iso(one.time), one.type, one.id, one.metadata.actor, plain(one))
