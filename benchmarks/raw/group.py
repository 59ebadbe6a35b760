"""A group-commit loop and nothing else: a thread that writes all that waits in one transaction, many rows a statement."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Sequence
from itertools import chain
from pathlib import Path
from queue import SimpleQueue
from typing import Any

from .tables import EVENT, HISTORY, KEY, EventRow, KeyRow, connect

SIZES = (256, 64, 16, 4, 1)
MOST = 1_000

Ticket = tuple[Sequence[EventRow], Sequence[KeyRow], "asyncio.Future[None]"]


class Group:
    """Commits of many tasks of one loop."""

    def __init__(self, path: Path) -> None:
        self.connection = connect(path)
        self.reader = connect(path)
        self._loop = asyncio.get_running_loop()
        self._queue: SimpleQueue[Ticket | None] = SimpleQueue()
        self._thread = threading.Thread(target=self._serve, daemon=True)
        self._thread.start()

    async def commit(self, events: Sequence[EventRow], keys: Sequence[KeyRow] = ()) -> None:
        done: asyncio.Future[None] = self._loop.create_future()
        self._queue.put((events, keys, done))
        await done

    def history(self, stream: str) -> list[tuple[str, bytes]]:
        """The types and data of a stream, in order."""
        found: list[Any] = self.reader.execute(HISTORY, (stream,)).fetchall()
        return found

    async def close(self) -> None:
        self._queue.put(None)
        await asyncio.to_thread(self._thread.join)
        self.connection.close()
        self.reader.close()

    def _serve(self) -> None:
        while (first := self._queue.get()) is not None:
            tickets, size = [first], len(first[0])
            while size < MOST and not self._queue.empty():
                more = self._queue.get()
                if more is None:
                    self._queue.put(None)
                    break
                tickets.append(more)
                size += len(more[0])
            self._write(tickets)
            self._loop.call_soon_threadsafe(_tell, tickets)

    def _write(self, tickets: list[Ticket]) -> None:
        self.connection.execute("BEGIN IMMEDIATE")
        self._insert(EVENT, 11, [row for events, _, _ in tickets for row in events])
        self._insert(KEY, 6, [row for _, keys, _ in tickets for row in keys])
        self.connection.execute("COMMIT")

    def _insert(self, into: str, width: int, rows: Sequence[Sequence[Any]]) -> None:
        start = 0
        one = f"({', '.join('?' * width)})"
        for size in SIZES:
            while len(rows) - start >= size:
                values = list(chain.from_iterable(rows[start : start + size]))
                self.connection.execute(into + ", ".join([one] * size), values)
                start += size


def _tell(tickets: list[Ticket]) -> None:
    for _, _, done in tickets:
        if not done.done():
            done.set_result(None)
