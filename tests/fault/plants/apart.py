"""Runs a call in a forked process, with all that it starts, and takes its answer: nothing of it stays."""

from __future__ import annotations

import json
import os
import select
import signal
import sys
from collections.abc import Callable
from typing import Any


class Lost(Exception):
    """The process died, fell or did not answer in time."""


def apart(call: Callable[[], Any], patience: float) -> Any:
    """The answer of a call, which must be JSON; its output is thrown away. Raises Lost. The caller has no threads."""
    ours, theirs = os.pipe()
    pid = os.fork()
    if pid == 0:
        os.close(ours)
        _answer(call, theirs)
    os.setpgid(pid, pid)
    os.close(theirs)
    try:
        return _read(ours, patience)
    finally:
        os.close(ours)
        _end(pid)


def _answer(call: Callable[[], Any], pipe: int) -> None:
    nowhere = os.open(os.devnull, os.O_RDWR)
    for descriptor in (0, 1, 2):
        os.dup2(nowhere, descriptor)
    try:
        words = {"answer": call()}
    except BaseException as error:  # noqa: BLE001 - told, and then it ends
        words = {"error": f"{type(error).__name__}: {error}"}
    sys.stdout.flush()
    with os.fdopen(pipe, "w") as out:
        json.dump(words, out)
    os._exit(0)


def _read(pipe: int, patience: float) -> Any:
    if not select.select([pipe], [], [], patience)[0]:
        raise Lost(f"it did not answer within {patience:.0f} s")
    with os.fdopen(os.dup(pipe)) as incoming:
        text = incoming.read()
    found = json.loads(text) if text else {"error": "it died"}
    if "error" in found:
        raise Lost(found["error"])
    return found["answer"]


def _end(pid: int) -> None:
    try:
        os.killpg(pid, signal.SIGKILL)
    except (ProcessLookupError, PermissionError):
        pass
    os.waitpid(pid, 0)
