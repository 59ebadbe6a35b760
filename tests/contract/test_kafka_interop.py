"""Other clients and ours on one broker: a key has one partition whoever writes it, and each reads what the other wrote."""

from __future__ import annotations

import asyncio
import time

from confluent_kafka import Consumer, Message, Producer

from headwater.channel import Publication
from tests.fault.kafka import opened
from tests.fault.stream import drained
from tests.servers.kafka import Brokers

MURMUR2 = {
    "21": -973_932_308,
    "foobar": -790_332_482,
    "a-little-bit-long-string": -985_981_536,
    "a-little-bit-longer-string": -1_486_304_829,
    "lkjh234lh9fiuh90y23oiuhsafujhadof229phr9h19h89h8": -58_897_971,
    "abc": 479_470_107,
}
"""What Kafka's own client in Java makes of keys: the partition is this without its sign bit, modulo their number."""
PARTITIONS = 97


def read(address: str, topic: str, count: int) -> list[Message]:
    """What another client reads."""
    consumer = Consumer({"bootstrap.servers": address, "group.id": f"{topic}.other", "auto.offset.reset": "earliest"})
    consumer.subscribe([topic])
    found: list[Message] = []
    end = time.monotonic() + 10
    try:
        while len(found) < count:
            assert time.monotonic() < end, f"{len(found)} of {count} messages came"
            found += consumer.consume(count, 0.2)
    finally:
        consumer.close()
    return found


def test_a_key_has_the_partition_that_clients_in_java_give_it(kafka: Brokers) -> None:
    async def main() -> None:
        async with opened(kafka.url(partitions=PARTITIONS)) as channel:
            member = await channel.subscribe("g", ["orders"], "m")
            await channel.publish([Publication("orders", key, {}, b"") for key in MURMUR2])
            found = await drained(member, len(MURMUR2))
            assert {one.key: one.partition for one in found} == {
                key: (number & 0x7FFF_FFFF) % PARTITIONS for key, number in MURMUR2.items()
            }

    asyncio.run(main())


def test_another_client_reads_cloud_events(kafka: Brokers) -> None:
    async def main() -> None:
        async with opened(kafka.url()) as channel:
            headers = {"id": "1", "type": "bank.Withdrawn", "datacontenttype": "application/json"}
            await channel.publish([Publication("orders", "ключ", headers, b'{"cents":1}')])
            await channel.publish([Publication("orders", "k", {}, b"for g alone", group="g")])
            topic = f"{channel.place.options.prefix}orders"
            found = {one.value(): one for one in await asyncio.to_thread(read, kafka.address, topic, 2)}
            event = found[b'{"cents":1}']
            assert event.key() == "ключ".encode()
            assert dict(event.headers() or ()) == {
                "ce_id": b"1",
                "ce_type": b"bank.Withdrawn",
                "content-type": b"application/json",
            }
            assert dict(found[b"for g alone"].headers() or ()) == {"headwater-group": b"g"}

    asyncio.run(main())


def test_what_another_client_writes_is_read_whatever_it_is(kafka: Brokers) -> None:
    async def main() -> None:
        async with opened(kafka.url(partitions=1)) as channel:
            member = await channel.subscribe("g", ["orders"], "m")
            producer = Producer({"bootstrap.servers": kafka.address})
            topic = f"{channel.place.options.prefix}orders"
            producer.produce(topic, b"event", "k", headers={"ce_id": "1", "content-type": "text/plain", "trace": b"t"})
            producer.produce(topic, b"no text", b"\xff", headers=[("ce_id", b"\xfe"), ("none", None)])
            producer.produce(topic)
            assert producer.flush(10) == 0
            event, raw, empty = await drained(member, 3)
            assert event.headers == {"id": "1", "datacontenttype": "text/plain", "kafka:trace": "t"}
            assert (event.key, event.body) == ("k", b"event")
            assert (raw.key, raw.headers) == ("\\xff", {"id": "\\xfe", "kafka:none": ""})
            assert (empty.key, empty.headers, empty.body) == ("", {}, b"")

    asyncio.run(main())
