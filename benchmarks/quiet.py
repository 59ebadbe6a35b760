"""Whether the machine was ours: the CPU that others used meanwhile, and how long the disk takes to sync."""

from __future__ import annotations

import os
import resource
import time
from collections.abc import Callable
from pathlib import Path

from .load import quantile

OTHERS = 0.25
"""Cores that others may use while we measure."""
SYNC_MS = 0.45
"""Milliseconds that an fdatasync may take at the median."""
SYNCS = 25
PAGE = b"\0" * 4096
BUSY = (0, 1, 2, 5, 6, 7)  # user, nice, system, irq, softirq, steal


class Watch:
    """Watches one round: `stop` says how much others did, `sync_ms` how the disk was before and after.

    `cpu` gives the CPU of servers that work for us.
    """

    def __init__(self, folder: Path, cpu: Callable[[], float] = lambda: 0.0) -> None:
        self._cpu = cpu
        self._file = folder / "sync.bin"
        self._before = self.sync_ms()
        self._begun = time.perf_counter()
        self._busy, self._own = _busy(), self._ours()

    def stop(self) -> Noise:
        elapsed = time.perf_counter() - self._begun
        others = max(_busy() - self._busy - (self._ours() - self._own), 0.0) / elapsed
        return Noise(others, max(self._before, self.sync_ms()))

    def _ours(self) -> float:
        return _own() + self._cpu()

    def sync_ms(self) -> float:
        """The median of a few fdatasyncs of a page."""
        descriptor = os.open(self._file, os.O_CREAT | os.O_WRONLY)
        took = []
        try:
            os.pwrite(descriptor, PAGE * SYNCS, 0)
            os.fdatasync(descriptor)
            for place in range(SYNCS):
                os.pwrite(descriptor, PAGE, place * len(PAGE))
                begun = time.perf_counter()
                os.fdatasync(descriptor)
                took.append(time.perf_counter() - begun)
        finally:
            os.close(descriptor)
        return quantile(sorted(took), 0.5) * 1e3


class Noise:
    """What was measured of the machine: cores used by others, and milliseconds a sync."""

    def __init__(self, others: float, sync_ms: float) -> None:
        self.others = others
        self.sync_ms = sync_ms

    @property
    def quiet(self) -> bool:
        return self.others < OTHERS and self.sync_ms < SYNC_MS


def _busy() -> float:
    fields = Path("/proc/stat").read_text().split("\n", 1)[0].split()[1:]
    return sum(int(fields[place]) for place in BUSY) / os.sysconf("SC_CLK_TCK")


def _own() -> float:
    usages = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    return sum(one.ru_utime + one.ru_stime for one in usages)
