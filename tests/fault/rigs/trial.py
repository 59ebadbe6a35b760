"""What a rig answers, and how it runs a trial in a process of its own."""

from __future__ import annotations

import multiprocessing
import os
import signal
import traceback
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from multiprocessing.connection import Connection
from multiprocessing.process import BaseProcess

PATIENCE = 120.0


@dataclass(frozen=True)
class TrialResult:
    """`effective`: whether a fault took effect; `trials`: how many one seed made (images, inputs); `facts`: figures.

    `points` counts the trials by fault point, with 0 for those that were meant and not reached.
    """

    effective: bool
    violations: list[str] = field(default_factory=list)
    trials: int = 1
    facts: dict[str, float] = field(default_factory=dict)
    points: Counter[str] = field(default_factory=Counter)


def isolated(trial: Callable[[int], TrialResult], seed: int, patience: float = PATIENCE) -> TrialResult:
    """The result of a trial in a process of its own, which may die or hang: that is then the violation."""
    context = multiprocessing.get_context("spawn")
    ours, theirs = context.Pipe(duplex=False)
    process = context.Process(target=_answer, args=(trial, seed, theirs), daemon=False)
    process.start()
    theirs.close()
    try:
        if not ours.poll(patience):
            return TrialResult(True, [f"the trial did not end within {patience:.0f} s"])
        found: TrialResult = ours.recv()
        return found
    except EOFError:
        process.join(5)
        return TrialResult(True, [f"the process of the trial died with {process.exitcode}"])
    finally:
        _end(process)
        ours.close()


def _answer(trial: Callable[[int], TrialResult], seed: int, pipe: Connection) -> None:
    try:
        found = trial(seed)
    except KeyboardInterrupt:
        return
    except Exception:  # noqa: BLE001 - what falls out of a trial is a violation
        found = fell()
    pipe.send(found)


def _end(process: BaseProcess) -> None:
    """Let it end; ask it to, so that it takes away what it mounted; else kill it."""
    for wait, number in ((2.0, signal.SIGINT), (5.0, signal.SIGKILL)):
        process.join(wait)
        if process.exitcode is not None or process.pid is None:
            return
        os.kill(process.pid, number)
    process.join()


def fell() -> TrialResult:
    """The result of a trial that an error fell out of."""
    last = traceback.format_exc().strip().splitlines()
    where = next((line.strip() for line in reversed(last[:-1]) if line.strip().startswith("File")), "")
    return TrialResult(True, [f"{last[-1]} ({where})"])
