"""Bugs of the channel on RabbitMQ, seen on a real server: settled too soon, published unseen, put back in another order."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any
from unittest import mock

from pamqp import commands

from headwater.adapters.rabbitmq import making, topology
from headwater.adapters.rabbitmq.connection import Connection
from headwater.adapters.rabbitmq.partition import TAG, Item, Partition
from headwater.adapters.rabbitmq.publishing import Publisher
from headwater.adapters.rabbitmq.roster import Roster
from headwater.adapters.rabbitmq.subscription import RabbitmqSubscription
from tests.fault.plants.detectors import seen_by
from tests.fault.plants.plant import Patch, Promise, planted

CONTRACT = "tests/contract/test_channel_rabbitmq.py::TestRabbitmqChannel::"
HARM = "tests/fault/test_rabbitmq_channel.py::"


@planted(Promise.NOTHING_LOST, seen_by(f"{CONTRACT}test_what_is_not_acknowledged_comes_again_after_a_close"))
def rabbitmq_settles_on_delivery() -> Patch:
    """The server takes a message as settled once it is sent to a member (`no_ack`)."""

    async def opened(self: Partition, connection: Connection, prefetch: int) -> None:
        session = await connection.session()
        session.listener = self
        self._connection, self._session = connection, session
        consume = commands.Basic.Consume(queue=self.queue, consumer_tag=TAG, no_ack=True)
        await session.call(commands.Basic.Qos(prefetch_count=prefetch), consume)

    return mock.patch.multiple(Partition, open=opened, settle=_give_up)


def _give_up(self: Partition, items: list[Item]) -> None:
    self.given -= len(items)


@planted(Promise.NOTHING_LOST, seen_by(f"{CONTRACT}test_what_is_not_acknowledged_comes_again_after_a_close"))
def rabbitmq_acknowledges_first() -> Patch:
    """A member acknowledges what it fetches before anybody has seen to it."""
    take, settle = Partition.take, Partition.settle

    def taken(self: Partition, most: int) -> list[Item]:
        items = take(self, most)
        settle(self, items)
        self.given += len(items)
        return items

    return mock.patch.multiple(Partition, take=taken, settle=_give_up)


@planted(
    Promise.NOTHING_LOST,
    seen_by(f"{CONTRACT}test_a_full_channel_takes_more_when_its_slowest_group_has_caught_up"),
    seen_by(f"{HARM}test_a_topic_that_is_missing_is_told_and_does_not_stop_the_others"),
)
def rabbitmq_publishes_without_confirms() -> Patch:
    """Publishing is done when all is written: what the server says of it is not waited for."""

    async def published(self: Publisher, messages: Sequence[bytes], exchanges: frozenset[str]) -> set[str]:
        await self.connection.room()
        self.connection.write(b"".join(messages))
        return set()

    return mock.patch.object(Publisher, "publish", published)


@planted(Promise.NOTHING_LOST, seen_by(f"{HARM}test_a_queue_that_is_deleted_is_missed_by_those_who_publish_and_read"))
def rabbitmq_returns_are_passed_over() -> Patch:
    """What leads to no queue is taken as published."""
    return mock.patch.object(Publisher, "returned", lambda self, exchange: None)


@planted(Promise.ORDER, seen_by(f"{HARM}test_messages_keep_their_order_however_often_they_are_given_back"))
def rabbitmq_gives_back_one_by_one() -> Patch:
    """Who leaves a queue sends back each message that it has not given out, and then goes."""
    close = Partition.close

    async def closed(self: Partition) -> None:
        if self._session is not None and self._session.closed is None:
            for tag, _, _ in self.waiting:
                self._session.send(commands.Basic.Nack(tag, multiple=False, requeue=True))
        await close(self)

    return mock.patch.object(Partition, "close", closed)


@planted(Promise.ORDER, seen_by(f"{CONTRACT}test_what_is_released_is_fetched_again"))
def rabbitmq_releases_at_the_end() -> Patch:
    """What is released is fetched again after what has come meanwhile."""

    def back(self: Partition, items: list[Item]) -> None:
        self.given -= len(items)
        self.waiting.extend(items)

    return mock.patch.object(Partition, "take_back", back)


@planted(Promise.ORDER, seen_by(f"{HARM}test_a_member_that_is_busy_for_long_keeps_its_keys"))
def rabbitmq_queues_have_many_consumers() -> Patch:
    """Queues are made without a single active consumer: who is taken for gone shares its keys."""

    def shared(*given: Any) -> dict[str, Any]:
        return topology.arguments(*given) | {"x-single-active-consumer": False}

    return mock.patch.object(making, "arguments", shared)


@planted(Promise.ORDER, seen_by(f"{CONTRACT}test_a_key_is_handed_over_after_what_was_fetched_of_it_is_settled"))
def rabbitmq_hands_over_at_once() -> Patch:
    """A queue is left to another member while messages of it are in hand."""

    async def left(self: RabbitmqSubscription) -> None:
        for place, partition in list(self._partitions.items()):
            if partition.leaving:
                del self._partitions[place]
                await partition.close()

    return mock.patch.object(RabbitmqSubscription, "_leave_what_is_settled", left)


@planted(Promise.EFFECT_ONCE, seen_by(f"{HARM}test_a_member_that_has_lost_what_it_fetched_is_told_and_settles_nothing"))
def rabbitmq_does_not_fence() -> Patch:
    """A member that has lost its connection goes on with what it had in hand as if it were its own."""
    return mock.patch.object(RabbitmqSubscription, "_check", RabbitmqSubscription._check_open)


@planted(Promise.NOTHING_LOST, seen_by(f"{HARM}test_members_get_even_shares_and_a_late_one_gets_its_own"))
def rabbitmq_members_do_not_hear_of_one_another() -> Patch:
    """Each member takes all for its own, so that the first one has all."""
    return mock.patch.object(Roster, "delivered", lambda *_: None)
