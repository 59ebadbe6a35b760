"""What an app declares: its deciders, read models, sagas and handlers, checked as they are added."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Sequence
from typing import Any

from msgspec import Struct

from headwater.consumer.handlers import Handler, bind
from headwater.decider import Aggregate, Decider, decider_of
from headwater.errors import DeclarationError
from headwater.message import Declared, Kind, Refused
from headwater.projection import Projection, ReadModel, projection_of
from headwater.retry import Retry
from headwater.saga import Saga
from headwater.saga.declare import Reactions, reactions_of
from headwater.schema import Schema

SERVICE = re.compile(r"[a-z][a-z0-9_-]{0,62}\Z")


class NamedHandler(Struct, frozen=True):
    """A handler with its consumer's short name and its retries."""

    name: str
    handler: Handler
    retry: Retry | None


class Declarations:
    """Everything that one app declares, by kind; names are unique."""

    def __init__(self, service: str) -> None:
        if not SERVICE.match(service):
            raise DeclarationError(
                f"{service!r} cannot name a service; use lower-case letters, digits, - and _, a letter first"
            )
        self.service = service
        self.schema = Schema(service)
        self.schema.add(Refused)
        self.deciders: dict[str, Decider] = {}
        self.aggregates: dict[type, Decider] = {}
        self.projections: dict[str, Projection] = {}
        self.sagas: dict[str, Reactions] = {}
        self.handlers: dict[str, NamedHandler] = {}

    def add(self, declared: Any) -> None:
        """Add a class of messages, an aggregate, a decider, a read model or a saga."""
        if isinstance(declared, Decider):
            self._add_decider(declared)
        elif not isinstance(declared, type):
            raise DeclarationError(f"{declared!r} is not a class or Decider that an app can take")
        elif issubclass(declared, Aggregate):
            self.aggregates[declared] = self._add_decider(decider_of(declared, self.service))
        elif issubclass(declared, ReadModel):
            self._add_projection(projection_of(declared))
        elif issubclass(declared, Saga):
            reactions = reactions_of(declared)
            self._learn({*reactions.react, *reactions.evolve})
            self._name(self.sagas, declared.__named__, reactions)
        else:
            self.schema.add(declared)

    def adopt(self, payload: type, kind: Kind, declared: Declared) -> None:
        """Add a class that is not ours as a message."""
        if kind not in ("event", "command"):
            raise DeclarationError(f"kind {kind!r}: a message is an event or a command")
        self.schema.add(payload, declared)

    def on(self, function: Callable[..., Any], messages: Sequence[type], name: str, retry: Retry | None) -> None:
        """Add a handler function."""
        handler = bind(function, messages)
        self._learn(handler.messages)
        for message in handler.messages:
            if self.schema.of(message).kind == "command":
                raise DeclarationError(
                    f"{function.__qualname__}: {message.__name__} is a command; an aggregate or Decider decides commands"
                )
        self._name(self.handlers, name or function.__name__, NamedHandler(name or function.__name__, handler, retry))

    def _add_decider(self, decider: Decider) -> Decider:
        category = (
            decider.category
            if decider.category.startswith(f"{self.service}.")
            else f"{self.service}.{decider.category}"
        )
        full = Decider(category, decider.key, decider.initial, decider.decide, decider.evolve)
        self._learn([*full.decide, *full.evolve])
        for event in full.evolve:
            found = self.schema.of(event)
            if found.service == self.service and found.category and f"{found.service}.{found.category}" != category:
                raise DeclarationError(
                    f"{event.__name__} says category={found.category!r}, but {category} writes it; they must agree"
                )
        for command in full.decide:
            if self.schema.of(command).service != self.service:
                raise DeclarationError(
                    f"{command.__name__} belongs to the service {self.schema.of(command).service!r}, not {self.service!r}"
                )
        self._name(self.deciders, category, full)
        return full

    def _add_projection(self, projection: Projection) -> None:
        self._learn(projection.evolve)
        if projection.model.__inline__ and any(
            self.schema.of(event).service != self.service for event in projection.evolve
        ):
            raise DeclarationError(
                f"{projection.model.__name__} is inline, but an event of another service is never in this service's commit"
            )
        self._name(self.projections, projection.table.name, projection)

    def _learn(self, messages: Iterable[type]) -> None:
        for message in sorted(messages, key=lambda one: one.__qualname__):
            self.schema.add(message)

    def _name(self, kind: dict[str, Any], name: str, value: Any) -> None:
        if name in {*self.deciders, *self.projections, *self.sagas, *self.handlers, "commands", "relay", "channel"}:
            raise DeclarationError(f"the name {name!r} is taken in {self.service}; give this one another `name=`")
        kind[name] = value
