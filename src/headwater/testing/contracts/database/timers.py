"""Promises of timers, saga states, checkpoints and the register of consumers."""

from __future__ import annotations

from headwater.checkpoint import Checkpoint, Consuming
from headwater.database import Collision, Database, WriteSet
from headwater.store import Committed
from headwater.testing.clock import VirtualClock
from headwater.testing.contracts.database.case import DatabaseCase, promise
from headwater.testing.contracts.database.values import TIME, commit_one, committing, state, timer
from headwater.timer import Cancel


class TimerPromises(DatabaseCase):
    """A timer is one a (owner, key, name), until it is cancelled."""

    @promise
    async def test_a_timer_is_due_from_its_time_on_earliest_first(
        self, database: Database, clock: VirtualClock
    ) -> None:
        late, early = timer("late", TIME + 20), timer("early", TIME + 10)
        await committing(database, WriteSet(timers=[late, early]))
        assert await database.timers_due(TIME + 9, 10) == []
        assert await database.timers_due(TIME + 10, 10) == [early]
        assert await database.timers_due(TIME + 99, 10) == [early, late]
        assert await database.timers_due(TIME + 99, 1) == [early]
        assert await database.timers_list(10) == [early, late]
        assert await database.timers_list(1) == [early]

    @promise
    async def test_next_timer_is_the_earliest(self, database: Database, clock: VirtualClock) -> None:
        assert await database.next_timer() is None
        await committing(database, WriteSet(timers=[timer("late", TIME + 20), timer("early", TIME + 10)]))
        assert await database.next_timer() == TIME + 10

    @promise
    async def test_a_timer_reads_back_whole_after_a_crash(self, database: Database, clock: VirtualClock) -> None:
        given = timer("ablauf ü💧", TIME, "billing", "k/ä")
        await committing(database, WriteSet(timers=[given]))
        database = await self.again(database)
        assert await database.timers_due(TIME, 10) == [given]

    @promise
    async def test_setting_a_timer_again_replaces_it(self, database: Database, clock: VirtualClock) -> None:
        await committing(database, WriteSet(timers=[timer("expiry", TIME)]))
        moved = timer("expiry", TIME + 5)
        await committing(database, WriteSet(timers=[moved]))
        assert await database.timers_list(10) == [moved]

    @promise
    async def test_timers_of_owners_instances_and_names_are_apart(
        self, database: Database, clock: VirtualClock
    ) -> None:
        given = [
            timer("a", TIME),
            timer("b", TIME + 1),
            timer("a", TIME + 2, "other"),
            timer("a", TIME + 3, instance="i-2"),
        ]
        await committing(database, WriteSet(timers=given))
        assert await database.timers_list(10) == given
        await committing(database, WriteSet(cancels=[Cancel("billing", "i-1", "a")]))
        assert await database.timers_list(10) == given[1:]

    @promise
    async def test_cancelling_a_timer_that_is_not_there_is_no_error(
        self, database: Database, clock: VirtualClock
    ) -> None:
        await committing(database, WriteSet(cancels=[Cancel("billing", "i-1", "never")]))

    @promise
    async def test_a_set_may_cancel_a_timer_and_set_it_again(self, database: Database, clock: VirtualClock) -> None:
        await committing(database, WriteSet(timers=[timer("expiry", TIME)]))
        cancel = Cancel("billing", "i-1", "expiry", must=True, due=TIME)
        await committing(database, WriteSet(cancels=[cancel], timers=[timer("expiry", TIME + 5)]))
        assert await database.timers_list(10) == [timer("expiry", TIME + 5)]

    @promise
    async def test_a_timer_that_must_be_there_fires_once(self, database: Database, clock: VirtualClock) -> None:
        await committing(database, WriteSet(timers=[timer("expiry", TIME)]))
        fire = WriteSet(cancels=[Cancel("billing", "i-1", "expiry", must=True, due=TIME)])
        assert [type(answer) for answer in await database.commit([fire, fire])] == [Committed, Collision]
        assert isinstance(await commit_one(database, fire), Collision)

    @promise
    async def test_a_timer_that_was_moved_does_not_fire_at_its_old_time(
        self, database: Database, clock: VirtualClock
    ) -> None:
        await committing(database, WriteSet(timers=[timer("expiry", TIME)]))
        await committing(database, WriteSet(timers=[timer("expiry", TIME + 5)]))
        stale = WriteSet(cancels=[Cancel("billing", "i-1", "expiry", must=True, due=TIME)])
        assert isinstance(await commit_one(database, stale), Collision)
        assert await database.timers_list(10) == [timer("expiry", TIME + 5)]

    @promise
    async def test_a_timer_set_or_moved_in_a_commit_is_seen_by_its_later_sets(
        self, database: Database, clock: VirtualClock
    ) -> None:
        must = [WriteSet(cancels=[Cancel("billing", "i-1", "expiry", must=True, due=TIME + due)]) for due in (0, 5)]
        moved = [WriteSet(timers=[timer("expiry", TIME + due)]) for due in (0, 5)]
        answers = await database.commit([moved[0], moved[1], must[0], must[1]])
        assert [type(answer) for answer in answers] == [Committed, Committed, Collision, Committed]
        assert await database.next_timer() is None


class SagaPromises(DatabaseCase):
    """The state of a saga instance moves by compare-and-set."""

    @promise
    async def test_a_state_moves_only_from_the_version_it_is_at(self, database: Database, clock: VirtualClock) -> None:
        await committing(database, WriteSet(sagas=[state(0, b"one")]))
        for stale in (0, 2):
            assert isinstance(await commit_one(database, WriteSet(sagas=[state(stale, b"x")])), Collision)
        await committing(database, WriteSet(sagas=[state(1, b"two")]))
        assert await database.sagas("billing", ["i-1"]) == {"i-1": state(2, b"two")}

    @promise
    async def test_a_state_that_is_not_there_is_at_version_0(self, database: Database, clock: VirtualClock) -> None:
        assert isinstance(await commit_one(database, WriteSet(sagas=[state(1)])), Collision)
        assert await database.sagas("billing", ["i-1"]) == {}

    @promise
    async def test_an_ended_instance_is_kept_after_a_crash(self, database: Database, clock: VirtualClock) -> None:
        await committing(
            database, WriteSet(sagas=[state(0, b"\x00\xff")]), WriteSet(sagas=[state(1, b"end", ended=True)])
        )
        database = await self.again(database)
        assert await database.sagas("billing", ["i-1"]) == {"i-1": state(2, b"end", ended=True)}
        assert isinstance(await commit_one(database, WriteSet(sagas=[state(0)])), Collision)

    @promise
    async def test_sagas_gives_those_that_exist(self, database: Database, clock: VirtualClock) -> None:
        await committing(database, WriteSet(sagas=[state(0, instance="i-1"), state(0, b"b", instance="i-ü")]))
        found = await database.sagas("billing", ["i-1", "i-ü", "i-3"])
        assert found == {"i-1": state(1, instance="i-1"), "i-ü": state(1, b"b", instance="i-ü")}
        assert await database.sagas("other", ["i-1"]) == {}
        assert await database.sagas("billing", []) == {}


class CheckpointPromises(DatabaseCase):
    """A checkpoint moves by compare-and-set; the register tells which consumers there are."""

    @promise
    async def test_a_checkpoint_moves_only_from_where_it_is(self, database: Database, clock: VirtualClock) -> None:
        assert await database.checkpoint("reader") == 0
        await committing(database, WriteSet(checkpoints=[Checkpoint("reader", 7, 0)]))
        for stale in (0, 6, 8):
            assert isinstance(
                await commit_one(database, WriteSet(checkpoints=[Checkpoint("reader", 9, stale)])), Collision
            )
        database = await self.again(database)
        assert await database.checkpoint("reader") == 7
        assert await database.checkpoint("other") == 0

    @promise
    async def test_a_checkpoint_may_go_back(self, database: Database, clock: VirtualClock) -> None:
        await committing(database, WriteSet(checkpoints=[Checkpoint("reader", 7, 0)]))
        await committing(database, WriteSet(checkpoints=[Checkpoint("reader", 0, 7)]))
        assert await database.checkpoint("reader") == 0
        await committing(database, WriteSet(checkpoints=[Checkpoint("reader", 3, 0)]))

    @promise
    async def test_the_register_is_what_was_written_down_last(self, database: Database, clock: VirtualClock) -> None:
        assert await database.registered() == []
        mail = Consuming("mail", "channel", "handler", ["bank.Account", "shop.Ordér"])
        totals, saga = Consuming("totals", "log", "read model"), Consuming("billing", "channel", "saga", ["shop.Order"])
        await database.register([mail, totals])
        await database.register([saga, mail])
        database = await self.again(database)
        assert _consuming(await database.registered()) == _consuming([saga, mail])
        await database.register([])
        assert await database.registered() == []


def _consuming(found: list[Consuming]) -> set[tuple[str, str, str, tuple[str, ...]]]:
    assert len({one.name for one in found}) == len(found)
    return {(one.name, one.source, one.kind, tuple(one.topics)) for one in found}
