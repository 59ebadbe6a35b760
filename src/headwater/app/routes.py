"""The routes of an app: every topic that it publishes or consumes, with the groups that it knows of.

A topic of facts is made by the service that states them; whoever consumes it adds its group. A topic that is addressed
(commands, control) has one group, its service's: whoever is known to send there makes both, so that nothing sent before the
other service has started is lost. Replies have a topic wherever commands are sent from, and a group where they are taken.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable
from typing import Any

from headwater.app.declared import Declarations, returned_types
from headwater.channel import Channel, Finding, Route
from headwater.errors import ConfigurationError, DeclarationError


def control_of(service: str) -> str:
    """The control topic of a service, and the group that reads it."""
    return f"{service}.control"


def published(declared: Declarations) -> set[str]:
    """The topics that an app publishes on, as far as it knows before it is asked: not those of its replies to others."""
    service = declared.service
    topics = {f"{service}.{name}" for name in _stating(declared)}
    for one in declared.schema.types():
        if one.kind == "event" and one.service == service and one.category:
            topics.add(f"{service}.{one.category}")
        elif one.kind == "command" and one.service != service:
            topics.add(f"{one.service}.commands")
    return topics


def commands_to(declared: Declarations) -> set[str]:
    """The topic of commands to the service, if it decides any."""
    return {f"{declared.service}.commands"} if declared.decides else set()


def fed_by(declared: Declarations, types: Collection[str]) -> tuple[frozenset[str], bool]:
    """The topics that feed whoever takes these types of events, and whether the service's own log does."""
    topics: set[str] = set()
    logged = False
    for found in declared.schema.types():
        if found.name not in types:
            continue
        if found.name == "headwater.Refused":
            topics.add(f"{declared.service}.replies")
            logged = True
        elif heard := {one.topic for one in declared.listened.values() if one.type == found.name}:
            topics |= heard
        elif found.service == declared.service:
            logged = True
        elif not found.category:
            raise DeclarationError(
                f"{found.name} is an event of {found.service}; say whose fact it is: "
                f"class {found.payload.__name__}(Event, service={found.service!r}, category=…)"
            )
        elif f"{found.service}.{found.category}" in declared.listened:
            raise DeclarationError(
                f"the topic {found.service}.{found.category} is listened to, so {found.name} cannot come on it as well: "
                f"listen with {found.payload.__name__}, or name the topic that it comes on"
            )
        else:
            topics.add(f"{found.service}.{found.category}")
    return frozenset(topics), logged


def routes(declared: Declarations) -> list[Route]:
    """The routes of an app."""
    service = declared.service
    groups: dict[str, set[str]] = {topic: set() for topic in published(declared)}
    for one in declared.schema.types():
        if one.kind == "command" and one.service != service:
            groups[f"{one.service}.commands"].add(one.service)
    if declared.sends:
        groups[f"{service}.replies"] = set()
    consumed = commands_to(declared) | fed_by(declared, _taken(declared))[0]
    for topic in consumed:
        groups.setdefault(topic, set()).add(service)
    for name in (service, *(topic.partition(".")[0] for topic in consumed if topic not in declared.listened)):
        groups.setdefault(control_of(name), set()).add(control_of(name))
    return [Route(topic, tuple(sorted(found))) for topic, found in sorted(groups.items())]


def _taken(declared: Declarations) -> set[str]:
    """The names of all events that a handler, a saga or a read model behind the log takes."""
    classes: set[type] = {one for named in declared.handlers.values() for one in named.handler.messages}
    for reactions in declared.sagas.values():
        classes |= {*reactions.react, *reactions.evolve}
    for projection in declared.projections.values():
        classes |= set() if projection.model.__inline__ else {*projection.evolve}
    return {declared.schema.of(one).name for one in classes}


def _stating(declared: Declarations) -> set[str]:
    """The names, without the service, of all that may state facts."""
    functions: dict[str, list[Callable[..., Any]]] = {
        name: [named.handler.function] for name, named in declared.handlers.items()
    }
    functions |= {name: list(reactions.react.values()) for name, reactions in declared.sagas.items()}
    facts = {one.payload for one in declared.schema.types() if one.kind == "event" and one.service == declared.service}
    named = {one.removeprefix(f"{declared.service}.") for one in (*declared.deciders, *declared.boundaries)}
    return named | {name for name, some in functions.items() if any(facts & returned_types(one) for one in some)}


def check_listened(declared: Declarations, channel: Channel) -> None:
    """Raise ConfigurationError if messages that are not ours should take effect once, and the channel cannot tell them apart."""
    if channel.capabilities.history:
        return
    for one in declared.listened.values():
        if one.once:
            raise ConfigurationError(
                f"{one.topic}: on this channel a message has no place by which it is known when it comes again, so it may be "
                f"handled twice, and out of order where it is tried again. If that is well: app.listen({one.topic!r}, …, once=False)"
            )


def refuse(findings: Iterable[Finding], service: str) -> None:
    """Raise ConfigurationError if a channel cannot carry an app, saying what to do."""
    missing = [one for one in findings if one.state != "unsafe"]
    if not missing:
        return
    told = "; ".join(f"{one.what}: {one.why}" for one in missing[:5])
    more = f"; and {len(missing) - 5} more" if len(missing) > 5 else ""  # noqa: PLR2004 - a line stays a line
    raise ConfigurationError(
        f"the channel is not ready for {service}: {told}{more}. See it whole: headwater channel plan; "
        "make what is missing: headwater channel apply"
    )
