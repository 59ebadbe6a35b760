"""Rebuild: fill a new table beside the old from the whole log, then swap names and checkpoints in one transaction."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import msgspec

from headwater.checkpoint import Checkpoint
from headwater.database import Database, WriteSet
from headwater.errors import Conflict, DatabaseError
from headwater.message import Recorded
from headwater.projection.declare import Projection
from headwater.schema import Schema
from headwater.store import Committed
from headwater.table import Upsert

PAGE = 2000
SWAPS = 100


async def rebuild(
    name: str, projection: Projection, schema: Schema, database: Database, progress: Callable[[int, int], None]
) -> int:
    """Rebuild the read model of consumer `name`; gives the position it stands at. `progress(done, of)` is in positions.

    Readers see the old table until the swap. The live consumer may run meanwhile: the swap waits for a moment at which
    both stand at the same position.
    """
    built = msgspec.structs.replace(projection.table, name=f"{projection.table.name}__new")
    beside = msgspec.structs.replace(projection, table=built)
    reader = f"{name}/rebuild"
    await database.drop_table(built)
    await database.create_table(built)
    position = await database.checkpoint(reader)
    if position:
        await _move(database, reader, position, 0, [])
    position = 0
    for _ in range(SWAPS):
        position = await _catch_up(reader, beside, schema, database, position, progress)
        live = await database.checkpoint(name)
        if live < position and not projection.model.__inline__:
            await database.changed(position, 0.05)
            continue
        if await database.swap_table(built, projection.table, name, reader, position):
            return position
    raise Conflict(
        f"{name} was never still for a moment, so the rebuilt table could not take its place; stop its service and rebuild again"
    )


async def _catch_up(
    reader: str,
    projection: Projection,
    schema: Schema,
    database: Database,
    position: int,
    progress: Callable[[int, int], None],
) -> int:
    head = await database.head()
    while page := await database.read(position, PAGE):
        events = [
            schema.decode(one.type, one.type_version, one.data) for one in page if _folds(one, projection, schema)
        ]
        rows = await database.rows(projection.table, list({projection.key_of(event) for event in events}))
        await _move(database, reader, position, page[-1].position, [projection.fold(rows, events)])
        position = page[-1].position
        progress(position, max(head, position))
    return position


def _folds(recorded: Recorded, projection: Projection, schema: Schema) -> bool:
    if recorded.kind != "event":
        return False
    return any(schema.of(event).name == recorded.type for event in projection.evolve)


async def _move(database: Database, reader: str, expect: int, position: int, upserts: Sequence[Upsert]) -> None:
    [answer] = await database.commit([WriteSet(checkpoints=[Checkpoint(reader, position, expect)], upserts=upserts)])
    if not isinstance(answer, Committed):
        raise DatabaseError(f"{reader}: the rebuild lost its place ({answer}); is another rebuild of it running?")
