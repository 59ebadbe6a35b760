"""Bugs on the way to a channel and in it: places moved too soon, stale relays, repairs, cursors and what is deleted."""

from __future__ import annotations

import importlib
import random
from contextlib import ExitStack
from types import SimpleNamespace
from typing import Any
from unittest import mock

import apsw
import msgspec

from headwater.adapters.sqlite import channel
from headwater.adapters.sqlite.channel_seat import Seat
from headwater.adapters.sqlite.channel_writes import Publish, Settle, Trim
from headwater.adapters.sqlite.lease import SqliteLease
from headwater.adapters.sqlite.lock import FileLock
from headwater.checkpoint import Checkpoint
from headwater.database import WriteSet
from headwater.message import Recorded
from headwater.relay import Relay
from headwater.repair import Answering
from tests.fault.plants.detectors import Rig, Suite
from tests.fault.plants.plant import Patch, Promise, planted

JUDGE: Any = importlib.import_module("headwater.database.judge")
CONTRACT = "tests/contract/test_channel_sqlite.py::"
SUITE = f"{CONTRACT}TestSqliteChannel::"
RELAY = "tests/flow/test_relay.py::"


@planted(Promise.NOTHING_LOST, Rig("simulate", "nothing between|did not come to rest"))
def relay_moves_its_place_first() -> Patch:
    """The relay's place is stored before its messages are published."""
    publish = Relay._publish

    async def move_first(self: Any, leaving: Any, publications: Any, position: int) -> None:
        if self.channel.capabilities.producer_position:
            await self.channel.publish([], producer=self.service, position=position, epoch=self.fence().epoch)
        elif position != self._stored:
            place = Checkpoint(self.name, position, self._stored)
            await self._commit(WriteSet(fence=self.fence(), checkpoints=[place]))
            self._stored = position
        await publish(self, leaving, publications, position)

    return mock.patch.object(Relay, "_publish", move_first)


@planted(
    Promise.ORDER,
    Suite("tests/fault/test_rigs_short.py::test_a_relay_that_was_stopped_publishes_nothing_after_another_took_over"),
)
def relay_takes_over_without_fencing() -> Patch:
    """A relay looks where the one before it stopped, and does not stop it."""
    find = Relay._find_place

    async def unfenced(self: Any) -> None:
        with mock.patch.object(self, "fence", lambda: None):
            await find(self)

    return mock.patch.object(Relay, "_find_place", unfenced)


@planted(Promise.ORDER, Suite(f"{SUITE}test_a_producer_of_an_older_epoch_is_refused"))
def channel_takes_from_a_stale_relay() -> Patch:
    """The channel does not look at the epoch of who publishes."""
    apply = Publish.apply
    return mock.patch.object(
        Publish, "apply", lambda self, connection: apply(msgspec.structs.replace(self, epoch=1 << 40), connection)
    )


@planted(
    Promise.NOTHING_LOST,
    Suite(f"{RELAY}test_an_oversize_message_is_a_dead_letter_of_the_relay_its_key_parked_and_others_flow"),
)
def refused_message_dropped_by_the_relay() -> Patch:
    """What the channel refuses is passed over."""

    async def forget(self: Any, rows: Any) -> None:
        pass

    return mock.patch.object(Relay, "_hold", forget)


@planted(
    Promise.ORDER,
    Suite(f"{RELAY}test_an_oversize_message_is_a_dead_letter_of_the_relay_its_key_parked_and_others_flow"),
)
def relay_passes_a_parked_key() -> Patch:
    """What comes after a refused message of its key is published."""

    async def nothing(*_: Any) -> dict[str, int]:
        return {}

    return mock.patch.object(Relay, "_parked", nothing)


@planted(
    Promise.NO_SILENT_GAP,
    Suite("tests/flow/test_gaps.py::test_a_message_lost_for_one_group_alone_is_repaired_for_it_alone"),
)
def repair_addressed_to_everybody() -> Patch:
    """What one group has missed is published again for all."""
    answer = Answering._answer
    return mock.patch.object(
        Answering, "_answer", lambda self, request: answer(self, msgspec.structs.replace(request, group=""))
    )


@planted(
    Promise.NO_SILENT_GAP,
    Suite("tests/flow/test_gaps.py::test_a_gap_holds_its_key_is_asked_for_and_is_filled_in_order"),
)
def repair_begins_one_too_late() -> Patch:
    """The first message that is missing is not published again."""
    answer = Answering._answer
    return mock.patch.object(
        Answering,
        "_answer",
        lambda self, request: answer(self, msgspec.structs.replace(request, after=request.after + 1)),
    )


@planted(Promise.ORDER, Suite(f"{SUITE}test_two_members_share_the_work_and_keep_the_order"))
def keys_spread_over_partitions() -> Patch:
    """Messages go to partitions in turn, not by key."""
    chance = random.Random(1)
    return mock.patch.object(channel, "zlib", SimpleNamespace(crc32=lambda key: chance.getrandbits(8)))


@planted(Promise.NOTHING_LOST, Suite(f"{CONTRACT}test_a_member_whose_partitions_were_taken_cannot_settle_them"))
def acknowledgement_without_an_epoch() -> Patch:
    """A member settles partitions that another has taken meanwhile."""
    settle = Settle.apply

    def blind(self: Any, connection: apsw.Connection) -> Any:
        connection.execute("UPDATE cursors SET epoch = 1")
        return settle(Settle([(*place, 1, position) for *place, _, position in self.cursors]), connection)

    return mock.patch.object(Settle, "apply", blind)


@planted(
    Promise.NOTHING_LOST, Suite(f"{CONTRACT}test_what_is_old_and_acknowledged_by_all_groups_is_deleted", slow=True)
)
def trim_deletes_what_a_slow_group_needs() -> Patch:
    """What is old is deleted, whoever has not read it."""

    def trim(self: Any, connection: apsw.Connection) -> tuple[int, int]:
        connection.execute("DELETE FROM messages WHERE time < ?", (self.before,))
        return 0, 0

    return mock.patch.object(Trim, "apply", trim)


@planted(Promise.ERASURE, Suite(f"{CONTRACT}test_what_is_old_and_acknowledged_by_all_groups_is_deleted", slow=True))
def channel_forgets_nothing() -> Patch:
    """Copies stay on the channel for ever, though everybody has read them."""
    return mock.patch.object(Trim, "apply", lambda self, connection: (0, 0))


@planted(Promise.NO_WINDOW, Suite(f"{SUITE}test_what_is_acknowledged_never_comes_again"))
def acknowledgement_not_written() -> Patch:
    """A batch is acknowledged in memory alone."""
    return mock.patch.object(Settle, "apply", lambda self, connection: [])


@planted(
    Promise.ORDER, Suite(f"{SUITE}test_two_members_share_the_work_and_keep_the_order", says="two hands|taken for dead")
)
def partition_in_two_hands() -> Patch:
    """A member takes a partition though another has it locked."""

    def take(self: Any, partition: int) -> bool:
        self._locks[partition] = FileLock(self._folder / f"partition.{partition}")
        return True

    return mock.patch.object(Seat, "take", take)


@planted(
    Promise.NO_SILENT_GAP,
    Suite("tests/contract/test_database_memory.py::TestMemoryDatabase::test_previous_is_the_version_before"),
)
def previous_left_out() -> Patch:
    """A message does not say which one came before it in its stream."""
    recorded = Recorded

    def first(position: int, *parts: Any) -> Recorded:
        return recorded(position, *parts[:8], 0, *parts[9:])

    return mock.patch.object(JUDGE, "Recorded", first)


@planted(Promise.ORDER, Rig("pause", "the channel has", range(1, 7), slow=True, call="pauses", arguments=(4,)))
def stale_relay_believed() -> Patch:
    """A relay that was stopped goes on as if nobody had taken over, and the channel takes what it publishes."""
    apply = Publish.apply
    stack = ExitStack()
    stack.enter_context(mock.patch.object(SqliteLease, "held", property(lambda self: True)))
    stack.enter_context(
        mock.patch.object(
            Publish, "apply", lambda self, connection: apply(msgspec.structs.replace(self, epoch=1 << 40), connection)
        )
    )
    return stack
