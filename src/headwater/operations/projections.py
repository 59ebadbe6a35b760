"""Read models from outside: where each stands, and filling one anew."""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

from msgspec import Struct

from headwater.app import App
from headwater.channel import Channel
from headwater.database import Database
from headwater.errors import HeadwaterError, NotFound
from headwater.operations.consumers import ConsumerState, list_consumers
from headwater.operations.refusal import NotPossible
from headwater.projection import Projection
from headwater.projection.rebuild import rebuild

COUNTED: Final = 1_000_000
"""Rows are counted up to this number where the database has no SQL."""

Progress = Callable[[int, int], None]


class ProjectionState(Struct, frozen=True):
    """A read model: its table and rows, how it is fed, and how far behind it is (None: not known).

    `position` is its place in the log; None where other services' events feed it. `rows` is None where there is no table
    yet.
    """

    name: str
    table: str
    inline: bool
    position: int | None
    behind: int | None
    seconds: float | None
    rows: int | None


async def list_projections(app: App, database: Database, channel: Channel | None) -> list[ProjectionState]:
    """The read models that an app declares. The database must be open, and the channel where there is one."""
    states = await list_consumers(database, channel, app.clock.now())
    found = []
    for short, projection in sorted(app.declared.projections.items()):
        name = f"{app.name}.{short}"
        rows = await count_rows(database, projection)
        feeding = [state for state in states if state.name == name]
        if projection.model.__inline__:
            head = await database.head()
            found.append(ProjectionState(name, projection.table.name, True, head, 0, 0.0, rows))
        else:
            found.append(_catching_up(name, projection, feeding, rows))
    return found


def _catching_up(name: str, projection: Projection, feeding: list[ConsumerState], rows: int | None) -> ProjectionState:
    counts = [state.behind for state in feeding if state.behind is not None]
    ages = [state.seconds for state in feeding if state.seconds is not None]
    behind = sum(counts) if counts and len(counts) == len(feeding) else None
    oldest = max(ages) if ages and len(ages) == len(feeding) else None
    position = next((state.position for state in feeding if state.source == "log"), None)
    return ProjectionState(name, projection.table.name, False, position, behind, oldest, rows)


async def count_rows(database: Database, projection: Projection) -> int | None:
    """How many rows a read model has; None if its table was never made."""
    query = getattr(database, "query", None)
    try:
        if query is not None:
            [(rows,)] = await query(f'SELECT count(*) FROM "{projection.table.name}"')
            return int(rows)
        return len(await database.find(projection.table, {}, COUNTED))
    except HeadwaterError:
        return None


def find_projection(app: App, name: str) -> tuple[str, Projection]:
    """A read model by its consumer's name, its table or its class name. Raises NotFound."""
    for short, projection in app.declared.projections.items():
        if name in (f"{app.name}.{short}", short, projection.model.__name__):
            return f"{app.name}.{short}", projection
    known = ", ".join(sorted(app.declared.projections)) or "none"
    raise NotFound(f"{app.name} has no read model {name!r}; it has: {known}")


async def rebuild_projection(app: App, database: Database, name: str, progress: Progress) -> int:
    """Fill a read model anew from the whole log while its readers see the old rows; the position it then stands at.

    Raises NotFound, NotPossible, or Conflict where its service never lets it catch up. `progress(done, of)` is in
    positions.
    """
    full, projection = find_projection(app, name)
    foreign = sorted(found.name for found in map(app.schema.of, projection.evolve) if found.service != app.name)
    if foreign:
        raise NotPossible(
            f"{full} takes {foreign[0]}, an event of another service, which is not in this log: "
            "a rebuild would lose those rows; republish from its service instead"
        )
    return await rebuild(full, projection, app.schema, database, progress)
