"""Runs a read model behind the log or a channel, or inside the commit."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from headwater.consumer import Arrival, Outcome, run_purely
from headwater.consumer.arrival import Faulty
from headwater.database import Database, InlineFold, Transaction
from headwater.message import Recorded
from headwater.projection.declare import Projection
from headwater.schema import Schema
from headwater.table import Upsert


class ProjectionWorker:
    """Folds a batch by key in memory and writes the rows at once."""

    kind = "read model"
    transactional = False

    def __init__(self, name: str, projection: Projection, schema: Schema, database: Database) -> None:
        self.name = name
        self.projection = projection
        self.schema = schema
        self.database = database
        self.types = frozenset(schema.of(event).name for event in projection.evolve)

    def wants(self, message: Recorded) -> bool:
        """Events of its classes."""
        return message.type in self.types and message.kind == "event"

    async def run(self, arrivals: Sequence[Arrival], transaction: Transaction | None) -> Outcome:
        """Fold the events; where one fails, again without its key."""
        events: list[Any] = [self._event(arrival) for arrival in arrivals]
        keys = {self.projection.key_of(event) for event in events if not isinstance(event, Exception)}
        rows = await self.database.rows(self.projection.table, list(keys))
        return run_purely(arrivals, lambda todo: Outcome(upserts=[self._fold(rows, events, todo)]))

    def _event(self, arrival: Arrival) -> Any:
        try:
            return arrival.payload(self.schema)
        except Exception as error:  # noqa: BLE001 - kept with the message as its cause
            return error

    def _fold(self, rows: dict[tuple[Any, ...], tuple[Any, ...]], events: Sequence[Any], todo: Sequence[int]) -> Upsert:
        at = 0

        def in_turn() -> Any:
            nonlocal at
            for at in todo:
                if isinstance(events[at], Exception):
                    raise events[at]
                yield events[at]

        try:
            return self.projection.fold(rows, in_turn())
        except Exception as error:
            raise Faulty(at, error) from error

    def undo(self) -> None:
        """Nothing is remembered between batches."""
        return


def inline_fold(projection: Projection, schema: Schema) -> InlineFold:
    """The read model as a part of every commit."""
    types = frozenset(schema.of(event).name for event in projection.evolve)

    def events(messages: Sequence[Recorded]) -> list[Any]:
        return [
            schema.decode(one.type, one.type_version, one.data)
            for one in messages
            if one.type in types and one.kind == "event"
        ]

    return InlineFold(
        projection.table,
        lambda messages: list({projection.key_of(event) for event in events(messages)}),
        lambda rows, messages: projection.fold(rows, events(messages)),
    )
