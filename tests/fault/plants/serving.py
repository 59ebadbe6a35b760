"""Bugs of the database and the channel on PostgreSQL, seen on a real server: twins of those of the files, and its own races."""

from __future__ import annotations

import random
from collections.abc import Sequence
from contextlib import asynccontextmanager
from types import SimpleNamespace
from typing import Any
from unittest import mock

from headwater.adapters.postgres import (
    channel,
    channel_desk,
    channel_schema,
    channel_seat,
    database,
    lease,
    schema,
    tables,
    writes,
)
from headwater.adapters.postgres.channel_desk import ChannelDesk
from headwater.adapters.postgres.lease import PostgresLease
from headwater.adapters.postgres.server import BEGIN, COMMIT
from headwater.adapters.postgres.statement import Plan, Row, Statement
from headwater.adapters.postgres.transaction import PostgresTransaction
from headwater.adapters.postgres.writes import Commit
from tests.fault.plants.detectors import Rig, Suite, seen_by
from tests.fault.plants.plant import Patch, Promise, planted

CONTRACT = "tests/contract/test_database_postgres.py::TestPostgresDatabase::"
CHANNEL = "tests/contract/test_channel_postgres.py::TestPostgresChannel::"
MEMBERS = "tests/fault/test_postgres_channel.py::"
REBUILD = "tests/contract/test_postgres_rebuild.py::"
DATABASE = "tests/contract/test_postgres_database.py::"
OUTAGES = "tests/fault/test_postgres_outages.py::"


# --- the database ---


@planted(
    Promise.DURABLE,
    Suite(f"{CONTRACT}test_what_is_committed_is_there_after_a_crash_and_reopen", says="IndexError", slow=True),
)
def server_answers_without_a_commit() -> Patch:
    """A group is answered when its statements have run: COMMIT is not sent."""
    steps = Commit.steps

    def without_commit(self: Commit) -> Plan[Any]:
        plan = steps(self)
        step = next(plan)
        try:
            while True:
                results = yield [one for one in step if one is not COMMIT]
                step = plan.send(results)
        except StopIteration as end:
            return end.value

    return mock.patch.object(Commit, "steps", without_commit)


@planted(Promise.ATOMIC, seen_by(f"{CONTRACT}test_a_stream_in_the_future_is_not_expected"))
def server_takes_versions_on_trust() -> Patch:
    """Sets that only append are committed in one trip, and the server does not look whether their streams stand as they say."""
    return mock.patch.object(writes, "standing", lambda _: Statement("SELECT 1"))


@planted(Promise.THREE_VALUED, Rig("cut", "failed and there", range(1, 101, 2), slow=True, arguments=("", 40)))
def server_outright_commit_taken_for_undone() -> Patch:
    """A commit in one trip whose connection was lost is taken for undone while that connection may still bring it about."""
    outcome = Commit.outcome

    def undone(self: Commit) -> Plan[Any]:
        if self.outright:
            yield [Statement("SELECT 1")]
            return None
        return (yield from outcome(self))

    return mock.patch.object(Commit, "outcome", undone)


@planted(Promise.ATOMIC, seen_by(f"{CONTRACT}test_a_fold_that_raises_fells_the_guilty_set_alone"))
def server_folds_inline_after_the_commit() -> Patch:
    """An inline read model is folded in a transaction of its own, after the events."""
    folding = writes._folding

    def fold_after(*given: Any) -> Plan[list[Statement]]:
        yield [COMMIT, BEGIN]
        return (yield from folding(*given))

    return mock.patch.object(writes, "_folding", fold_after)


@planted(Promise.ATOMIC, seen_by(f"{CONTRACT}test_a_savepoint_undoes_sql"))
def server_keeps_the_rows_of_a_failed_message() -> Patch:
    """What a handler wrote before it failed is committed with the rest of its batch."""

    @asynccontextmanager
    async def savepoint(self: Any) -> Any:
        yield

    return mock.patch.object(PostgresTransaction, "savepoint", savepoint)


@planted(Promise.ERASURE, seen_by(f"{CONTRACT}test_old_keys_are_forgotten_and_counted"))
def server_keeps_command_keys_for_ever() -> Patch:
    """Command keys that are to be forgotten stay."""
    return mock.patch.object(database, "FORGET_KEYS", "SELECT 0 WHERE %s::bigint IS NOT NULL")


@planted(
    Promise.ORDER,
    seen_by(f"{DATABASE}test_what_comes_behind_a_held_message_while_that_is_retried_elsewhere_is_held_by_its_key"),
)
def server_tells_a_held_key_by_what_it_saw_first() -> Patch:
    """Which held message is the first of its key is decided before others that change the same are waited for."""
    lines = {"in": "INSERT INTO headwater.held_totals", "out": "UPDATE headwater.held_totals"}
    script = schema.MIGRATIONS[0]
    for name, begins in lines.items():
        head, _, rest = script.partition(f"FUNCTION headwater.held_{name}()")
        body, ending, tail = rest.partition("    RETURN NULL;")
        start = body.index(f"    {begins}")
        counts = body[start : body.index(";", start) + 2]
        script = f"{head}FUNCTION headwater.held_{name}(){body.replace(counts, '')}{counts}{ending}{tail}"
    return mock.patch.object(database, "MIGRATIONS", (script, *schema.MIGRATIONS[1:]))


@planted(Promise.ATOMIC, seen_by(f"{CONTRACT}test_readers_that_stand_elsewhere_change_nothing"))
def server_swaps_a_rebuilt_read_model_unseen() -> Patch:
    """A read model that was built anew takes its place wherever the two readers are."""

    def swap(built: Any, live: Any, *_: Any) -> Plan[bool]:
        yield from tables.swapping(built, live)
        return True

    return mock.patch.object(database, "_swapping", swap)


@planted(
    Promise.EFFECT_ONCE, seen_by(f"{REBUILD}test_the_first_batch_of_the_live_reader_is_not_lost_to_a_swap_beside_it")
)
def server_swaps_beside_a_first_batch() -> Patch:
    """A rebuilt read model takes its place though the live one writes its first batch, which no row tells of yet."""
    return mock.patch.object(database, "BEGINNING", "SELECT %s::text")


# --- leases, and waking ---


@planted(Promise.EFFECT_ONCE, seen_by(f"{CONTRACT}test_epochs_only_rise"))
def server_hands_over_at_the_same_epoch() -> Patch:
    """A lease is taken over without raising its epoch."""
    return mock.patch.object(lease, "TAKE", lease.TAKE.replace("l.epoch + 1", "l.epoch"))


@planted(Promise.EFFECT_ONCE, seen_by(f"{CONTRACT}test_a_lease_has_one_holder"))
def server_takes_a_lease_from_a_living_holder() -> Patch:
    """A lease is taken whoever has it."""
    return mock.patch.object(lease, "TAKE", lease.TAKE.replace("WHERE l.owner IN", "WHERE true OR l.owner IN"))


@planted(Promise.EFFECT_ONCE, seen_by(f"{OUTAGES}test_a_lease_is_not_taken_over_while_a_write_under_it_is_open"))
def server_takes_a_lease_under_an_open_write() -> Patch:
    """Who takes a lease over does not wait for what is being written under it."""
    return mock.patch.object(lease, "locking", lambda space, names: [Statement("SELECT 1")])


@planted(
    Promise.EFFECT_ONCE, seen_by(f"{OUTAGES}test_while_the_server_is_away_every_call_says_so_and_may_be_tried_again")
)
def server_lease_held_though_not_renewed() -> Patch:
    """Who could not renew its lease goes on as if it had it."""
    return mock.patch.object(PostgresLease, "held", property(lambda self: not self.lost))


# --- the channel ---


@planted(Promise.ORDER, seen_by(f"{CHANNEL}test_two_members_share_the_work_and_keep_the_order"))
def server_spreads_keys_over_partitions() -> Patch:
    """Messages go to partitions in turn, not by key."""
    chance = random.Random(1)
    return mock.patch.object(channel, "zlib", SimpleNamespace(crc32=lambda key: chance.getrandbits(8)))


@planted(Promise.ORDER, seen_by(f"{CHANNEL}test_a_producer_of_an_older_epoch_is_refused"))
def server_takes_from_a_stale_relay() -> Patch:
    """The channel does not look at the epoch of who publishes."""
    return mock.patch.object(
        channel, "PUBLISHED", channel_schema.PUBLISHED.replace("WHERE p.epoch <= excluded.epoch", "")
    )


@planted(Promise.NO_WINDOW, seen_by(f"{CHANNEL}test_what_is_acknowledged_never_comes_again"))
def server_does_not_write_acknowledgements() -> Patch:
    """A batch is acknowledged in memory alone."""
    return mock.patch.object(ChannelDesk, "settle", lambda self, group, moved, member: None)


@planted(Promise.NOTHING_LOST, seen_by(f"{MEMBERS}test_a_member_that_was_taken_for_dead_settles_nothing"))
def server_takes_acknowledgements_of_any_epoch() -> Patch:
    """A member settles partitions that another has taken meanwhile."""
    return mock.patch.object(channel_desk, "SETTLE", channel_schema.SETTLE.replace("AND c.epoch = w.epoch", ""))


@planted(Promise.ORDER, seen_by(f"{CHANNEL}test_two_members_share_the_work_and_keep_the_order"))
def server_gives_a_partition_to_two() -> Patch:
    """A member takes all partitions, whoever has them."""
    steps = channel_seat.Seat.sharing

    def all_of_them(self: Any, in_hand: set[int]) -> Plan[Any]:
        shared = yield from steps(self, in_hand)
        if shared is None:
            return None
        missing = set(range(self._partitions)) - shared.owned
        (taken,) = yield [Statement(channel_seat.TAKE, (self._group, self._topics, sorted(missing)))]
        places = {(topic, partition): (position, epoch) for topic, partition, position, epoch in taken}
        return channel_seat.Shared(shared.owned | missing, set(), shared.taken | places)

    return mock.patch.object(channel_seat.Seat, "sharing", all_of_them)


@planted(Promise.NOTHING_LOST, seen_by(f"{MEMBERS}test_of_what_many_publish_at_once_a_reader_misses_nothing"))
def server_publishes_without_a_turn() -> Patch:
    """Who publishes in a partition does not wait for its turn there, so that a lower position may come after a higher one."""

    def inserting(messages: Sequence[Row], delayed: Sequence[Row]) -> list[Statement]:
        return [one for one in channel_inserting(messages, delayed) if one.sql is not channel_locks]

    channel_inserting: Any = channel._inserting
    channel_locks = channel_desk.publishing_locks([0])[0].sql
    return mock.patch.object(channel, "_inserting", inserting)


@planted(Promise.NOTHING_LOST, seen_by(f"{MEMBERS}test_what_all_have_settled_is_deleted_after_its_time"))
def server_trims_what_a_slow_group_needs() -> Patch:
    """What is old is deleted once the fastest group has settled it."""
    return mock.patch.object(channel, "TRIM", channel_schema.TRIM.replace("min(c.position)", "max(c.position)"))


@planted(Promise.ERASURE, seen_by(f"{MEMBERS}test_what_all_have_settled_is_deleted_after_its_time"))
def server_channel_forgets_nothing() -> Patch:
    """Copies stay on the channel for ever, though everybody has read them."""
    return mock.patch.object(channel, "TRIM", "SELECT 0 WHERE %s::bigint IS NOT NULL")
