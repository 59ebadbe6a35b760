"""A case of a work: what each subject does, and what it is compared with."""

from __future__ import annotations

import shutil
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from .load import Figures


@dataclass(frozen=True)
class Case:
    """`subjects`: how each is measured once; `peer` and `limit` name those that the others are compared with.

    `beside` names another peer, where it is there: how many times faster than it the others are is a figure of theirs.
    """

    work: str
    name: str
    subjects: Mapping[str, Callable[[], Figures]]
    peer: str = ""
    limit: str = ""
    beside: str = ""
    rounds: int = 0


@dataclass
class Setting:
    """How long and how often, and where; `logs` are the filled files of this run by subject and size.

    `cpu`: the CPU that servers of this run have used, which is none of others'.
    """

    quick: bool
    folder: Path
    cpu: Callable[[], float] = lambda: 0.0
    begun: float = field(default_factory=time.monotonic)
    logs: dict[tuple[str, int], Path] = field(default_factory=dict)

    @property
    def rounds(self) -> int:
        return 3 if self.quick else 5

    @property
    def seconds(self) -> float:
        return 0.2 if self.quick else 1.0

    @property
    def events(self) -> int:
        """The size of the large log."""
        return 100_000 if self.quick else 1_000_000

    @property
    def late(self) -> bool:
        """Whether the time for repeating noisy rounds is over."""
        return time.monotonic() - self.begun > (60 if self.quick else 2400)

    @contextmanager
    def fresh(self) -> Iterator[Path]:
        """A folder for one measurement."""
        path = Path(tempfile.mkdtemp(dir=self.folder))
        try:
            yield path
        finally:
            shutil.rmtree(path, ignore_errors=True)
