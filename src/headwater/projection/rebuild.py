"""Rebuild: fill a new table beside the old from the whole log, then swap names and checkpoints in one transaction."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import msgspec

from headwater import fault
from headwater.checkpoint import Checkpoint
from headwater.database import Collision, Database, WriteSet, stands
from headwater.errors import Conflict
from headwater.message import Recorded
from headwater.projection.declare import Projection
from headwater.projection.worker import types_of
from headwater.schema import Schema
from headwater.table import Upsert

PAGE = 2000
SWAPS = 100
UNSURE = 1.0
"""Seconds to wait for the end of transactions that another process has seen the end of."""


async def rebuild(
    name: str, projection: Projection, schema: Schema, database: Database, progress: Callable[[int, int], None]
) -> int:
    """Rebuild the read model of consumer `name`; gives the position it stands at. `progress(done, of)` is in positions.

    Readers see the old table until the swap. Its service may run meanwhile: the swap takes place when the new table has
    come to where the live one stands; one that is folded inline stands where the log ends. Raises Conflict where that
    moment does not come, or the live one holds messages, which would then be folded twice.
    """
    built = msgspec.structs.replace(projection.table, name=f"{projection.table.name}__new")
    live = "" if projection.model.__inline__ else name
    building = _Building(f"{name}/rebuild", msgspec.structs.replace(projection, table=built), schema, database)
    await building.begin()
    fault.point("rebuild.begun")
    for _ in range(SWAPS):
        await building.fold_up_to(await (database.checkpoint(live) if live else database.head()), progress)
        await _check_nothing_held(name, database)
        fault.point("rebuild.swapping")
        if await database.swap_table(built, projection.table, live, building.reader, building.position):
            fault.point("rebuild.swapped")
            return building.position
    raise Conflict(
        f"{name} was never still for a moment, so the rebuilt table could not take its place; stop its service and rebuild again"
    )


async def _check_nothing_held(name: str, database: Database) -> None:
    held, _ = await database.held_count(name)
    if held:
        raise Conflict(
            f"{name} holds {held} messages, which the rebuilt table already has; redrive or discard them first"
        )


class _Building:
    """Folds the log into a table that nobody reads yet, up to a position."""

    def __init__(self, reader: str, projection: Projection, schema: Schema, database: Database) -> None:
        self.reader = reader
        self.projection = projection
        self.schema = schema
        self.database = database
        self.position = 0
        self.types = types_of(projection, schema)

    async def begin(self) -> None:
        """Make the table anew; what an earlier rebuild still has under way falls, before it could write into this one."""
        earlier = await self.database.checkpoint(self.reader)
        if earlier:
            await self._move(0, earlier, [])
        await self.database.drop_table(self.projection.table)
        await self.database.create_table(self.projection.table)

    async def fold_up_to(self, end: int, progress: Callable[[int, int], None]) -> None:
        """Fold what is not folded yet; less where this process is not sure yet of the log up to there."""
        while self.position < end:
            page = await self.database.read(self.position, min(PAGE, end - self.position))
            if not page:  # there is a message at the end: it will be shown
                await self.database.changed(self.position, UNSURE)
                return
            events = [one for one in page if one.position <= end]  # positions have gaps
            upsert = await self._fold([one for one in events if one.kind == "event" and one.type in self.types])
            reached = min(page[-1].position, end)
            fault.point("rebuild.folded")
            await self._move(reached, self.position, [upsert])
            fault.point("rebuild.moved")
            self.position = reached
            progress(reached, end)

    async def _fold(self, messages: Sequence[Recorded]) -> Upsert:
        events = [self.schema.decode(one.type, one.type_version, one.data) for one in messages]
        keys = list({self.projection.key_of(event) for event in events})
        return self.projection.fold(await self.database.rows(self.projection.table, keys), events)

    async def _move(self, position: int, expect: int, upserts: Sequence[Upsert]) -> None:
        moved = WriteSet(checkpoints=[Checkpoint(self.reader, position, expect)], upserts=upserts)
        [answer] = await self.database.commit([moved])
        if isinstance(answer, Collision):
            raise Conflict(f"{self.reader}: the rebuild lost its place; is another rebuild of it running?")
        stands(answer)
