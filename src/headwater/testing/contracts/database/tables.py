"""Promises of the tables of read models, and of folds inside a commit."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pytest

from headwater.checkpoint import Checkpoint
from headwater.database import Collision, Database, Failed, InlineFold, WriteSet
from headwater.errors import ConfigurationError, HeadwaterError
from headwater.message import Recorded
from headwater.store import Append, Committed
from headwater.table import Column, Table, Upsert, turn_of
from headwater.testing.clock import VirtualClock
from headwater.testing.contracts.database.case import DatabaseCase, promise
from headwater.testing.contracts.database.values import (
    EVERYTHING,
    LINES,
    TOTALS,
    A,
    B,
    appending,
    commit_one,
    committing,
    draft,
    key,
    versions,
)

WIDER = Table("totals", (*TOTALS.columns, Column("owner", "text")), version=2)
BUILT = Table("totals_2", WIDER.columns, version=2)

Rows = dict[tuple[Any, ...], tuple[Any, ...]]


def rows_of(table: Table, *rows: tuple[Any, ...], deleted: Sequence[tuple[Any, ...]] = ()) -> WriteSet:
    """A set that writes and deletes rows."""
    return WriteSet(upserts=[Upsert(table, rows, deleted)])


class TablePromises(DatabaseCase):
    """Plain typed rows by key."""

    @promise
    async def test_a_table_may_be_made_twice_and_outlives_a_crash(
        self, database: Database, clock: VirtualClock
    ) -> None:
        await database.create_table(TOTALS)
        await committing(database, rows_of(TOTALS, ("a", 1)))
        await database.create_table(TOTALS)
        database = await self.again(database)
        await database.create_table(TOTALS)
        assert await database.find(TOTALS, {}, 10) == [("a", 1)]

    @promise
    async def test_a_table_with_other_columns_is_refused_and_says_to_rebuild(
        self, database: Database, clock: VirtualClock
    ) -> None:
        await database.create_table(TOTALS)
        await committing(database, rows_of(TOTALS, ("a", 1)))
        renamed = Table("totals", (Column("account", "text"), Column("euros", "integer")))
        retyped = Table("totals", (Column("account", "text"), Column("cents", "text")))
        for changed in (WIDER, renamed, retyped, Table("totals", TOTALS.columns, keys=2)):
            with pytest.raises(ConfigurationError, match="rebuild"):
                await database.create_table(changed)
        assert await database.find(TOTALS, {}, 10) == [("a", 1)]

    @promise
    async def test_rows_are_written_replaced_and_deleted_by_key(self, database: Database, clock: VirtualClock) -> None:
        await database.create_table(TOTALS)
        await committing(database, rows_of(TOTALS, ("a", 1), ("b", 2), ("c", 3)))
        await committing(database, rows_of(TOTALS, ("b", 20), ("d", 4), deleted=[("c",), ("never",)]))
        assert await database.rows(TOTALS, [("a",), ("b",), ("c",), ("x",)]) == {("a",): ("a", 1), ("b",): ("b", 20)}
        assert await database.find(TOTALS, {}, 10) == [("a", 1), ("b", 20), ("d", 4)]
        assert await database.rows(TOTALS, []) == {}

    @promise
    async def test_a_key_may_have_several_columns(self, database: Database, clock: VirtualClock) -> None:
        await database.create_table(LINES)
        await committing(database, rows_of(LINES, (2, "a", 1), (1, "b", 2), (1, "a", 3), (10, "a", 4)))
        await committing(database, rows_of(LINES, (1, "b", 20), deleted=[(2, "a")]))
        assert await database.rows(LINES, [(1, "b"), (2, "a"), (1, "z")]) == {(1, "b"): (1, "b", 20)}
        assert await database.find(LINES, {}, 10) == [(1, "a", 3), (1, "b", 20), (10, "a", 4)]

    @promise
    async def test_find_matches_columns_in_key_order_up_to_the_limit(
        self, database: Database, clock: VirtualClock
    ) -> None:
        await database.create_table(LINES)
        await committing(database, rows_of(LINES, *((number, "x", number % 2) for number in (5, 4, 3, 2, 1))))
        assert await database.find(LINES, {"count": 1}, 10) == [(1, "x", 1), (3, "x", 1), (5, "x", 1)]
        assert await database.find(LINES, {"count": 1, "number": 3}, 10) == [(3, "x", 1)]
        assert await database.find(LINES, {"count": 0}, 1) == [(2, "x", 0)]
        assert await database.find(LINES, {"line": "y"}, 10) == []

    @promise
    async def test_every_type_of_column_reads_back_as_it_was_written(
        self, database: Database, clock: VirtualClock
    ) -> None:
        await database.create_table(EVERYTHING)
        rows = [
            ("1", "ü 💧 'quote'\n", 2**63 - 1, 0.1, True, b"\x00\xff", {"a": [1, 2.5, None, "ü"], "b": {"c": True}}),
            ("2", "", -(2**63), -1.5e300, False, b"", []),
            ("3", "0", 0, 0.0, False, b"0", "text"),
            ("4", "x", 1, 3.0, True, b"x", 12),
        ]
        await committing(database, rows_of(EVERYTHING, *rows))
        database = await self.again(database)
        found = await database.find(EVERYTHING, {}, 10)
        assert found == rows
        assert [[type(value) for value in row] for row in found] == [[type(value) for value in row] for row in rows]
        assert await database.rows(EVERYTHING, [("1",)]) == {("1",): rows[0]}

    @promise
    async def test_a_column_may_be_null_and_is_found_by_none(self, database: Database, clock: VirtualClock) -> None:
        await database.create_table(EVERYTHING)
        empty = ("1", None, None, None, None, None, None)
        full: tuple[Any, ...] = ("2", "", 0, 0.0, False, b"", {})
        await committing(database, rows_of(EVERYTHING, empty, full))
        assert await database.find(EVERYTHING, {}, 10) == [empty, full]
        assert await database.find(EVERYTHING, {"a_text": None}, 10) == [empty]
        assert await database.find(EVERYTHING, {"a_boolean": False}, 10) == [full]

    @promise
    async def test_writing_no_rows_needs_no_table(self, database: Database, clock: VirtualClock) -> None:
        await committing(database, rows_of(TOTALS))

    @promise
    async def test_a_row_that_does_not_fit_fells_its_set(self, database: Database, clock: VirtualClock) -> None:
        await database.create_table(EVERYTHING)
        nothing: list[Any] = [None] * 6
        wrong = [(1, "many"), (1, 1.5), (2, float("nan")), (3, "yes"), (4, "text"), (4, 5)]
        rows = [(None, *nothing), *(("k", *nothing[:at], value, *nothing[at + 1 :]) for at, value in wrong)]
        for row in rows:
            assert isinstance(await commit_one(database, appending(upserts=rows_of(EVERYTHING, row).upserts)), Failed)
        assert await database.find(EVERYTHING, {}, 10) == []
        assert await database.head() == 0

    @promise
    async def test_a_row_that_was_read_is_the_readers_own(self, database: Database, clock: VirtualClock) -> None:
        await database.create_table(EVERYTHING)
        value = {"list": [1]}
        await committing(database, rows_of(EVERYTHING, ("1", "", 0, 0.0, False, b"", value)))
        value["list"].append(2)
        (await database.find(EVERYTHING, {}, 1))[0][6]["list"].append(3)
        assert (await database.find(EVERYTHING, {}, 1))[0][6] == {"list": [1]}

    @promise
    async def test_many_rows_are_written_and_read_at_once(self, database: Database, clock: VirtualClock) -> None:
        await database.create_table(TOTALS)
        rows = [(f"{number:05}", number) for number in range(5_000)]
        await committing(database, rows_of(TOTALS, *rows))
        assert await database.rows(TOTALS, [row[:1] for row in rows]) == {row[:1]: row for row in rows}
        await committing(database, rows_of(TOTALS, deleted=[row[:1] for row in rows[1:]]))
        assert await database.find(TOTALS, {}, 10) == [rows[0]]

    @promise
    async def test_a_dropped_table_is_gone_and_may_be_made_anew(self, database: Database, clock: VirtualClock) -> None:
        await database.drop_table(TOTALS)
        await database.create_table(TOTALS)
        await committing(database, rows_of(TOTALS, ("a", 1)))
        await database.drop_table(TOTALS)
        with pytest.raises(HeadwaterError):
            await database.find(TOTALS, {}, 10)
        await database.create_table(WIDER)
        assert await database.find(WIDER, {}, 10) == []

    @promise
    async def test_rows_for_a_table_that_is_not_there_fell_their_set_alone(
        self, database: Database, clock: VirtualClock
    ) -> None:
        guilty = WriteSet(appends=[Append(A, 0, [draft()])], upserts=[Upsert(TOTALS, [("a", 1)])])
        answers = await database.commit([appending(B), guilty, appending(B)])
        assert [type(answer) for answer in answers] == [Committed, Failed, Committed]
        assert await versions(database, A) == []
        assert await versions(database, B) == [1, 2]


async def two_tables(database: Database, live: int, built: int) -> None:
    """An old table and a new one, with their readers at positions."""
    await database.create_table(TOTALS)
    await database.create_table(BUILT)
    await committing(
        database,
        rows_of(TOTALS, ("a", 1)),
        rows_of(BUILT, ("a", 100, "ada"), ("b", 200, "bob")),
        WriteSet(checkpoints=[Checkpoint("live", live, 0), Checkpoint("built", built, 0)]),
    )


class SwapPromises(DatabaseCase):
    """A read model that was built anew takes the place of the old one in one step."""

    @promise
    async def test_the_built_table_takes_the_place_of_the_live_one(
        self, database: Database, clock: VirtualClock
    ) -> None:
        await two_tables(database, 9, 9)
        assert await database.swap_table(BUILT, WIDER, "live", "built", 9) is True
        database = await self.again(database)
        assert await database.find(WIDER, {}, 10) == [("a", 100, "ada"), ("b", 200, "bob")]
        with pytest.raises(HeadwaterError):
            await database.find(BUILT, {}, 10)
        assert await database.checkpoint("live") == 9
        assert await database.checkpoint("built") == 0
        await database.create_table(WIDER)
        await committing(database, rows_of(WIDER, ("a", 0, "")), WriteSet(checkpoints=[Checkpoint("live", 10, 9)]))
        with pytest.raises(ConfigurationError, match="rebuild"):
            await database.create_table(TOTALS)

    @promise
    async def test_what_the_reader_folded_on_the_old_rows_falls(self, database: Database, clock: VirtualClock) -> None:
        await two_tables(database, 9, 9)
        turn = turn_of("live")
        before = await database.checkpoint(turn)
        assert await database.swap_table(BUILT, WIDER, "live", "built", 9)
        folded = WriteSet(
            upserts=[Upsert(WIDER, [("a", 2, "")])],
            checkpoints=[Checkpoint("live", 10, 9), Checkpoint(turn, before, before)],
        )
        [answer] = await database.commit([folded])
        assert isinstance(answer, Collision)
        assert await database.rows(WIDER, [("a",)]) == {("a",): ("a", 100, "ada")}

    @promise
    async def test_readers_that_stand_elsewhere_change_nothing(self, database: Database, clock: VirtualClock) -> None:
        await two_tables(database, 9, 8)
        for expect in (8, 9, 10):
            assert await database.swap_table(BUILT, WIDER, "live", "built", expect) is False
        assert await database.find(TOTALS, {}, 10) == [("a", 1)]
        assert len(await database.find(BUILT, {}, 10)) == 2
        assert (await database.checkpoint("live"), await database.checkpoint("built")) == (9, 8)

    @promise
    async def test_a_new_table_may_be_built_after_a_swap(self, database: Database, clock: VirtualClock) -> None:
        await two_tables(database, 9, 9)
        assert await database.swap_table(BUILT, WIDER, "live", "built", 9)
        await database.create_table(BUILT)
        assert await database.find(BUILT, {}, 10) == []


def count_keys(messages: Sequence[Recorded]) -> list[tuple[Any, ...]]:
    """One row a stream."""
    return sorted({(message.stream,) for message in messages})


def count_fold(rows: Rows, messages: Sequence[Recorded]) -> Upsert:
    """How many messages a stream has; a message that says so breaks the fold, another removes the row."""
    counts = {row[0]: row[1] for row in rows.values()}
    for message in messages:
        if message.data == b"broken":
            raise ZeroDivisionError("the fold is broken")
        counts[message.stream] = counts.get(message.stream, 0) + 1
    gone = {message.stream for message in messages if message.data == b"gone"}
    kept = [(stream, count) for stream, count in sorted(counts.items()) if stream not in gone]
    return Upsert(TOTALS, kept, [(stream,) for stream in sorted(gone)])


def saying(stream: str, data: bytes, expect: int = -1) -> WriteSet:
    """A set with one message."""
    return WriteSet(appends=[Append(stream, expect, [draft(data=data)])])


class InlinePromises(DatabaseCase):
    """Read models folded inside the commit are there with it, and over what stands alone."""

    @promise
    async def test_a_fold_is_seen_with_its_commit(self, database: Database, clock: VirtualClock) -> None:
        await self.folding(database)
        await committing(database, appending(A, count=2), appending(B))
        assert await database.find(TOTALS, {}, 10) == [(A, 2), (B, 1)]
        await committing(database, appending(A), appending(A))
        database = await self.again(database)
        assert await database.find(TOTALS, {}, 10) == [(A, 4), (B, 1)]

    @promise
    async def test_a_fold_sees_the_sets_that_stand_alone(self, database: Database, clock: VirtualClock) -> None:
        await self.folding(database)
        await committing(database, appending(B, key=key()))
        repeated, fallen = appending(B, key=key()), appending(A, 5, 3)
        answers = await database.commit([appending(A, 0), repeated, fallen, appending(A, 1)])
        assert [type(answer) for answer in answers] == [Committed, Committed, Collision, Committed]
        assert await database.find(TOTALS, {}, 10) == [(A, 2), (B, 1)]

    @promise
    async def test_a_fold_sees_messages_with_their_places(self, database: Database, clock: VirtualClock) -> None:
        seen: list[Recorded] = []

        def keys(messages: Sequence[Recorded]) -> list[tuple[Any, ...]]:
            seen[:] = messages
            return count_keys(messages)

        await database.create_table(TOTALS)
        database.fold_inline([InlineFold(TOTALS, keys, count_fold)])
        await committing(database, appending(A, count=2), appending(B))
        assert seen == await database.read(0, 10)

    @promise
    async def test_a_fold_may_delete_rows(self, database: Database, clock: VirtualClock) -> None:
        await self.folding(database)
        await committing(database, appending(A), appending(B))
        await committing(database, saying(A, b"gone"))
        assert await database.find(TOTALS, {}, 10) == [(B, 1)]

    @promise
    async def test_a_fold_that_raises_fells_the_guilty_set_alone(self, database: Database, clock: VirtualClock) -> None:
        await self.folding(database)
        answers = await database.commit([appending(A), saying(B, b"broken"), appending(A)])
        assert [type(answer) for answer in answers] == [Committed, Failed, Committed]
        assert isinstance(answers[1], Failed)
        assert isinstance(answers[1].error, HeadwaterError)
        assert "broken" in str(answers[1].error)
        assert await database.find(TOTALS, {}, 10) == [(A, 2)]
        assert [(one.stream, one.version) for one in await database.read(0, 10)] == [(A, 1), (A, 2)]

    @promise
    async def test_of_a_set_that_failed_no_part_is_written(self, database: Database, clock: VirtualClock) -> None:
        await self.folding(database)
        guilty = WriteSet(
            appends=[Append(A, 0, [draft(data=b"broken")])], key=key(), checkpoints=[Checkpoint("reader", 1, 0)]
        )
        assert isinstance(await commit_one(database, guilty), Failed)
        assert await database.head() == 0
        assert await database.settled("", "k") is None
        assert await database.checkpoint("reader") == 0
        (answer,) = await committing(database, appending(A, 0, key=key()))
        assert not answer.repeated

    async def folding(self, database: Database) -> None:
        """Count messages by stream in every commit."""
        await database.create_table(TOTALS)
        database.fold_inline([InlineFold(TOTALS, count_keys, count_fold)])
