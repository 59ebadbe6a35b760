"""Streams as decisions read them: what many ask for at the same time is read by one statement."""

from __future__ import annotations

import asyncio
from collections import defaultdict
from collections.abc import Mapping, Sequence
from typing import Final

from headwater.adapters.postgres import rows
from headwater.adapters.postgres.facts import columns
from headwater.adapters.postgres.server import Pool
from headwater.adapters.postgres.statement import Row, Statement
from headwater.store import Past

PAST: Final = f"SELECT {rows.PAST} FROM headwater.events WHERE stream = %s AND version > %s ORDER BY version"
PASTS: Final = f"""
SELECT {rows.PAST}, number FROM unnest(%s::text[], %s::bigint[], %s::integer[]) AS w (wanted, after, number)
JOIN headwater.events ON stream = wanted AND version > after ORDER BY number, version
"""
ABREAST: Final = 2
"""Statements at a time: one is read while the rows of the other are taken in."""
LIMIT: Final = 500
"""Streams by one statement; one caller's are never parted."""

Wanted = Mapping[str, int]
Found = dict[str, list[Past]]


class Ticket:
    """What one caller asks for, and the future of it."""

    __slots__ = ("future", "wanted")

    def __init__(self, wanted: Wanted) -> None:
        self.wanted = wanted
        self.future: asyncio.Future[Found] = asyncio.get_running_loop().create_future()


class Pasts:
    """Reads streams. Nothing that stands when it is called is missing in what it answers."""

    def __init__(self, pool: Pool) -> None:
        self._pool = pool
        self._waiting: list[Ticket] = []
        self._reading: set[asyncio.Task[None] | None] = set()

    async def read(self, wanted: Wanted) -> Found:
        """What is stored of streams after versions; only of streams of which there is something."""
        ticket = Ticket(wanted)
        self._waiting.append(ticket)
        if len(self._reading) < ABREAST:
            self._reading.add(asyncio.create_task(self._serve()))
        return await ticket.future

    async def _serve(self) -> None:
        """Read until nobody waits; from then on, who comes must not take this for a reader that goes on."""
        try:
            while tickets := self._taken():
                try:
                    found = await self._read([ticket.wanted for ticket in tickets])
                except Exception as error:  # noqa: BLE001 - whatever it was, it is the caller's
                    await self._failed(tickets, error)
                else:
                    _tell(tickets, found)
        finally:
            self._reading.discard(asyncio.current_task())

    def _taken(self) -> list[Ticket]:
        """The first of what waits, up to the limit."""
        taken: list[Ticket] = []
        size = 0
        while self._waiting and size < LIMIT:
            ticket = self._waiting.pop(0)
            if not ticket.future.done():
                taken.append(ticket)
                size += len(ticket.wanted)
        return taken

    async def _failed(self, tickets: Sequence[Ticket], error: Exception) -> None:
        """Of several, each is read alone: one of them may be what cannot be read."""
        if len(tickets) == 1:
            if not tickets[0].future.done():
                tickets[0].future.set_exception(error)
            return
        for ticket in tickets:
            try:
                _tell([ticket], await self._read([ticket.wanted]))
            except Exception as its_own:  # noqa: BLE001 - as above
                await self._failed([ticket], its_own)

    async def _read(self, wanted: Sequence[Wanted]) -> list[Found]:
        places = [(stream, after, number) for number, one in enumerate(wanted) for stream, after in one.items()]
        if len(places) == 1:
            ((stream, after, _),) = places
            (past,) = await self._pool.rows(Statement(PAST, (stream, after)))
            return [{stream: past} if past else {}]
        numbered = [(stream, after, place) for place, (stream, after, _) in enumerate(places)]
        (past,) = await self._pool.rows(Statement(PASTS, columns(numbered)))
        found: list[Found] = [{} for _ in wanted]
        for place, its_rows in _by_place(past).items():
            stream, _, number = places[place]
            found[number][stream] = its_rows
        return found


def _by_place(past: Sequence[Row]) -> dict[int, list[Row]]:
    found: dict[int, list[Row]] = defaultdict(list)
    for row in past:
        found[row[-1]].append(row[:-1])
    return found


def _tell(tickets: Sequence[Ticket], found: Sequence[Found]) -> None:
    for ticket, its_own in zip(tickets, found, strict=True):
        if not ticket.future.done():
            ticket.future.set_result(its_own)
