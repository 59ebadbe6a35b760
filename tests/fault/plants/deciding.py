"""Bugs of decisions over tags: what has come since is looked for too early, not at all, or up to where nobody looked."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Any
from unittest import mock

from msgspec.structs import replace

from headwater import deciding
from headwater.adapters.postgres import facts
from headwater.adapters.postgres import relevant as postgres_relevant
from headwater.adapters.postgres.reads import Reads as PostgresReads
from headwater.adapters.sqlite import SqliteDatabase
from headwater.adapters.sqlite import relevant as sqlite_relevant
from headwater.adapters.sqlite import writes as sqlite_writes
from headwater.adapters.sqlite.reads import Reads as SqliteReads
from headwater.database import Answer, Collision, WriteSet
from headwater.database.placed import Placed
from headwater.deciding import Sitting
from headwater.store import Item, Relevant, Seen
from tests.fault.plants.detectors import Rig, Suite
from tests.fault.plants.plant import Patch, Promise, planted

UNSEEN = "did not see|no order explains"
CONTRACT = "tests/contract/test_database_sqlite.py::TestSqliteDatabase::"
SERVER = Rig("dcb", UNSEEN, range(1, 6), slow=True, call="on_server")
FLOW = "tests/flow/test_decisions.py::"


@planted(Promise.ATOMIC, Rig("dcb", UNSEEN))
def condition_looked_at_before_the_turn() -> Patch:
    """Whether something has come since is looked up, and then the set is written without a condition: EXISTS, then INSERT."""
    commit = SqliteDatabase.commit

    async def committed(self: SqliteDatabase, writes: Sequence[WriteSet]) -> list[Answer]:
        connection = self._read._connection
        for write in writes:
            if any(sqlite_relevant.is_unmet(connection, one) for one in write.conditions):
                return [Collision("unmet") for _ in writes]
        return await commit(self, [replace(write, conditions=()) for write in writes])

    return mock.patch.object(SqliteDatabase, "commit", committed)


@planted(Promise.ATOMIC, SERVER)
def condition_looked_at_without_locks() -> Patch:
    """On PostgreSQL too it is looked up in the transaction that writes, and nobody is kept from writing meanwhile."""
    return mock.patch.object(facts, "bounds", lambda writes: {})


@planted(Promise.ATOMIC, SERVER)
def conditions_share_their_locks() -> Patch:
    """A condition locks as an append does: two of them look at the same time, and neither sees what the other writes."""

    def shared(writes: Sequence[WriteSet]) -> dict[str, bool]:
        return dict.fromkeys(postgres_relevant.bounds(writes), False)

    return mock.patch.object(facts, "bounds", shared)


@planted(Promise.ATOMIC, SERVER)
def seen_up_to_the_last_position() -> Patch:
    """What was seen is remembered as the last position of it, while a lower one may still come."""
    read_relevant = PostgresReads.read_relevant

    async def one_position(self: Any, items: Sequence[Item], seen: Seen) -> Relevant:
        found = await read_relevant(self, items, seen)
        last = max([seen.safe, *(one.position for one, _ in found.events)])
        return Relevant(found.events, Seen(last))

    return mock.patch.object(PostgresReads, "read_relevant", one_position)


@planted(Promise.ATOMIC, Rig("dcb", UNSEEN))
def seen_up_to_a_later_head() -> Patch:
    """What was seen is remembered as the end of the log, which is looked up after the events were read."""

    async def late(self: Any, items: Sequence[Item], seen: Seen) -> Relevant:
        found = sqlite_relevant.read_relevant(self._read, items, seen)
        await asyncio.sleep(0.001)
        return Relevant(found.events, Seen(self._read.value(sqlite_relevant.HEAD)))

    return mock.patch.object(SqliteReads, "read_relevant", late)


@planted(
    Promise.ATOMIC,
    Suite(f"{CONTRACT}test_a_condition_is_about_what_comes_before_its_own_set"),
    everywhere=True,
)
def sets_of_one_commit_unseen() -> Patch:
    """A condition is held against what is stored, not against the sets before it in the same commit."""
    return mock.patch.object(Placed, "meets", lambda self, items: False)


@planted(Promise.ATOMIC, Suite(f"{CONTRACT}test_a_set_falls_when_a_relevant_event_has_come"), Rig("dcb", UNSEEN))
def tags_alone_find_nothing() -> Patch:
    """An item of tags without types is asked for as one of no type."""
    sql = sqlite_relevant.TAGGED.replace("?5 = '[]' OR ", "")
    return mock.patch.object(sqlite_relevant, "TAGGED", sql)


@planted(
    Promise.ATOMIC, Suite(f"{CONTRACT}test_items_take_any_of_their_types_and_all_of_their_tags"), Rig("dcb", UNSEEN)
)
def tags_of_one_event_alone() -> Patch:
    """Of the events of a commit, the tags of the last one alone are stored."""
    tag_rows = sqlite_writes.tag_rows
    return mock.patch.object(sqlite_writes, "tag_rows", lambda judged: tag_rows(judged)[-1:])


@planted(
    Promise.ATOMIC,
    Suite(f"{FLOW}test_processes_that_decide_at_once_sell_no_seat_twice_and_no_caller_hears_of_it"),
)
def decision_without_its_condition() -> Patch:
    """A decision is appended whatever has come since."""

    def bare(appends: Any, *, key: Any, conditions: Any) -> WriteSet:
        return WriteSet(appends, key=key)

    return mock.patch.object(deciding, "WriteSet", bare)


@planted(Promise.ATOMIC, Suite(f"{FLOW}test_commands_in_one_batch_see_what_those_before_them_decided"))
def decisions_of_a_batch_apart() -> Patch:
    """Commands of one batch are decided as if each were alone."""
    decide = Sitting.decide

    def alone(self: Any, command: Any, meta: bytes) -> Any:
        self._decided = []
        return decide(self, command, meta)

    return mock.patch.object(Sitting, "decide", alone)


@planted(Promise.ATOMIC, Suite(f"{FLOW}test_a_refusal_falls_with_what_it_rests_on"))
def refusal_rests_on_nothing() -> Patch:
    """A command of another service is refused though what it was refused for has changed meanwhile."""
    return mock.patch.object(Sitting, "conditions", [])


@planted(
    Promise.THREE_VALUED,
    Suite(f"{FLOW}test_the_same_key_is_done_once_and_answered_as_first_though_it_would_now_be_refused"),
)
def refused_without_a_look_at_the_key() -> Patch:
    """A decision that refuses does not ask whether the command was committed before."""

    async def unknown(self: Any, key: Any) -> None:
        return None

    return mock.patch.object(deciding.Handling, "repeated", unknown)
