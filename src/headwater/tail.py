"""The newest part of the log, read once for all who follow it: the relay and every consumer of the own log."""

from __future__ import annotations

from bisect import bisect_right

from headwater.message import Recorded
from headwater.store import Store

KEPT = 10_000


class Tail:
    """Reads of the log after a position. Who is far behind reads from the store itself."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self._messages: list[Recorded] = []
        self._positions: list[int] = []
        self._start = 0

    async def read(self, after: int, limit: int) -> list[Recorded]:
        """Up to `limit` messages with positions above `after`, in order."""
        if not self._positions:
            self._start = after
        elif after < self._start or after > self._positions[-1]:
            return await self._store.read(after, limit)
        found = self._known(after, limit)
        return found or await self._more(after, limit)

    def _known(self, after: int, limit: int) -> list[Recorded]:
        index = bisect_right(self._positions, after)
        return self._messages[index : index + limit]

    async def _more(self, after: int, limit: int) -> list[Recorded]:
        """Read on from the end of what is known, where another reader has not done so meanwhile."""
        page = await self._store.read(after, limit)
        if page and after == (self._positions[-1] if self._positions else self._start):
            self._messages += page
            self._positions += [one.position for one in page]
            self._trim()
        return page

    def _trim(self) -> None:
        over = len(self._messages) - KEPT
        if over > KEPT // 10:
            self._start = self._positions[over - 1]
            del self._messages[:over], self._positions[:over]
