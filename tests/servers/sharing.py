"""A server that all processes of a test run share: the first that asks starts it, the last that is done ends it."""

from __future__ import annotations

import fcntl
import json
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

Found = dict[str, Any]
"""Where a server is, as JSON has it."""


@contextmanager
def locked(path: Path) -> Iterator[None]:
    """One process at a time."""
    with path.open("a") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


@contextmanager
def shared(folder: Path, name: str, start: Callable[[], Found], end: Callable[[Found], object]) -> Iterator[Found]:
    """Where the server of that name is; `start` makes it and says so, `end` ends it."""
    state, lock = folder / f"{name}.json", folder / f"{name}.lock"
    with locked(lock):
        found = json.loads(state.read_text()) if state.exists() else start() | {"users": 0}
        state.write_text(json.dumps(found | {"users": found["users"] + 1}))
    place = {key: value for key, value in found.items() if key != "users"}
    try:
        yield place
    finally:
        with locked(lock):
            users = json.loads(state.read_text())["users"] - 1
            if users:
                state.write_text(json.dumps(place | {"users": users}))
            else:
                state.unlink()
                end(place)


def folder_of_run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder that all processes of a test run have."""
    folder = tmp_path_factory.getbasetemp()
    return folder.parent if os.environ.get("PYTEST_XDIST_WORKER") else folder
