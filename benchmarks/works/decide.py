"""DCB: an event with two tags of many, appended without a condition, on one, and after reading what its decision rests on.

Each tag has few events, so that next to nothing collides. An event without tags stands beside it.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

from benchmarks import ours
from benchmarks.case import Case, Setting
from benchmarks.load import Figures, tasks
from headwater.adapters.postgres import PostgresDatabase
from headwater.adapters.sqlite import SqliteDatabase
from headwater.database import WriteSet
from headwater.message import Draft
from headwater.store import ANY, Append, Committed, Condition, Item, Seen
from tests.servers.postgres import shared_server

TAGS = 100_000
WRITERS = (1, 16, 64)
SUBSCRIBED, CLOSED = "bench.Subscribed", "bench.Closed"
UNCONDITIONAL, CONDITIONAL, DECIDED, UNTAGGED = "unconditional", "conditional", "read, conditional", "without tags"
SUBJECTS = (UNCONDITIONAL, CONDITIONAL, DECIDED, UNTAGGED)


def decisions(setting: Setting) -> Iterator[Case]:
    with setting.fresh() as folder:
        names = (folder / f"{number}.db" for number in range(1_000))
        for writers in WRITERS:
            yield _case(f"SQLite, {writers} writers", setting, writers, lambda: SqliteDatabase(next(names), ours.CLOCK))
        with shared_server(folder) as databases:
            for writers in WRITERS:
                yield _case(
                    f"PostgreSQL, {writers} writers",
                    setting,
                    writers,
                    lambda: PostgresDatabase(databases.make(), ours.CLOCK),
                )


def _case(name: str, setting: Setting, writers: int, make: Callable[[], Any]) -> Case:
    return Case("DCB", name, {one: partial(_measured, make, setting, writers, one) for one in SUBJECTS}, UNCONDITIONAL)


def _measured(make: Callable[[], Any], setting: Setting, writers: int, subject: str) -> Figures:
    return asyncio.run(_appending(make(), setting, writers, subject))


async def _appending(database: Any, setting: Setting, writers: int, subject: str) -> Figures:
    await database.open()
    appender = Appender(database, subject)
    done = await tasks(writers, setting.seconds, appender.append)
    await database.close()
    return {**done.figures("commits"), "% collisions": 100 * appender.collisions / max(appender.appends, 1)}


class Appender:
    """Appends one event after the other, as a subject does."""

    def __init__(self, database: Any, subject: str) -> None:
        self.database = database
        self.subject = subject
        self.appends = self.collisions = 0
        self._chance = random.Random(subject)

    async def append(self) -> None:
        """Append one event."""
        mark, chance = ours.CLOCK.new_id(), self._chance
        tags = (f"course:{chance.randrange(TAGS)}", f"student:{chance.randrange(TAGS)}")
        conditions = await self._conditions(tags)
        kept = () if self.subject == UNTAGGED else tags
        draft = Draft("event", mark, SUBSCRIBED, 1, 0, ours.CLOCK.now(), b'{"course":"1","student":"2"}', b"@", kept)
        write = WriteSet([Append(f"bench.Subscription/{mark}", ANY, [draft])], conditions=conditions)
        (answer,) = await self.database.commit([write])
        self.appends += 1
        self.collisions += not isinstance(answer, Committed)

    async def _conditions(self, tags: tuple[str, ...]) -> list[Condition]:
        """On what was read, or on what never is."""
        if self.subject == DECIDED:
            items = tuple(Item((SUBSCRIBED,), (tag,)) for tag in tags)
            return [Condition(items, (await self.database.read_relevant(items, Seen())).seen)]
        if self.subject == CONDITIONAL:
            return [Condition(tuple(Item((CLOSED,), (tag,)) for tag in tags), Seen())]
        return []
