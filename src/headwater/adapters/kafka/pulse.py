"""A pulse for an event loop that is finer than its timers, which are a millisecond apart at least.

It comes from a thread that sleeps. Each beat comes after a share of the time that was waited so far: what takes long is
looked at seldom.
"""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable
from time import monotonic, sleep
from typing import Final

FIRST: Final = 0.000_3
"""Seconds to the first beat."""
LAST: Final = 0.005
"""Seconds between two beats at most."""
SHARE: Final = 1 / 8


class Pulse:
    """Calls `beat` in the event loop that made it, again and again from `start` to `stop`."""

    def __init__(self, beat: Callable[[], None]) -> None:
        self._beat = beat
        self._loop = asyncio.get_running_loop()
        self._beats = threading.Event()
        self._began = 0.0
        self._coming = False
        self._closed = False
        threading.Thread(target=self._run, name="headwater-kafka-pulse", daemon=True).start()

    def start(self) -> None:
        """Beat from now on, quickly again if it did already."""
        self._began = monotonic()
        self._beats.set()

    def stop(self) -> None:
        """Beat no more until it is started."""
        self._beats.clear()

    def close(self) -> None:
        """Beat no more."""
        self._closed = True
        self._beats.set()

    def _run(self) -> None:
        while self._beats.wait() and not self._closed:
            sleep(min(max(FIRST, SHARE * (monotonic() - self._began)), LAST))
            if not self._coming:
                self._coming = True
                try:
                    self._loop.call_soon_threadsafe(self._come)
                except RuntimeError:  # the loop is closed
                    return

    def _come(self) -> None:
        self._coming = False
        if self._beats.is_set() and not self._closed:
            self._beat()
