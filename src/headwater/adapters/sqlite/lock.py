"""A lock between processes on a file of its own: the kernel frees it when its holder dies."""

from __future__ import annotations

import fcntl
import os
import weakref
from pathlib import Path


class FileLock:
    """An exclusive `flock`; each object is a separate holder, also within one process. Not re-entrant.

    A forked child does not share it: its copy of the descriptor is closed at the fork.
    """

    def __init__(self, path: Path) -> None:
        self._descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o666)
        _open_locks.add(self)

    def __enter__(self) -> None:
        self.take(wait=True)

    def __exit__(self, *_: object) -> None:
        self.free()

    def take(self, *, wait: bool = False) -> bool:
        """Take the lock if it is free, or `wait` for it; whether it is ours now."""
        try:
            fcntl.flock(self._descriptor, fcntl.LOCK_EX if wait else fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return False
        return True

    def free(self) -> None:
        """Let another have it."""
        fcntl.flock(self._descriptor, fcntl.LOCK_UN)

    def close(self) -> None:
        """Free the lock and let go of the file."""
        _open_locks.discard(self)
        if self._descriptor >= 0:
            os.close(self._descriptor)
            self._descriptor = -1


_open_locks: weakref.WeakSet[FileLock] = weakref.WeakSet()


def _close_in_child() -> None:
    for lock in list(_open_locks):
        lock.close()


os.register_at_fork(after_in_child=_close_in_child)
