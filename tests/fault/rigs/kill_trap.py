"""A trap at a fault point: shared memory that says at which point a process dies, and at which hit."""

from __future__ import annotations

import mmap
import os
import signal
import struct

from headwater import fault

NAMES = tuple(fault.POINTS)
PLACES = {name: place for place, name in enumerate(NAMES)}
LAYOUT = struct.Struct("qq")
NOWHERE = -1


class Trap:
    """Shared by a process that is to die and the one that looks on."""

    def __init__(self) -> None:
        self._memory = mmap.mmap(-1, LAYOUT.size)
        self.disarm()

    def arm(self, name: str, hit: int) -> None:
        """Die at the `hit`th time that the point is reached from now on."""
        LAYOUT.pack_into(self._memory, 0, PLACES[name], hit)

    def disarm(self) -> None:
        """Die nowhere."""
        LAYOUT.pack_into(self._memory, 0, NOWHERE, 0)

    @property
    def sprung(self) -> str:
        """The point at which the process died; empty if it has not."""
        place, left = LAYOUT.unpack_from(self._memory)
        return NAMES[place] if place != NOWHERE and left <= 0 else ""

    def point(self, name: str) -> None:
        """Stands in for `fault.point` in the process that is to die."""
        place, left = LAYOUT.unpack_from(self._memory)
        if place != NOWHERE and NAMES[place] == name:
            LAYOUT.pack_into(self._memory, 0, place, left - 1)
            if left <= 1:
                os.kill(os.getpid(), signal.SIGKILL)
