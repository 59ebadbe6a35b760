"""The channel on Kafka through what its members and topics may do: hand over, be fenced, fall behind, change, vanish."""

from __future__ import annotations

import asyncio
import logging
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from unittest import mock

import pytest
from confluent_kafka import TopicPartition
from confluent_kafka.admin import NewPartitions

from headwater.adapters.kafka import KafkaChannel, member, publishing, shelf, url
from headwater.channel import Channel, Delivery, Publication, Route, Subscription
from headwater.errors import ChannelError
from tests.fault.kafka import opened
from tests.fault.stream import BOUNDED, CLOCK, SOON, Ledger, publications, publish_surely, refusal
from tests.servers.kafka import Brokers


def topic_of(channel: KafkaChannel, name: str = "orders") -> str:
    """The whole name of a topic."""
    return f"{channel.place.options.prefix}{name}"


async def take(subscription: Subscription, count: int, seconds: float = 15.0) -> list[Delivery]:
    """So many messages, in hand."""
    found: list[Delivery] = []
    end = time.monotonic() + seconds
    while len(found) < count:
        assert time.monotonic() < end, f"{len(found)} of {count} came"
        found += await subscription.fetch(count - len(found)) or await nothing_yet(subscription)
    return found


async def nothing_yet(subscription: Subscription) -> list[Delivery]:
    await subscription.wait(0.1)
    return []


async def until_settled(channel: Channel, group: str = "g", seconds: float = 10.0) -> None:
    """Until the group is behind on nothing."""
    end = time.monotonic() + seconds
    while any(one.messages for one in await channel.lag(group)):
        assert time.monotonic() < end, "the group stays behind"
        await asyncio.sleep(0.02)


# --- handing over ---


def test_a_member_settles_what_it_has_in_hand_before_others_take_over(kafka: Brokers) -> None:
    async def main() -> None:
        async with opened(kafka.url(drain=20)) as channel:
            await channel.publish(publications(range(200)))
            one = await channel.subscribe("g", ["orders"], "one")
            held = await take(one, 200)
            two = await channel.subscribe("g", ["orders"], "two")
            for _ in range(40):
                assert await two.fetch(100) == []
                await asyncio.sleep(SOON)
            try:
                await one.acknowledge(held)
            except ChannelError as error:
                pytest.fail(f"others did not wait: {error}")
            await channel.publish(publications(range(200, 400)))
            found = await both_take([one, two], 200)
            assert sorted(int(delivery.body) for delivery in found) == list(range(200, 400)), "nothing comes twice"

    asyncio.run(main())


async def both_take(members: Sequence[Subscription], count: int, seconds: float = 15.0) -> list[Delivery]:
    """Messages that come to members until there are so many, acknowledged."""
    found: list[Delivery] = []
    end = time.monotonic() + seconds
    while len(found) < count:
        assert time.monotonic() < end, f"{len(found)} of {count} came"
        for one in members:
            batch = await one.fetch(100)
            await one.acknowledge(batch)
            found += batch
        await asyncio.sleep(0.01)
    return found


def test_what_is_not_settled_in_time_is_fenced_and_comes_to_who_took_over(kafka: Brokers) -> None:
    async def main() -> None:
        async with opened(kafka.url(drain=0.3)) as channel:
            await channel.publish(publications(range(100)))
            one = await channel.subscribe("g", ["orders"], "one")
            held = await take(one, 100)
            two = await channel.subscribe("g", ["orders"], "two")
            theirs = await take(two, 1)
            assert theirs[0].position == 0, "they begin where nothing was settled"
            with pytest.raises(ChannelError, match="when others took over: they are fetched again"):
                await one.acknowledge(held)
            with pytest.raises(ChannelError, match="whole batches"):
                await one.acknowledge(held)
            await asyncio.sleep(0.3)
            assert sum(one.messages for one in await channel.lag("g")) == 100, "what was fenced settles nothing"
            await two.release()
            found = await both_take([one, two], 100)
            assert sorted(int(delivery.body) for delivery in found) == list(range(100)), "each comes once more"

    asyncio.run(main())


MEMBER = """
import asyncio, sys
from headwater.adapters.kafka import KafkaChannel
from headwater.clock import SystemClock

async def main():
    channel = KafkaChannel(sys.argv[1], SystemClock())
    await channel.open()
    member = await channel.subscribe("g", ["orders"], "child")
    held = []
    while len(held) < 20:
        held += await member.fetch(20 - len(held))
        await member.wait(0.2)
    print(len(held), flush=True)
    await asyncio.to_thread(sys.stdin.readline)
    try:
        await member.acknowledge(held)
        await asyncio.sleep(1)
        await member.fetch(1)
    except Exception as error:
        print(f"{type(error).__name__}: {error}", flush=True)
    else:
        print("acknowledged", flush=True)

asyncio.run(main())
"""


def start_member(url: str) -> subprocess.Popen[str]:
    words = [sys.executable, "-c", MEMBER, url]
    return subprocess.Popen(words, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)


@pytest.mark.parametrize("how", [signal.SIGKILL, signal.SIGSTOP])
def test_what_a_killed_or_stopped_member_had_comes_to_another(kafka: Brokers, how: signal.Signals) -> None:
    async def main() -> None:
        async with opened(kafka.url()) as channel:
            await channel.publish(publications(range(100)))
            child = start_member(channel.url)
            try:
                assert child.stdout is not None
                assert await asyncio.to_thread(child.stdout.readline) == "20\n"
                child.send_signal(how)
                ledger = Ledger()
                other = await channel.subscribe("g", ["orders"], "other")
                await ledger.drain(other, 100)
                assert not ledger.repeated
                if how is signal.SIGSTOP:
                    assert child.stdin is not None
                    child.stdin.write("\n")
                    child.stdin.flush()
                    child.send_signal(signal.SIGCONT)
                    said = await asyncio.to_thread(child.stdout.readline)
                    assert "took over" in said or said == "acknowledged\n"  # before it has heard of it
                await until_settled(channel)
            finally:
                child.kill()
                child.communicate()

    asyncio.run(main())


def test_of_two_members_of_one_name_one_gives_up_and_the_other_goes_on(kafka: Brokers) -> None:
    async def main() -> None:
        async with opened(kafka.url()) as channel, opened(channel.url) as other:
            members = [await one.subscribe("g", ["orders"], "same") for one in (channel, other)]
            ledger, said = Ledger(), [list[str](), list[str]()]
            end = time.monotonic() + 15
            while time.monotonic() < end and max(map(len, said)) < 6:
                for member, told in zip(members, said, strict=True):
                    try:
                        batch = await member.fetch(10)
                        ledger.take(batch)
                        await member.acknowledge(batch)
                    except ChannelError as error:
                        told.append(str(error))
                await asyncio.sleep(SOON)
            loser = said.index(max(said, key=len))
            assert len(said[loser]) >= 6, "it is told each time"
            assert "another process has joined under the same name" in said[loser][-1]
            await channel.publish(publications(range(20)))
            await ledger.drain(members[1 - loser], 20)

    asyncio.run(main())


def test_members_that_come_and_go_lose_nothing_and_keep_the_order(kafka: Brokers) -> None:
    async def main() -> None:
        async with opened(kafka.url(partitions=6)) as channel:
            ledger, count, over = Ledger(), 3_000, asyncio.Event()

            async def work(name: str, seconds: float) -> None:
                while not over.is_set():
                    one = await channel.subscribe("g", ["orders"], name)
                    end = time.monotonic() + seconds
                    while time.monotonic() < end and not over.is_set():
                        try:
                            batch = await one.fetch(50)
                            ledger.take(batch)
                            await asyncio.sleep(0.005)
                            await one.acknowledge(batch)
                            await one.wait(0.05)
                        except ChannelError:
                            continue
                    await one.close()

            async def publish() -> None:
                for first in range(0, count, 50):
                    await publish_surely(channel, publications(range(first, first + 50)))
                    await asyncio.sleep(0.03)
                end = time.monotonic() + 20
                while len(ledger.seen) < count:
                    assert time.monotonic() < end, f"{len(ledger.seen)} of {count} came"
                    await asyncio.sleep(SOON)
                over.set()

            await asyncio.gather(publish(), work("a", 0.7), work("b", 1.1), work("c", 1.9))
            assert ledger.seen == set(range(count))

    asyncio.run(main())


# --- back-pressure ---


def test_a_member_that_does_not_fetch_pauses_and_stays_in_the_group(
    kafka: Brokers, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(shelf, "MOST", 200)
    monkeypatch.setattr(member, "CHUNK", 50)
    monkeypatch.setattr(member, "PATIENCE", 0.1)

    async def main() -> None:
        async with opened(kafka.url()) as channel:
            slow, ledger = await channel.subscribe("g", ["orders"], "slow"), Ledger()
            await channel.publish(publications(range(2_000)))
            await slow.wait(5)
            await asyncio.sleep(2.0)  # twice as long as the group waits for a member that says nothing
            waiting = slow._shelf._count
            assert waiting < 300
            for _ in range(3):
                await asyncio.sleep(0.3)
                assert slow._shelf._count == waiting, "nothing more is taken from the cluster"
            await ledger.drain(slow, 2_000)
            assert not ledger.repeated, "it was never taken for dead"

    asyncio.run(main())


# --- publishing ---


def test_what_the_producer_has_no_room_for_follows_in_its_order(kafka: Brokers) -> None:
    async def main() -> None:
        with mock.patch.dict(publishing.PRODUCER, {"queue.buffering.max.messages": 20}):
            async with opened(kafka.url()) as channel:
                await channel.publish(publications(range(500)))
                ledger = Ledger()
                await ledger.drain(await channel.subscribe("g", ["orders"], "m"), 500)
                assert not ledger.repeated

    asyncio.run(main())


# --- topics ---


def test_a_topic_that_is_missing_is_named_and_nothing_is_published(kafka: Brokers) -> None:
    async def main() -> None:
        async with opened(kafka.url()) as channel:
            missing = Publication("mail", "k", {}, b"0")
            why = await refusal(channel.publish([*publications([0]), missing]))
            assert f"has no topic {topic_of(channel, 'mail')}; make it: headwater channel apply" in why
            assert "has no topic" in await refusal(channel.subscribe("g", ["orders", "mail"], "m"))
            await channel.establish([Route("mail")])
            assert await channel.publish([*publications([0]), missing]) == {}
            ledger = Ledger()
            await ledger.drain(await channel.subscribe("g", ["orders"], "m"), 1)
            assert not ledger.repeated

    asyncio.run(main())


def test_a_topic_that_is_deleted_is_missed_at_the_next_publish_but_one(kafka: Brokers) -> None:
    async def main() -> None:
        async with opened(kafka.url(timeout=2)) as channel:
            await channel.publish(publications(range(10)))
            kafka.delete(topic_of(channel))
            began = time.monotonic()
            await refusal(channel.publish(publications(range(10, 20))))
            assert time.monotonic() - began < BOUNDED
            assert "has no topic" in await refusal(channel.publish(publications(range(10, 20))))

    asyncio.run(main())


@pytest.mark.parametrize("running", [True, False])
def test_a_topic_that_was_wiped_is_read_from_its_new_beginning(kafka: Brokers, running: bool) -> None:
    async def main() -> None:
        async with opened(kafka.url()) as channel:
            one, ledger = await channel.subscribe("g", ["orders"], "m"), Ledger()
            await channel.publish(publications(range(300)))
            await ledger.drain(one, 300)
            await until_settled(channel)
            if not running:
                await one.close()
            kafka.wipe(topic_of(channel))
            await publish_surely(channel, publications(range(100)))
            if not running:
                async with opened(channel.url, made=False) as looking:
                    await looking.examine([Route("orders", ("g",))])
                    assert [one.messages for one in await looking.lag("g")] == [100], "none of them is settled"
                one = await channel.subscribe("g", ["orders"], "m")
            await Ledger().drain(one, 100)

    asyncio.run(main())


def test_partitions_that_are_added_are_read_from_their_beginning(
    kafka: Brokers, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(url.COMMON, "topic.metadata.refresh.interval.ms", 500)

    async def main() -> None:
        async with opened(kafka.url(partitions=2)) as channel:
            one = await channel.subscribe("g", ["orders"], "m", "now")
            await channel.publish(publications(range(100)))
            before = await both_take([one], 100)
            assert {delivery.partition for delivery in before} == {0, 1}
            kafka.admin.create_partitions([NewPartitions(topic_of(channel), 6)])[topic_of(channel)].result()
            await asyncio.sleep(1.0)
            async with opened(channel.url, made=False) as late:  # it knows them before the member does, or not
                await late.publish(publications(range(100, 200)))
            after = await both_take([one], 100)
            assert {delivery.partition for delivery in after} > {0, 1}
            assert sorted(int(delivery.body) for delivery in after) == list(range(100, 200))
            keys = {delivery.key: delivery.partition for delivery in after}
            assert all(keys[delivery.key] == delivery.partition for delivery in after), "a key has one partition"

    asyncio.run(main())


def test_what_was_deleted_before_it_was_read_is_passed_over(kafka: Brokers) -> None:
    async def main() -> None:
        async with opened(kafka.url(partitions=1)) as channel:
            one = await channel.subscribe("g", ["orders"], "m")
            await channel.publish(publications(range(50)))
            await both_take([one], 50)
            await until_settled(channel)
            await one.close()
            await channel.publish(publications(range(50, 100)))
            kafka.admin.delete_records([TopicPartition(topic_of(channel), 0, 70)])
            while (await channel.lag("g"))[0].messages != 30:
                await asyncio.sleep(SOON)
            again = await both_take([await channel.subscribe("g", ["orders"], "m")], 30)
            assert [int(delivery.body) for delivery in again] == list(range(70, 100))

    asyncio.run(main())


def test_a_message_that_is_larger_than_the_topic_takes_is_refused_alone(kafka: Brokers) -> None:
    async def main() -> None:
        async with opened(kafka.url(partitions=1)) as channel:
            kafka.configure(topic_of(channel), "max.message.bytes", "300000")
            given = publications(range(2_000), size=400)
            given[1_000] = Publication("orders", "large", {"place": "0"}, bytes(400_000))
            refused = await channel.publish(given)
            assert list(refused) == [1_000]
            assert "larger than the topic takes" in refused[1_000]
            one = await channel.subscribe("g", ["orders"], "m")
            numbers = [int(delivery.body) for delivery in await both_take([one], 1_999)]
            assert numbers == [number for number in range(2_000) if number != 1_000], "in order, each once"

    asyncio.run(main())


# --- what is said ---


def test_what_librdkafka_says_is_told_now_and_then(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, "headwater")

    async def main() -> None:
        channel = KafkaChannel("kafka://127.0.0.1:1?timeout=2", CLOCK)
        assert "no broker answers" in await refusal(channel.open())

    began = time.monotonic()
    asyncio.run(main())
    assert time.monotonic() - began < BOUNDED
    said = [record for record in caplog.records if record.getMessage() == "kafka.client"]
    kinds = [record.__dict__["fields"]["kind"] for record in said]
    assert kinds
    assert len(kinds) == len(set(kinds)), "each kind of line once in ten seconds"
