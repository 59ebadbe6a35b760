"""What a person sees while the shop runs: a live table on a terminal, otherwise a line every five seconds on stderr."""

from __future__ import annotations

import sys
import time
from dataclasses import dataclass, field
from typing import Protocol

from .progress import Snapshot

EVERY = 5.0


@dataclass(frozen=True)
class Scene:
    """One moment of a run."""

    orders: int
    seconds: float
    snapshot: Snapshot
    up: dict[str, bool]
    kills: int
    notes: list[str] = field(default_factory=list)


class View(Protocol):
    def show(self, scene: Scene) -> None: ...

    def close(self) -> None: ...


def view(live: bool) -> View:
    """Live where stdout is a terminal and nothing else is to be written there."""
    if not live or not sys.stdout.isatty():
        return Lines()
    from .live import Live  # noqa: PLC0415 - drawing is loaded where there is a terminal to draw on

    return Live()


class Lines:
    """A line every five seconds, and every note at once."""

    def __init__(self) -> None:
        self._due = time.monotonic() + EVERY
        self._noted = 0

    def show(self, scene: Scene) -> None:
        for note in scene.notes[self._noted :]:
            say(note)
        self._noted = len(scene.notes)
        if time.monotonic() >= self._due:
            self._due += EVERY
            say(line(scene))

    def close(self) -> None:
        return


def say(text: str) -> None:
    print(f"shop: {text}", file=sys.stderr, flush=True)


def line(scene: Scene) -> str:
    """A moment as one line."""
    now = scene.snapshot
    lag = " ".join(f"{consumer}={count}" for consumer, count in now.lag.items() if count)
    down = " ".join(service for service, up in scene.up.items() if not up)
    parts = [
        f"{scene.seconds:.0f} s",
        f"placed {now.placed}/{scene.orders}",
        f"shipped {now.shipped}",
        f"cancelled {now.cancelled}",
        f"kills {scene.kills}",
        f"down {down or 'none'}",
        f"lag {lag or 'none'}",
    ]
    return " · ".join(parts)
