"""What a planted bug is."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager
from dataclasses import dataclass
from enum import StrEnum
from typing import Any, Protocol
from unittest import mock

Patch = AbstractContextManager[Any]


class Promise(StrEnum):
    """The promises of `docs/explanation/promises`, in their order."""

    DURABLE = "durable"
    ATOMIC = "atomic"
    NOTHING_LOST = "nothing lost"
    EFFECT_ONCE = "effect once"
    ORDER = "order per key"
    NO_SILENT_GAP = "no silent gap"
    NO_WINDOW = "no window on de-duplication"
    THREE_VALUED = "three-valued answers"
    READ_YOUR_WRITES = "read your writes"
    ERASURE = "erasure"


class Detector(Protocol):
    """What should see a bug: it makes a trial for each seed, until one says what is wrong in words that match `says`."""

    name: str
    seeds: Sequence[int]
    says: str
    slow: bool

    def attempt(self, seed: int) -> list[str]:
        """Make one trial; what is wrong, in words."""
        ...

    def on_server(self) -> Detector | None:
        """The same on a server; None where there is none."""
        ...


@dataclass(frozen=True)
class Plant:
    """A bug that can be planted: while `apply` is entered, this process has it. `what` it does, in a sentence.

    `everywhere`: the patch is of what every adapter runs, so that the bug is there on a server as well.
    """

    name: str
    breaks: Promise
    apply: Callable[[], Patch]
    caught_by: tuple[Detector, ...]
    what: str
    everywhere: bool = False


def planted(breaks: Promise, *caught_by: Detector, everywhere: bool = False) -> Callable[[Callable[[], Patch]], Plant]:
    """Make a function that gives a patch a plant of its name; its docstring says what it does."""

    def make(apply: Callable[[], Patch]) -> Plant:
        return Plant(apply.__name__.replace("_", "-"), breaks, apply, caught_by, apply.__doc__ or "", everywhere)

    return make


def plants_of(module: object) -> Iterator[Plant]:
    """The plants of a module, as they stand there."""
    return (one for one in vars(module).values() if isinstance(one, Plant))


@contextmanager
def patched(name: str, value: object, *owners: object) -> Iterator[None]:
    """Put a value in the place of a name wherever it was imported."""
    with ExitStack() as stack:
        for owner in owners:
            stack.enter_context(mock.patch.object(owner, name, value))
        yield
