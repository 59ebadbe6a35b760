"""Promises for many tasks at once, of leases, and of waiting for changes."""

from __future__ import annotations

import asyncio
from collections import Counter

from headwater.database import Collision, Database, WriteSet
from headwater.inbox import Mark
from headwater.lease import Fence, Lease
from headwater.store import ANY, Committed
from headwater.testing.clock import VirtualClock
from headwater.testing.contracts.database.case import DatabaseCase, promise
from headwater.testing.contracts.database.values import A, B, appending, commit_one, committing, key, versions
from headwater.testing.contracts.gap import WRITERS, Writer, follow, wrong

TTL = 0.6
"""Seconds that a lease lasts: short, for adapters that sleep through it."""


class ConcurrencyPromises(DatabaseCase):
    """Tasks side by side get one order and one winner."""

    @promise
    async def test_a_hundred_tasks_append_to_one_stream(self, database: Database, clock: VirtualClock) -> None:
        answers = await asyncio.gather(*(commit_one(database, appending(A, ANY)) for _ in range(100)))
        assert sorted(answer.version for answer in answers if isinstance(answer, Committed)) == list(range(1, 101))
        log = await database.read(0, 1_000)
        assert [one.version for one in log] == list(range(1, 101))
        by_version = {answer.version: answer.position for answer in answers if isinstance(answer, Committed)}
        assert by_version == {one.version: one.position for one in log}

    @promise
    async def test_a_reader_misses_nothing_while_others_write(self, database: Database, clock: VirtualClock) -> None:
        writing = [asyncio.create_task(Writer(database, f"gap.{number}").run(40)) for number in range(WRITERS)]
        beside = await self.beside(database)
        seen = await asyncio.gather(
            *(follow(one, lambda: all(task.done() for task in writing)) for one in (database, beside))
        )
        written = [mark for task in writing for mark in task.result().ids]
        assert [wrong(written, one) for one in seen] == [[], []]

    @promise
    async def test_of_fifty_tasks_with_the_same_expect_one_stands(
        self, database: Database, clock: VirtualClock
    ) -> None:
        await committing(database, appending(A, 0, 3))
        answers = await asyncio.gather(*(commit_one(database, appending(A, 3)) for _ in range(50)))
        assert Counter(type(answer) for answer in answers) == {Committed: 1, Collision: 49}
        assert await versions(database) == [1, 2, 3, 4]

    @promise
    async def test_of_fifty_tasks_with_the_same_key_one_writes(self, database: Database, clock: VirtualClock) -> None:
        answers = await asyncio.gather(*(commit_one(database, appending(A, ANY, key=key())) for _ in range(50)))
        assert all(isinstance(answer, Committed) for answer in answers)
        assert Counter(answer.repeated for answer in answers if isinstance(answer, Committed)) == {False: 1, True: 49}
        assert await versions(database) == [1]

    @promise
    async def test_of_fifty_tasks_that_move_a_mark_one_does(self, database: Database, clock: VirtualClock) -> None:
        moves = (commit_one(database, appending(A, marks=[Mark("mail", B, 1, 0)])) for _ in range(50))
        answers = await asyncio.gather(*moves)
        assert Counter(type(answer) for answer in answers) == {Committed: 1, Collision: 49}
        assert await versions(database) == [1]

    @promise
    async def test_tasks_that_load_and_try_again_all_get_through(self, database: Database, clock: VirtualClock) -> None:
        async def increase() -> None:
            while True:
                at = len(await versions(database))
                if isinstance(await commit_one(database, appending(A, at)), Committed):
                    return

        await asyncio.gather(*(increase() for _ in range(12)))
        assert await versions(database) == list(range(1, 13))

    @promise
    async def test_transactions_and_commits_side_by_side_lose_nothing(
        self, database: Database, clock: VirtualClock
    ) -> None:
        async def interactive() -> None:
            async with database.transaction() as transaction:
                transaction.write([appending(A)])
                await clock.sleep(0)
                transaction.write([appending(A)])

        await asyncio.gather(
            *(interactive() for _ in range(10)), *(commit_one(database, appending(A)) for _ in range(10))
        )
        assert await versions(database) == list(range(1, 31))
        log = await database.read(0, 100)
        assert [one.version for one in log] == list(range(1, 31))

    @promise
    async def test_a_reader_of_the_log_never_misses_a_position(self, database: Database, clock: VirtualClock) -> None:
        seen: list[int] = []

        async def reader() -> None:
            while len(seen) < 60:
                page = await database.read(seen[-1] if seen else 0, 7)
                seen.extend(one.position for one in page)
                if not page:
                    await database.changed(seen[-1] if seen else 0, 1.0)

        writers = (commit_one(database, appending(f"bank.Account/{number % 7}", count=2)) for number in range(30))
        await asyncio.gather(reader(), *writers)
        assert seen == [one.position for one in await database.read(0, 1_000)]


class ChangedPromises(DatabaseCase):
    """Waiting for the log to grow."""

    @promise
    async def test_changed_is_true_at_once_when_there_is_something(
        self, database: Database, clock: VirtualClock
    ) -> None:
        (answer,) = await committing(database, appending(A))
        assert await database.changed(answer.position - 1, 0.0) is True
        assert await database.changed(answer.position - 1, 20.0) is True

    @promise
    async def test_changed_is_false_after_its_timeout(self, database: Database, clock: VirtualClock) -> None:
        (answer,) = await committing(database, appending(A))
        assert await database.changed(answer.position, 0.05) is False
        assert await database.changed(answer.position, 0.0) is False

    @promise
    async def test_changed_wakes_soon_after_a_commit_of_another_task(
        self, database: Database, clock: VirtualClock
    ) -> None:
        loop = asyncio.get_running_loop()
        waiting = [asyncio.create_task(database.changed(0, 20.0)) for _ in range(3)]
        await asyncio.sleep(0.02)  # noqa: TID251 - real time: the waiters must be waiting
        assert not any(task.done() for task in waiting)
        started = loop.time()
        await committing(database, appending(A))
        assert await asyncio.gather(*waiting) == [True, True, True]
        assert loop.time() - started < 2.0

    @promise
    async def test_a_commit_without_messages_wakes_nobody_for_good(
        self, database: Database, clock: VirtualClock
    ) -> None:
        waiting = asyncio.create_task(database.changed(0, 0.3))
        await asyncio.sleep(0.02)  # noqa: TID251 - real time: the waiter must be waiting
        await committing(database, WriteSet(marks=[Mark("mail", A, 1, 0)]))
        assert await waiting is False


class LeasePromises(DatabaseCase):
    """One holder at a time; every take-over raises the epoch."""

    @promise
    async def test_a_lease_has_one_holder(self, database: Database, clock: VirtualClock) -> None:
        lease = await self.take(database, "one")
        assert lease.name == "relay"
        assert lease.epoch >= 1
        assert lease.held
        assert await database.acquire("relay", "two", TTL) is None
        assert lease.held

    @promise
    async def test_leases_are_apart(self, database: Database, clock: VirtualClock) -> None:
        await self.take(database, "one")
        other = await database.acquire("timers", "two", TTL)
        assert other is not None
        assert other.held

    @promise
    async def test_a_released_lease_is_free_at_once_with_a_new_epoch(
        self, database: Database, clock: VirtualClock
    ) -> None:
        first = await self.take(database, "one")
        await first.release()
        assert not first.held
        second = await self.take(database, "two")
        assert second.epoch == first.epoch + 1
        assert isinstance(await commit_one(database, appending(A, fence=Fence("relay", first.epoch))), Collision)
        await committing(database, appending(A, fence=Fence("relay", second.epoch)))

    @promise
    async def test_releasing_twice_or_late_takes_nothing_from_the_next_holder(
        self, database: Database, clock: VirtualClock
    ) -> None:
        first = await self.take(database, "one")
        await first.release()
        second = await self.take(database, "two")
        await first.release()
        assert second.held
        assert await database.acquire("relay", "three", TTL) is None

    @promise
    async def test_a_living_holder_keeps_its_lease_beyond_its_time_to_live(
        self, database: Database, clock: VirtualClock
    ) -> None:
        lease = await self.take(database, "one")
        await self.pass_time(clock, TTL * 3)
        assert lease.held
        assert await database.acquire("relay", "two", TTL) is None
        await committing(database, appending(A, fence=Fence("relay", lease.epoch)))

    @promise
    async def test_the_lease_of_a_dead_holder_is_another_s_after_its_time_to_live(
        self, database: Database, clock: VirtualClock
    ) -> None:
        old = await self.take(database, "one")
        database = await self.again(database)
        await self.pass_time(clock, TTL * 2)
        new = await self.take(database, "two")
        assert new.epoch == old.epoch + 1
        assert isinstance(await commit_one(database, appending(A, fence=Fence("relay", old.epoch))), Collision)
        assert await database.head() == 0
        await committing(database, appending(A, fence=Fence("relay", new.epoch)))

    @promise
    async def test_an_owner_that_comes_back_takes_its_own_lease_at_once(
        self, database: Database, clock: VirtualClock
    ) -> None:
        old = await self.take(database, "one")
        database = await self.again(database)
        new = await self.take(database, "one")
        assert new.held
        assert new.epoch == old.epoch + 1

    @promise
    async def test_epochs_only_rise(self, database: Database, clock: VirtualClock) -> None:
        epochs = []
        for turn in range(4):
            lease = await self.take(database, f"owner-{turn % 2}")
            epochs.append(lease.epoch)
            if turn % 2:
                await lease.release()
                database = await self.again(database)
            else:
                await lease.release()
        assert epochs == list(range(epochs[0], epochs[0] + 4))

    @promise
    async def test_of_many_tasks_one_gets_the_lease(self, database: Database, clock: VirtualClock) -> None:
        found = await asyncio.gather(*(database.acquire("relay", f"owner-{number}", TTL) for number in range(20)))
        assert sum(lease is not None for lease in found) == 1

    async def take(self, database: Database, owner: str) -> Lease:
        """The lease, which must be free."""
        lease = await database.acquire("relay", owner, TTL)
        assert lease is not None
        return lease
