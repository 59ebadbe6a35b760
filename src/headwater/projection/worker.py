"""Runs a read model behind the log or a channel, or inside the commit."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from headwater import fault
from headwater.checkpoint import Checkpoint
from headwater.consumer import Arrival, Outcome, run_purely
from headwater.consumer.arrival import Faulty
from headwater.database import Database, InlineFold, Transaction
from headwater.message import Recorded
from headwater.projection.declare import Projection, Unstorable
from headwater.schema import Schema
from headwater.table import Upsert, turn_of


class ProjectionWorker:
    """Folds a batch by key in memory and writes the rows at once.

    A batch stands only in the turn of the table in which its rows were read: a rebuilt table that takes the place of the old
    one moves the turn, and where a channel feeds several members that fold into the same rows, so does each of their batches.
    """

    kind = "read model"
    transactional = False

    def __init__(self, name: str, projection: Projection, schema: Schema, database: Database) -> None:
        self.name = name
        self.projection = projection
        self.schema = schema
        self.database = database
        self.types = types_of(projection, schema)
        self._shared = any(schema.of(event).service != schema.service for event in projection.evolve)
        self._turn: int | None = None

    def wants(self, message: Recorded) -> bool:
        """Events of its classes."""
        return message.type in self.types and message.kind == "event"

    async def run(self, arrivals: Sequence[Arrival], transaction: Transaction | None) -> Outcome:
        """Fold the events; where one fails, again without its key."""
        events: list[Any] = [self._event(arrival) for arrival in arrivals]
        outcome = await run_purely(arrivals, lambda todo: self._fold(events, todo))
        fault.point("projection.folded")
        return outcome

    def _event(self, arrival: Arrival) -> Any:
        try:
            return arrival.payload(self.schema)
        except Exception as error:  # noqa: BLE001 - kept with the message as its cause
            return error

    async def _fold(self, events: Sequence[Any], todo: Sequence[int], *, check: bool = False) -> Outcome:
        turn = await self._this_turn()
        keys = {self.projection.key_of(events[one]) for one in todo if not isinstance(events[one], Exception)}
        rows = await self.database.rows(self.projection.table, list(keys))
        at = 0

        def in_turn() -> Any:
            nonlocal at
            for at in todo:
                if isinstance(events[at], Exception):
                    raise events[at]
                yield events[at]

        try:
            return Outcome(upserts=[self.projection.fold(rows, in_turn(), check=check)], checkpoints=[turn])
        except Exception as error:
            if isinstance(error, Unstorable) and not check:
                return await self._fold(events, todo, check=True)
            raise Faulty(at, error) from error

    async def _this_turn(self) -> Checkpoint:
        """The turn that rows are read in; who folds alone knows it until a batch falls."""
        name = turn_of(self.name)
        if self._shared or self._turn is None:
            self._turn = await self.database.checkpoint(name)
        return Checkpoint(name, self._turn + self._shared, self._turn)

    def undo(self) -> None:
        """A batch fell: the turn may have moved."""
        self._turn = None


def types_of(projection: Projection, schema: Schema) -> frozenset[str]:
    """The stored names of the events that a read model folds, old ones too."""
    return frozenset().union(*(schema.names(event) for event in projection.evolve))


def inline_fold(projection: Projection, schema: Schema) -> InlineFold:
    """The read model as a part of every commit."""
    types = types_of(projection, schema)

    def events(messages: Sequence[Recorded]) -> list[Any]:
        return [
            schema.decode(one.type, one.type_version, one.data)
            for one in messages
            if one.type in types and one.kind == "event"
        ]

    def rows_after(rows: dict[tuple[Any, ...], tuple[Any, ...]], messages: Sequence[Recorded]) -> Upsert:
        folded = projection.fold(rows, events(messages))
        fault.point("projection.folded_inline")
        return folded

    return InlineFold(
        projection.table,
        lambda messages: list({projection.key_of(event) for event in events(messages)}),
        rows_after,
    )
