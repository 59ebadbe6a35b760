"""An inbox as one writes it by hand, on asyncpg: the id of a message and its effect in one transaction, so that it happens once."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any

import asyncpg

from benchmarks.postgres.server import ask

from .counting import Counting

AT_ONCE = 16
"""Messages that a handler for each is at work on, and connections."""
INBOX = "CREATE TABLE inbox (id text PRIMARY KEY)"
TOTALS = "CREATE TABLE IF NOT EXISTS totals (order_id text PRIMARY KEY, cents bigint NOT NULL)"
MARK = "INSERT INTO inbox VALUES ($1) ON CONFLICT DO NOTHING RETURNING true"
MARKS = "INSERT INTO inbox SELECT unnest($1::text[]) ON CONFLICT DO NOTHING RETURNING id"
TOTAL = """
INSERT INTO totals AS t VALUES ($1, $2) ON CONFLICT (order_id) DO UPDATE SET cents = t.cents + excluded.cents
"""
ALL_TOTALS = """
INSERT INTO totals AS t SELECT one, sum(cents) FROM unnest($1::text[], $2::bigint[]) AS new (one, cents) GROUP BY one
ON CONFLICT (order_id) DO UPDATE SET cents = t.cents + excluded.cents
"""
LINE = "INSERT INTO lines VALUES ($1, $2)"


@dataclass(frozen=True)
class Effect:
    """What is done of a message, by a statement; of many messages by one (`many`), where that is not the handler's own business."""

    one: str
    many: str
    count: str

    def kept(self, url: str) -> int:
        """Of how many messages the effect is there, each counted as often as it is."""
        [(found,)] = ask(url, self.count)
        return int(found or 0)


EFFECTS = {
    "total": Effect(TOTAL, ALL_TOTALS, "SELECT sum(cents) / 1499 FROM totals"),
    "line": Effect(LINE, "", "SELECT count(*) FROM lines"),
}


class Inbox:
    """Does effects once, and counts what it has done."""

    def __init__(self, connections: Sequence[Any], effect: Effect, counting: Counting) -> None:
        self._effect = effect
        self._counting = counting
        self._free: asyncio.LifoQueue[Any] = asyncio.LifoQueue()
        for one in connections:
            self._free.put_nowait(one)

    @classmethod
    @asynccontextmanager
    async def opened(cls, url: str, effect: Effect, counting: Counting) -> AsyncIterator[Inbox]:
        """The inbox of a database, with its tables."""
        connections = [await asyncpg.connect(url) for _ in range(AT_ONCE)]
        await connections[0].execute(f"{INBOX}; {TOTALS}")
        try:
            yield cls(connections, effect, counting)
        finally:
            for one in connections:
                await one.close()

    async def store(self, mark: str, event: Any) -> None:
        """The effect of one message, unless it is a duplicate."""
        connection = await self._free.get()
        try:
            async with connection.transaction():
                if await connection.fetchval(MARK, mark):
                    await connection.execute(self._effect.one, event.order_id, event.cents)
        finally:
            self._free.put_nowait(connection)
        self._counting.handle(event)

    async def store_many(self, marks: Sequence[str], events: Sequence[Any]) -> None:
        """The effects of a batch in one transaction."""
        connection = await self._free.get()
        try:
            async with connection.transaction():
                new = {row[0] for row in await connection.fetch(MARKS, marks)}
                fresh = [event for mark, event in zip(marks, events, strict=True) if mark in new]
                if self._effect.many:
                    columns = [one.order_id for one in fresh], [one.cents for one in fresh]
                    await connection.execute(self._effect.many, *columns)
                else:
                    for one in fresh:
                        await connection.execute(self._effect.one, one.order_id, one.cents)
        finally:
            self._free.put_nowait(connection)
        for one in events:
            self._counting.handle(one)
