"""Bugs of the channel on Kafka, seen on a real broker: settled too soon, published unseen, order lost, two hands on a partition."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator, Mapping, Sequence, Set
from contextlib import ExitStack
from unittest import mock

from headwater.adapters.kafka import member, publishing
from headwater.adapters.kafka.batch import Batch
from headwater.adapters.kafka.binding import Place
from headwater.adapters.kafka.places import Places
from headwater.adapters.kafka.publishing import Publisher, Record, Sending
from headwater.adapters.kafka.shelf import Shelf
from headwater.channel import Delivery
from tests.fault.plants.detectors import seen_by
from tests.fault.plants.plant import Patch, Promise, planted

CONTRACT = "tests/contract/test_channel_kafka.py::TestKafkaChannel::"
HARM = "tests/fault/test_kafka_channel.py::"
OUTAGES = "tests/fault/test_kafka_outages.py::"
LOST = "tests/fault/test_kafka_lost_requests.py::"


@planted(Promise.NOTHING_LOST, seen_by(f"{CONTRACT}test_what_is_not_acknowledged_comes_again_after_a_close"))
def kafka_commits_offsets_by_itself() -> Patch:
    """librdkafka commits what it has handed out, now and then and at the end (`enable.auto.commit`)."""
    return mock.patch.dict(
        member.CONSUMER,
        {"enable.auto.commit": True, "enable.auto.offset.store": True},
    )


@planted(Promise.NOTHING_LOST, seen_by(f"{CONTRACT}test_what_is_not_acknowledged_comes_again_after_a_close"))
def kafka_acknowledges_first() -> Patch:
    """A member acknowledges what it fetches before anybody has seen to it."""
    fetch, acknowledge = Shelf.fetch, Shelf.acknowledge

    def fetched(self: Shelf, limit: int) -> list[Delivery]:
        found = fetch(self, limit)
        acknowledge(self, found)
        return found

    return mock.patch.multiple(Shelf, fetch=fetched, acknowledge=_nothing)


def _nothing(self: Shelf, deliveries: Sequence[Delivery]) -> None:
    pass


@planted(
    Promise.NOTHING_LOST,
    seen_by(f"{HARM}test_a_message_that_is_larger_than_the_topic_takes_is_refused_alone"),
    seen_by(f"{HARM}test_a_topic_that_is_deleted_is_missed_at_the_next_publish_but_one"),
)
def kafka_publishes_without_confirms() -> Patch:
    """Publishing is done when all is given to the producer: its reports are not waited for."""

    async def published(self: Publisher, records: Iterator[Record]) -> dict[int, str]:
        self._give(records, Sending(self._place.name))
        return {}

    return mock.patch.object(Publisher, "publish", published)


@planted(Promise.NOTHING_LOST, seen_by(f"{OUTAGES}test_a_broker_that_stands_still_holds_up_nobody_else"))
def kafka_asks_for_no_acks() -> Patch:
    """The broker is not asked to confirm (`acks=0`), and what is sent is taken as stored."""

    stack = ExitStack()
    stack.enter_context(mock.patch.object(Sending, "doubt", _no_doubt))
    stack.enter_context(mock.patch.dict(publishing.PRODUCER, {"acks": 0, "enable.idempotence": False}))
    return stack


def _no_doubt(self: Sending) -> None:
    pass


@planted(Promise.ORDER, seen_by(f"{LOST}test_a_request_that_is_lost_is_no_success_and_overtaken_by_none"))
def kafka_retries_behind_what_came_later() -> Patch:
    """Five requests are under way: a batch that fails is published again after the next, which did not."""
    return mock.patch.dict(publishing.PRODUCER, {"max.in.flight": 5})


@planted(Promise.ORDER, seen_by(f"{CONTRACT}test_what_is_released_is_fetched_again"))
def kafka_releases_at_the_end() -> Patch:
    """What is released is fetched again after what has come meanwhile."""
    next_of = Shelf._next

    def last(self: Shelf, limit: int) -> Batch | None:
        again, self._again = self._again, deque()
        batch = next_of(self, limit)
        self._again = again
        return batch if batch is not None else next_of(self, limit)

    return mock.patch.object(Shelf, "_next", last)


@planted(Promise.ORDER, seen_by(f"{CONTRACT}test_the_order_of_each_key_is_kept"))
def kafka_spreads_keys() -> Patch:
    """Messages go to partitions by chance, not by key."""
    return mock.patch.dict(publishing.PRODUCER, {"partitioner": "random"})


@planted(Promise.ORDER, seen_by(f"{CONTRACT}test_the_order_of_each_key_is_kept"))
def kafka_gives_the_last_first() -> Patch:
    """What is brought into an order by partitions changes its order within a key."""
    order = Places.order
    return mock.patch.object(Places, "order", lambda self, publications: order(self, publications)[::-1])


@planted(Promise.ORDER, seen_by(f"{HARM}test_a_member_settles_what_it_has_in_hand_before_others_take_over"))
def kafka_hands_over_at_once() -> Patch:
    """Partitions are left to another member while messages of them are in hand."""
    drain = Shelf.drain
    return mock.patch.object(Shelf, "drain", lambda self, places, _: drain(self, places, 0.0))


@planted(Promise.EFFECT_ONCE, seen_by(f"{HARM}test_what_is_not_settled_in_time_is_fenced_and_comes_to_who_took_over"))
def kafka_does_not_fence() -> Patch:
    """A member whose partitions were taken goes on with what it had in hand as if it were its own."""
    leave = Shelf._leave

    def left(self: Shelf, places: Set[Place]) -> dict[Place, int]:
        with mock.patch.object(self, "_holds", lambda _: False):
            return leave(self, places)

    return mock.patch.object(Shelf, "_leave", left)


@planted(Promise.NO_WINDOW, seen_by(f"{CONTRACT}test_what_is_acknowledged_never_comes_again"))
def kafka_writes_no_offsets() -> Patch:
    """A batch is acknowledged in memory alone."""

    def settled(self: Shelf, last: Mapping[Place, int]) -> None:
        self._settled |= {place: at for place, at in last.items() if place in self._settled}

    return mock.patch.object(Shelf, "_settle", settled)
