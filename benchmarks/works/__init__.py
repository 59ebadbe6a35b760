"""The works, by name: each is a function that gives its cases."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from importlib import import_module

from benchmarks.case import Case, Setting

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
    module, _, function = WORKS[name].partition(":")
    found: Callable[[Setting], Iterator[Case]] = getattr(import_module(f"{__name__}.{module}"), function)
    return found
