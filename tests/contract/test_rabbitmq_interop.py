"""Other clients and ours on one server: they read what we publish, and we what they do, by what the reference says of the wire."""

from __future__ import annotations

import asyncio
import json
import os
import zlib
from pathlib import Path
from typing import Any

import aio_pika

from headwater.channel import Publication
from tests.contract.foreign import TOPIC, Hearer, attributes, running
from tests.fault.rabbitmq import opened
from tests.fault.stream import drained
from tests.flow.shop import Bump, shop
from tests.servers.rabbitmq import Vhosts

SCRIPT = Path(__file__).with_name("amqp.js")


def amqp(url: str) -> str:
    return url.replace("rabbitmq://", "amqp://")


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
            found = await drained(member, 25)
            ours = [one for one in found if one.key]
            assert {one.key for one in ours} == {f"k{n}" for n in range(7)}
            for one in ours:
                assert one.headers == {"id": one.body.decode(), "number": one.body.decode()}
            plain = [one for one in found if not one.key]
            assert [one.body for one in plain] == [b"20", b"21", b"22", b"23", b"24"]
            assert {(one.partition, one.headers["type"]) for one in plain} == {(0, "plain")}

    asyncio.run(main())


# --- a service in another language ---


async def node_runs(modules: Path, url: str, *words: str) -> asyncio.subprocess.Process:
    return await asyncio.create_subprocess_exec(
        *("node", str(SCRIPT), amqp(url), *words),
        env=os.environ | {"NODE_PATH": str(modules)},
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
    )


def test_a_client_in_javascript_reads_what_a_service_of_ours_states(
    rabbitmq: Vhosts, node: Path, tmp_path: Path
) -> None:
    url = rabbitmq.make()

    async def main() -> list[dict[str, Any]]:
        async with running(shop(store=f"sqlite:///{tmp_path}/shop.db", channel=url)) as app:
            reader = await node_runs(node, url, "read", "shop.Counter", "2")
            assert reader.stdout is not None
            assert await reader.stdout.readline() == b"ready\n"
            await app.send(Bump("ключ", "one"))
            await app.send(Bump("ключ", "two"))
            said, _ = await asyncio.wait_for(reader.communicate(), 20)
            assert reader.returncode == 0
            return [json.loads(line) for line in said.splitlines()]

    first, second = asyncio.run(main())
    headers = first["headers"]
    assert (headers["cloudEvents_type"], headers["cloudEvents_source"]) == ("shop.Bumped", "shop")
    assert headers["cloudEvents_specversion"] == "1.0"
    assert headers["cloudEvents_partitionkey"] == headers["cloudEvents_subject"] == "shop.Counter/ключ"
    assert first["contentType"] == "application/json"
    assert [one["data"]["say"] for one in (first, second)] == ["one", "two"]
    assert [one["headers"]["cloudEvents_streamversion"] for one in (first, second)] == ["1", "2"]


def test_a_service_of_ours_hears_what_a_client_in_javascript_states(
    rabbitmq: Vhosts, node: Path, tmp_path: Path
) -> None:
    url = rabbitmq.make()
    stated = [("r1", 1, 10), ("r2", 1, 20), ("r1", 2, 30), ("r1", 1, 10), ("r1", 3, 40)]

    async def main() -> list[tuple[str, int]]:
        hearer = Hearer(tmp_path, url)
        async with running(hearer.app):
            client = await node_runs(node, url, "state", TOPIC)
            lines = [
                json.dumps({"attributes": attributes(receipt, version), "data": {"receipt": receipt, "cents": cents}})
                for receipt, version, cents in stated
            ]
            await asyncio.wait_for(client.communicate("\n".join(lines).encode()), 20)
            assert client.returncode == 0
            return await hearer.hears(4)

    heard = asyncio.run(main())
    assert [cents for receipt, cents in heard if receipt == "r1"] == [10, 30, 40], "each once, in order"
    assert [cents for receipt, cents in heard if receipt == "r2"] == [20]
