"""What an app declares: its deciders, read models, sagas and handlers, checked as they are added."""

from __future__ import annotations

import re
import typing
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

from msgspec import Struct
from msgspec.structs import replace

from headwater.consumer import Listened
from headwater.consumer.handlers import Handler, bind
from headwater.decider import Aggregate, Decider, decider_of
from headwater.decision import Boundary, Decision, boundary_of
from headwater.errors import DeclarationError
from headwater.message import Command, Declared, Event, Kind, Refused
from headwater.projection import Projection, ReadModel, projection_of
from headwater.retry import Retry
from headwater.saga import Saga
from headwater.saga.declare import Reactions, reactions_of
from headwater.schema import Schema

SERVICE = re.compile(r"[a-z][a-z0-9_-]{0,62}\Z")
NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_.-]*\Z")
TAKEN = frozenset({"channel", "commands", "control", "relay", "replies"})


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
        self.boundaries: dict[str, Boundary] = {}
        self.aggregates: dict[type, Decider] = {}
        self.projections: dict[str, Projection] = {}
        self.sagas: dict[str, Reactions] = {}
        self.handlers: dict[str, NamedHandler] = {}
        self.listened: dict[str, Listened] = {}

    @property
    def decides(self) -> bool:
        """Whether anything in the app decides commands."""
        return bool(self.deciders or self.boundaries)

    @property
    def decided(self) -> set[type]:
        """The commands that something in the app decides."""
        by_aggregates = {command for decider in self.deciders.values() for command in decider.decide}
        return by_aggregates | {command for boundary in self.boundaries.values() for command in boundary.decide}

    @property
    def writing(self) -> set[str]:
        """The names of all that writes events of its own: the categories of their streams, without the service."""
        named = {one.removeprefix(f"{self.service}.") for one in (*self.deciders, *self.boundaries)}
        return {*named, *self.sagas, *self.handlers}

    def is_free(self, category: str) -> bool:
        """Whether streams of a category, without the service, are nobody's: neither anything's here nor of the service itself."""
        return bool(NAME.match(category)) and category not in {*self.writing, *TAKEN}

    @property
    def sends(self) -> bool:
        """Whether anything in the app may send commands to the service itself."""
        return bool(self.sagas or self.handlers)

    def add(self, declared: Any) -> None:
        """Add a class of messages, an aggregate, a decision, a decider, a boundary, a read model or a saga."""
        if isinstance(declared, Decider):
            self._add_decider(declared)
        elif isinstance(declared, Boundary):
            self._add_boundary(declared)
        elif not isinstance(declared, type):
            raise DeclarationError(f"{declared!r} is not a class, Decider or Boundary that an app can take")
        elif issubclass(declared, Aggregate):
            self.aggregates[declared] = self._add_decider(decider_of(declared, self.service))
        elif issubclass(declared, Decision):
            self._add_boundary(boundary_of(declared, self.service))
        elif issubclass(declared, ReadModel):
            self._add_projection(projection_of(declared))
        elif issubclass(declared, Saga):
            reactions = reactions_of(declared)
            self._learn_events(declared, {*reactions.react, *reactions.evolve})
            self._learn_returned(reactions.react.values())
            self._name(self.sagas, declared.__named__, reactions, "name=")
        else:
            self.schema.add(declared)

    def adopt(self, payload: type, kind: Kind, declared: Declared) -> None:
        """Add a class that is not ours as a message."""
        if kind not in ("event", "command"):
            raise DeclarationError(f"kind {kind!r}: a message is an event or a command")
        self.schema.add(payload, declared)

    def listen(self, topic: str, event: type, *, key: str, named: str, once: bool) -> None:
        """Add a topic of messages that are not ours."""
        self._learn([event])
        found = self.schema.of(event)
        if found.kind != "event" or found.service == self.service or not found.category:
            raise DeclarationError(
                f"{event.__name__} must be an event of whoever states it, to be listened to: "
                f"class {event.__name__}(Event, service=…, category=…)"
            )
        if not topic or topic in self.listened:
            raise DeclarationError(f"the topic {topic!r} {'is listened to already' if topic else 'has no name'}")
        if key and key not in typing.get_type_hints(event):
            raise DeclarationError(f"{event.__name__} has no field {key!r} that could be its key")
        category = f"{found.service}.{found.category}"
        self.listened[topic] = Listened(topic, found.name, found.version, category, key, named, once)

    def on(self, function: Callable[..., Any], messages: Sequence[type], name: str, retry: Retry | None) -> None:
        """Add a handler function."""
        handler = bind(function, messages)
        self._learn_events(function, handler.messages)
        self._learn_returned([function])
        short = name or str(getattr(function, "__name__", ""))
        self._name(self.handlers, short, NamedHandler(short, handler, retry), "name=")

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
            if found.kind != "event" or found.service != self.service:
                raise DeclarationError(
                    f"{event.__name__} is a {found.kind} of {found.service}; {category} folds only its own events"
                )
            if found.category and f"{found.service}.{found.category}" != category:
                raise DeclarationError(
                    f"{event.__name__} says category={found.category!r}, but {category} writes it; they must agree"
                )
        self._check_commands(full.decide, category)
        self._learn_returned(full.decide.values())
        self._name(self.deciders, category, full, "category=")
        return full

    def _add_boundary(self, boundary: Boundary) -> None:
        category = boundary.category
        if not category.startswith(f"{self.service}."):
            category = f"{self.service}.{category}"
        self._learn([*boundary.decide, *(event for part in boundary.parts for event in part.events)])
        for part in boundary.parts:
            for event in part.events:
                self._check_fact(event, part.by, category)
        self._check_commands(boundary.decide, category)
        self._learn_returned(boundary.decide.values())
        self._name(self.boundaries, category, replace(boundary, category=category), "category=")

    def _check_fact(self, event: type, by: Mapping[str, str], category: str) -> None:
        """An event that a decision rests on is in the service's own log, with the tags by which it is asked for."""
        found = self.schema.of(event)
        if found.kind != "event" or found.service != self.service:
            raise DeclarationError(
                f"{event.__name__} is a {found.kind} of {found.service}; {category} rests only on events of its service"
            )
        if missing := sorted(by.keys() - found.tags.keys()):
            raise DeclarationError(
                f"{event.__name__} has no tag {missing[0]!r}, by which {category} asks for it: "
                f"class {event.__name__}(Event, tags={missing[0]!r})"
            )

    def _check_commands(self, commands: Iterable[type], category: str) -> None:
        for command in commands:
            found = self.schema.of(command)
            if found.kind != "command" or found.service != self.service:
                raise DeclarationError(
                    f"{command.__name__} is a {found.kind} of {found.service}; {category} decides only its own commands"
                )

    def _add_projection(self, projection: Projection) -> None:
        self._learn_events(projection.model, projection.evolve)
        if projection.model.__inline__ and any(
            self.schema.of(event).service != self.service for event in projection.evolve
        ):
            raise DeclarationError(
                f"{projection.model.__name__} is inline, but an event of another service is never in this service's commit"
            )
        self._name(self.projections, projection.table.name, projection, "table=")

    def check(self) -> None:
        """Refuse what could only fail later: a command of this service that nothing decides."""
        decided = self.decided
        for found in self.schema.types():
            if found.kind == "command" and found.service == self.service and found.payload not in decided:
                raise DeclarationError(
                    f"nothing decides {found.payload.__name__}: give an aggregate a @decide method for it and add it, "
                    f"or say whose it is: class {found.payload.__name__}(Command, service=…)"
                )

    def _learn(self, messages: Iterable[type]) -> None:
        for message in sorted(messages, key=lambda one: one.__qualname__):
            self.schema.add(message)

    def _learn_events(self, taker: Any, messages: Iterable[type]) -> None:
        self._learn(messages)
        for message in messages:
            if self.schema.of(message).kind != "event":
                raise DeclarationError(
                    f"{taker.__qualname__}: {message.__name__} is a command; an aggregate or Decider decides commands"
                )

    def _learn_returned(self, functions: Iterable[Callable[..., Any]]) -> None:
        for function in functions:
            self._learn(returned_types(function))

    def _name(self, kind: dict[str, Any], name: str, value: Any, keyword: str) -> None:
        short = name.removeprefix(f"{self.service}.")
        if not NAME.match(short):
            raise DeclarationError(
                f"{short!r} cannot name a part of {self.service}; use letters, digits, _ - and . (`{keyword}`)"
            )
        if short in {*self.writing, *self.projections, *TAKEN}:
            raise DeclarationError(f"the name {short!r} is taken in {self.service}; give this one another: `{keyword}`")
        kind[name] = value


def returned_types(function: Callable[..., Any]) -> set[type]:
    """The message classes that a function says it returns."""
    try:
        hints = [typing.get_type_hints(function).get("return")]
    except (NameError, TypeError):
        return set()
    found: set[type] = set()
    while hints:
        hint = hints.pop()
        if isinstance(hint, type) and isinstance(getattr(hint, "__declared__", None), Declared):
            found.add(hint)
        hints += typing.get_args(hint)
    return found - {Event, Command}
