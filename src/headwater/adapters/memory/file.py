"""What memory databases keep their data in: one that crashes leaves it behind, and another opens it again."""

from __future__ import annotations

import asyncio
from bisect import bisect_right
from collections.abc import Hashable, Iterable, Iterator, Mapping
from typing import Any, Final

from headwater.errors import DatabaseError
from headwater.message import Recorded
from headwater.store import Condition, Item

GONE: Final = object()
NOTHING: Final[Mapping[Any, Any]] = {}

Tables = dict[Hashable, dict[Any, Any]]


class MemoryFile:
    """The committed data of a service: its log, and cells by table and key. Several database objects may share it."""

    def __init__(self, name: str = "") -> None:
        self.name = name
        self.log: list[Recorded] = []
        self.streams: dict[str, list[Recorded]] = {}
        self.tags: dict[int, tuple[str, ...]] = {}
        self.tagged: dict[str, list[int]] = {}
        self.tables: Tables = {}
        self.writer: object | None = None
        self._waiting: dict[asyncio.Future[None], None] = {}

    @property
    def head(self) -> int:
        """The last position."""
        return len(self.log)

    def relevant(self, item: Item, after: int) -> Iterator[int]:
        """The positions above one, of events that an item takes."""
        fewest = min((self.tagged.get(tag, ()) for tag in item.tags), key=len, default=range(1, self.head + 1))
        for position in fewest[bisect_right(fewest, after) :]:
            one = self.log[position - 1]
            if one.kind == "event" and item.takes(one.type, self.tags.get(position, ())):
                yield position

    def table(self, name: Hashable) -> Mapping[Any, Any]:
        """The committed cells of a table, by key."""
        return self.tables.get(name, NOTHING)

    async def turn(self) -> None:
        """Wait until nobody has a transaction open; what then runs without waiting is alone."""
        while self.writer is not None:
            await self.news(None)

    def free(self, writer: object) -> None:
        """The writer is done, or dead."""
        if self.writer is writer:
            self.writer = None
            self.wake()

    async def news(self, timeout: float | None) -> None:
        """Wait until the log grows or a transaction ends, at most `timeout` seconds."""
        loop = asyncio.get_running_loop()
        waiter: asyncio.Future[None] = loop.create_future()
        self._waiting[waiter] = None
        time_over = loop.call_later(timeout, _wake, waiter) if timeout is not None else None
        try:
            await waiter
        finally:
            self._waiting.pop(waiter, None)
            if time_over is not None:
                time_over.cancel()

    def wake(self) -> None:
        """Tell all that wait to look again."""
        waiting, self._waiting = self._waiting, {}
        for waiter in waiting:
            _wake(waiter)


def _wake(waiter: asyncio.Future[None]) -> None:
    if not waiter.done():
        waiter.set_result(None)


class Change:
    """What one transaction has written so far, over a file in which nobody sees it until it is merged."""

    def __init__(self, file: MemoryFile) -> None:
        self.file = file
        self.log: list[Recorded] = []
        self.tags: dict[int, tuple[str, ...]] = {}
        self._cells: dict[tuple[Hashable, Any], Any] = {}

    @property
    def head(self) -> int:
        """The last position, with what this change adds."""
        return self.file.head + len(self.log)

    def unmet(self, condition: Condition) -> bool:
        """Whether an event stands, as this transaction sees it, that a condition has not seen."""
        seen = condition.seen
        for item in condition.items:
            if any(position not in seen.above for position in self.file.relevant(item, seen.safe)):
                return True
            if any(one.kind == "event" and item.takes(one.type, self.tags.get(one.position, ())) for one in self.log):
                return True
        return False

    def get(self, table: Hashable, key: Any) -> Any:
        """A cell as this transaction sees it; None if there is none."""
        value = self._cells.get((table, key))
        if value is None:
            return self.file.table(table).get(key)
        return None if value is GONE else value

    def some(self, table: Hashable, keys: Iterable[Any]) -> dict[Any, Any]:
        """Those of the cells that are there."""
        return {key: value for key in keys if (value := self.get(table, key)) is not None}

    def put(self, table: Hashable, key: Any, value: Any) -> None:
        """Write a cell."""
        self._cells[table, key] = value

    def drop(self, table: Hashable, key: Any) -> None:
        """Remove a cell."""
        self._cells[table, key] = GONE

    def mark(self) -> tuple[int, dict[tuple[Hashable, Any], Any]]:
        """A point to come back to."""
        return len(self.log), dict(self._cells)

    def undo(self, mark: tuple[int, dict[tuple[Hashable, Any], Any]]) -> None:
        """Forget what was written since the mark."""
        length, self._cells = mark[0], dict(mark[1])
        del self.log[length:]
        self.tags = {position: tags for position, tags in self.tags.items() if position <= self.head}

    def merge(self) -> None:
        """Make it all visible at once; nothing in here can fail half-way."""
        if self.log and self.log[0].position != self.file.head + 1:
            raise DatabaseError("another writer came between; nothing is written")
        for recorded in self.log:
            self.file.log.append(recorded)
            self.file.streams.setdefault(recorded.stream, []).append(recorded)
        self.file.tags.update(self.tags)
        for position, tags in self.tags.items():
            for tag in tags:
                self.file.tagged.setdefault(tag, []).append(position)
        for (table, key), value in self._cells.items():
            cells = self.file.tables.setdefault(table, {})
            if value is GONE:
                cells.pop(key, None)
            else:
                cells[key] = value
        if self.log:
            self.file.wake()
