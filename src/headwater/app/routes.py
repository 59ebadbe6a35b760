"""The routes of an app: every topic that it publishes or consumes, with the groups that it knows of.

A topic of facts is made by the service that states them; whoever consumes it adds its group. A topic that is addressed
(commands, replies, control) has one group, its service's: whoever sends there makes both, so that nothing sent before the
other service has started is lost.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

from headwater.app.declared import Declarations, returned_types
from headwater.channel import Finding, Route
from headwater.errors import ConfigurationError


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


def routes(declared: Declarations, consumed: Iterable[str]) -> list[Route]:
    """The routes of an app that consumes these topics, by name."""
    service = declared.service
    groups: dict[str, set[str]] = {topic: set() for topic in published(declared)}
    for one in declared.schema.types():
        if one.kind == "command" and one.service != service:
            groups[f"{one.service}.commands"].add(one.service)
            groups.setdefault(f"{service}.replies", set()).add(service)
    for topic in consumed:
        groups.setdefault(topic, set()).add(service)
    for name in (service, *(topic.partition(".")[0] for topic in consumed)):
        groups.setdefault(control_of(name), set()).add(control_of(name))
    return [Route(topic, tuple(sorted(found))) for topic, found in sorted(groups.items())]


def _stating(declared: Declarations) -> set[str]:
    """The names, without the service, of all that may state facts."""
    functions: dict[str, list[Callable[..., Any]]] = {
        name: [named.handler.function] for name, named in declared.handlers.items()
    }
    functions |= {name: list(reactions.react.values()) for name, reactions in declared.sagas.items()}
    facts = {one.payload for one in declared.schema.types() if one.kind == "event" and one.service == declared.service}
    named = {one.removeprefix(f"{declared.service}.") for one in (*declared.deciders, *declared.boundaries)}
    return named | {name for name, some in functions.items() if any(facts & returned_types(one) for one in some)}


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
