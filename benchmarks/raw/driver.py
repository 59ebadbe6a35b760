"""The driver alone: one transaction a commit, one writer at a time."""

from __future__ import annotations

import threading
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import apsw

from .tables import EVENT, HISTORY, KEY, EventRow, KeyRow, connect

ONE_EVENT = EVENT + f"({', '.join('?' * 11)})"
ONE_KEY = KEY + f"({', '.join('?' * 6)})"


class Driver:
    """Commits from many threads, in turn."""

    def __init__(self, path: Path) -> None:
        self.connection = connect(path)
        self._turn = threading.Lock()

    def commit(self, events: Sequence[EventRow], keys: Sequence[KeyRow] = ()) -> None:
        with self._turn:
            execute = self.connection.execute
            execute("BEGIN IMMEDIATE")
            try:
                for row in events:
                    execute(ONE_EVENT, row)
                for key in keys:
                    execute(ONE_KEY, key)
            except apsw.ConstraintError:
                execute("ROLLBACK")
                raise
            execute("COMMIT")

    def history(self, stream: str) -> list[tuple[str, bytes]]:
        """The types and data of a stream, in order."""
        with self._turn:
            found: list[Any] = self.connection.execute(HISTORY, (stream,)).fetchall()
        return found

    def close(self) -> None:
        self.connection.close()
