"""Promises of the interactive transaction."""

from __future__ import annotations

import pytest

from headwater.checkpoint import Checkpoint
from headwater.database import Collision, Database, InlineFold, WriteSet
from headwater.errors import ConfigurationError
from headwater.inbox import Mark
from headwater.store import Committed
from headwater.testing.clock import VirtualClock
from headwater.testing.contracts.database.case import DatabaseCase, promise
from headwater.testing.contracts.database.tables import count_fold, count_keys
from headwater.testing.contracts.database.values import TOTALS, A, B, appending, committing, key, versions


class TransactionPromises(DatabaseCase):
    """What is written in the block is there when it ends, and not at all when it raises."""

    @promise
    async def test_what_is_written_is_there_after_the_block(self, database: Database, clock: VirtualClock) -> None:
        async with database.transaction() as transaction:
            answers = transaction.write([appending(A, 0, 2), appending(B, 5), WriteSet(marks=[Mark("mail", A, 1, 0)])])
            answers += transaction.write([appending(A, 2, key=key())])
        assert [type(answer) for answer in answers] == [Committed, Collision, Committed, Committed]
        assert answers[3] == Committed(await database.head(), 3)
        database = await self.again(database)
        assert await versions(database) == [1, 2, 3]
        assert await database.marks("mail", [A]) == {A: 1}
        assert await database.settled("", "k") is not None

    @promise
    async def test_nobody_sees_it_before_the_block_ends(self, database: Database, clock: VirtualClock) -> None:
        await committing(database, appending(A))
        async with database.transaction() as transaction:
            transaction.write([appending(A, 1), WriteSet(checkpoints=[Checkpoint("reader", 1, 0)])])
            assert await versions(database) == [1]
            assert await database.checkpoint("reader") == 0
        assert await versions(database) == [1, 2]

    @promise
    async def test_it_is_undone_when_the_block_raises(self, database: Database, clock: VirtualClock) -> None:
        with pytest.raises(ZeroDivisionError):
            async with database.transaction() as transaction:
                transaction.write([appending(A, key=key()), WriteSet(marks=[Mark("mail", A, 1, 0)])])
                raise ZeroDivisionError
        assert await database.head() == 0
        assert await database.marks("mail", [A]) == {}
        (answer,) = await committing(database, appending(A, 0, key=key()))
        assert (answer.version, answer.repeated) == (1, False)

    @promise
    async def test_a_savepoint_is_undone_alone(self, database: Database, clock: VirtualClock) -> None:
        async with database.transaction() as transaction:
            transaction.write([appending(A, 0)])
            with pytest.raises(ZeroDivisionError):
                async with transaction.savepoint():
                    transaction.write([appending(A, 1, 3), appending(B)])
                    raise ZeroDivisionError
            async with transaction.savepoint():
                (answer,) = transaction.write([appending(A, 1)])
        assert answer == Committed(await database.head(), 2)
        assert await versions(database, A) == [1, 2]
        assert await versions(database, B) == []
        assert await database.read(0, 10) == await database.read_stream(A, 0, 10)

    @promise
    async def test_a_commit_comes_before_or_after_a_transaction(self, database: Database, clock: VirtualClock) -> None:
        async with database.transaction() as transaction:
            transaction.write([appending(A, 0)])
        await committing(database, appending(A, 1))
        async with database.transaction() as transaction:
            (answer,) = transaction.write([appending(A, 2)])
        assert isinstance(answer, Committed)
        assert await versions(database) == [1, 2, 3]

    @promise
    async def test_read_models_are_folded_inside_it_too(self, database: Database, clock: VirtualClock) -> None:
        await database.create_table(TOTALS)
        database.fold_inline([InlineFold(TOTALS, count_keys, count_fold)])
        async with database.transaction() as transaction:
            transaction.write([appending(A, count=2)])
            transaction.write([appending(A)])
        assert await database.find(TOTALS, {}, 10) == [(A, 3)]

    @promise
    async def test_its_commit_wakes_who_waits_for_changes(self, database: Database, clock: VirtualClock) -> None:
        async with database.transaction() as transaction:
            transaction.write([appending(A)])
        assert await database.changed(0, 5.0) is True

    @promise
    async def test_sql_runs_in_it_or_is_refused_with_the_reason(self, database: Database, clock: VirtualClock) -> None:
        await database.create_table(TOTALS)
        if not database.capabilities.sql:
            async with database.transaction() as transaction:
                with pytest.raises(ConfigurationError, match="no SQL"):
                    transaction.execute("SELECT 1")
            return
        async with database.transaction() as transaction:
            transaction.execute("INSERT INTO totals (account, cents) VALUES ('a', 1)")
            assert transaction.execute("SELECT account, cents FROM totals") == [("a", 1)]
        assert await database.find(TOTALS, {}, 10) == [("a", 1)]
        with pytest.raises(ZeroDivisionError):
            async with database.transaction() as transaction:
                transaction.execute("INSERT INTO totals (account, cents) VALUES ('b', 2)")
                transaction.write([appending(A)])
                raise ZeroDivisionError
        assert await database.find(TOTALS, {}, 10) == [("a", 1)]
        assert await database.head() == 0

    @promise
    async def test_a_savepoint_undoes_sql(self, database: Database, clock: VirtualClock) -> None:
        if not database.capabilities.sql:
            return
        await database.create_table(TOTALS)
        async with database.transaction() as transaction:
            transaction.execute("INSERT INTO totals (account, cents) VALUES ('a', 1)")
            with pytest.raises(ZeroDivisionError):
                async with transaction.savepoint():
                    transaction.execute("UPDATE totals SET cents = 99")
                    raise ZeroDivisionError
            assert transaction.execute("SELECT cents FROM totals") == [(1,)]
        assert await database.find(TOTALS, {}, 10) == [("a", 1)]
