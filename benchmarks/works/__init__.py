"""The works, by name: each is a function that gives its cases."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from importlib import import_module
from typing import TYPE_CHECKING, Any

from benchmarks import broker, postgres
from benchmarks.case import Case, Setting

if TYPE_CHECKING:
    from benchmarks.broker.server import Broker
    from benchmarks.postgres.server import Server

WORKS = {
    "W1": "append:new_streams",
    "W2": "append:many_events",
    "W3": "command:commands",
    "W4": "replay:replays",
    "W5": "log:reads",
    "W5p": "projection:catch_up",
    "W6": "size:bytes_an_event",
    "W7": "growth:growth",
    "DCB": "decide:decisions",
    "M5": "consume:consume",
    "M6": "start:starts",
    "E2E": "visible:visible",
}


def work(name: str) -> Callable[[Setting], Iterator[Case]]:
    """The cases of a work, made as they are needed."""
    found: Callable[[Setting], Iterator[Case]] = _found(__name__, WORKS[name])
    return found


def postgres_work(name: str, server: Server) -> Callable[[Setting], Iterator[Case]]:
    """The same over a PostgreSQL server."""
    found: Callable[[Setting, Server], Iterator[Case]] = _found(postgres.__name__, postgres.WORKS[name])
    return lambda setting: found(setting, server)


def broker_work(name: str, there: Broker, databases: Server | None) -> Callable[[Setting], Iterator[Case]]:
    """The same over a broker, and PostgreSQL where a work needs it."""
    found: Callable[..., Iterator[Case]] = _found(broker.__name__, broker.WORKS[name])
    return lambda setting: (
        found(setting, there, databases) if databases and name in broker.WITH_DATABASE else found(setting, there)
    )


def _found(package: str, place: str) -> Any:
    module, _, function = place.partition(":")
    return getattr(import_module(f"{package}.{module}"), function)
