"""Other clients and ours on one server: they read what we publish, and we what they do, by what the reference says of the wire."""

from __future__ import annotations

import asyncio
import zlib

import aio_pika

from headwater.channel import Delivery, Publication, Subscription
from tests.fault.rabbitmq import opened
from tests.servers.rabbitmq import Vhosts


def amqp(url: str) -> str:
    return url.replace("rabbitmq://", "amqp://")


async def some(member: Subscription, count: int) -> list[Delivery]:
    found: list[Delivery] = []
    async with asyncio.timeout(10):
        while len(found) < count:
            batch = await member.fetch(100)
            await member.acknowledge(batch)
            found += batch
            if not batch:
                await member.wait(1.0)
    return found


def test_another_client_binds_a_queue_to_a_topic_and_reads_cloud_events(rabbitmq: Vhosts) -> None:
    async def main() -> None:
        url = rabbitmq.make()
        async with opened(url) as channel, await aio_pika.connect(amqp(url)) as other:
            queue = await (await other.channel()).declare_queue("theirs", exclusive=True)
            await queue.bind("orders")
            headers = {"id": "1", "type": "bank.Withdrawn", "datacontenttype": "application/json"}
            await channel.publish([Publication("orders", "ключ", headers, b'{"cents":1}')])
            await channel.publish([Publication("orders", "k", {}, b"for g alone", group="g")])
            message = await queue.get(timeout=5)
            assert message.body == b'{"cents":1}'
            assert message.content_type == "application/json"
            assert message.delivery_mode == aio_pika.DeliveryMode.PERSISTENT
            assert message.headers == {
                "cloudEvents_id": "1",
                "cloudEvents_type": "bank.Withdrawn",
                "cloudEvents_partitionkey": "ключ",
            }
            assert message.routing_key == str(zlib.crc32("ключ".encode()) % 64)
            assert await queue.get(fail=False) is None

    asyncio.run(main())


def test_another_client_publishes_with_the_slot_of_a_key_or_with_none(rabbitmq: Vhosts) -> None:
    async def main() -> None:
        url = rabbitmq.make()
        async with opened(url) as channel, await aio_pika.connect(amqp(url)) as other:
            topic = await (await other.channel()).get_exchange("orders")
            member = await channel.subscribe("g", ["orders"], "m")
            for number in range(20):
                key = f"k{number % 7}"
                message = aio_pika.Message(
                    b"%d" % number,
                    headers={
                        "cloudEvents:id": str(number),
                        "cloudEvents:partitionkey": key,
                        "cloudEvents:number": number,
                    },
                )
                await topic.publish(message, str(zlib.crc32(key.encode()) % 64))
            for number in range(20, 25):
                await topic.publish(aio_pika.Message(b"%d" % number, headers={"type": "plain"}), "")
            found = await some(member, 25)
            ours = [one for one in found if one.key]
            assert {one.key for one in ours} == {f"k{n}" for n in range(7)}
            for one in ours:
                assert one.headers == {"id": one.body.decode(), "number": one.body.decode()}
            plain = [one for one in found if not one.key]
            assert [one.body for one in plain] == [b"20", b"21", b"22", b"23", b"24"]
            assert {(one.partition, one.headers["type"]) for one in plain} == {(0, "plain")}

    asyncio.run(main())
