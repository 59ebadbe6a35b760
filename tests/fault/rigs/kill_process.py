"""A process of the `kill` rig as the world sees it: forked into one life after another, aimed at a fault point, and ended."""

from __future__ import annotations

import os
import signal
import time
from pathlib import Path

from tests.fault.rigs.kill_desk import attend
from tests.fault.rigs.kill_member import Life, live, serve
from tests.fault.rigs.kill_plan import STOPPED, Aim
from tests.fault.rigs.kill_trap import Trap

LOOK = 0.002


class Process:
    """One process; `aim` is where it is to die, from the monotonic time `due` on, and `told` whether it was told to stop."""

    def __init__(self, role: str, folder: Path) -> None:
        self.role = role
        self.service = role.partition("-")[0]
        self.trap = Trap()
        self.pid = 0
        self.lives = 0
        self.aim: Aim | None = None
        self.due = 0.0
        self.told = False
        self._set = False
        self._words = folder / f"{role}.log"

    # --- its death ---

    def turn_to(self, aim: Aim | None) -> None:
        """Let it die there instead."""
        self.aim = aim
        self._set = False
        self.trap.disarm()
        if aim is not None:
            self.due = time.monotonic() + aim.after
            self.set_trap()

    def set_trap(self) -> float:
        """Set its trap when the time has come; for how many seconds it has been set. Who dies on its way out is told to stop."""
        late = time.monotonic() - self.due
        if late >= 0 and not self._set and self.aim is not None:
            self._set = True
            self.trap.arm(self.aim.name, self.aim.hit)
            if self.aim.name == STOPPED and self.pid:
                self.stop()
        return late

    # --- its life ---

    def fork(self, life: Life, holding: int) -> None:
        """Begin a life; `holding` is the end of a pipe that only the world holds."""
        self.told = False
        self.pid = os.fork()
        if self.pid == 0:
            os.close(holding)
            os.dup2(os.open(self._words, os.O_WRONLY | os.O_APPEND | os.O_CREAT), 2)
            live(life, attend(life) if self.service == "desk" else serve(life))

    def stop(self) -> None:
        """Tell it to stop."""
        self.told = True
        os.kill(self.pid, signal.SIGTERM)

    def kill(self) -> None:
        """End it at once, wherever it is."""
        if self.pid:
            os.kill(self.pid, signal.SIGKILL)
            os.waitpid(self.pid, 0)
            self.pid = 0

    def ended(self) -> int | None:
        """Its exit code, negative for a signal, if it has ended; None while it lives."""
        pid, status = os.waitpid(self.pid, os.WNOHANG)
        if not pid:
            return None
        self.pid = 0
        return os.waitstatus_to_exitcode(status)

    def broken(self, code: int) -> str:
        """The words for an end that should not have been."""
        return f"{self.role} ended with {code}: {self._words.read_text()[-1000:]}"

    def wait(self, patience: float) -> list[str]:
        """Wait until it has ended by itself; what is wrong with that."""
        end = time.monotonic() + patience
        while (code := self.ended()) is None:
            if time.monotonic() > end:
                return [f"{self.role} has not come to an end within {patience:.0f} s"]
            time.sleep(LOOK)
        return [self.broken(code)] if code else []
