"""The shop over real brokers: every order once, while services and the broker itself are killed and started again."""

from __future__ import annotations

import asyncio
import json
import os
import re
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Protocol

import aio_pika
import pytest
from confluent_kafka import TopicPartition
from confluent_kafka.admin import OffsetSpec

from examples.shop.folder import Folder, Run, with_prefix
from examples.shop.progress import Progress
from tests.docs.page import ROOT
from tests.flow.test_shop import running
from tests.flow.test_shop_postgres import demo, is_exact
from tests.servers import kafka as kafka_programs
from tests.servers import rabbitmq as rabbitmq_programs
from tests.servers.aws import Endpoint
from tests.servers.kafka import Brokers, KafkaServer
from tests.servers.postgres import Databases
from tests.servers.rabbitmq import RabbitmqServer, Vhosts

pytestmark = pytest.mark.timeout(300)  # four services and two servers on a busy machine

STARTED, FIRST, DOWN = 60.0, 3.0, 1.0


class Broker(Protocol):
    def start(self) -> None: ...

    def kill(self) -> None: ...

    def remove(self) -> None: ...


def kafka_broker() -> tuple[Broker, str]:
    kafka_programs.install()
    server = KafkaServer.make()
    return server, f"kafka://127.0.0.1:{server.ports.plain}"


def rabbitmq_broker() -> tuple[Broker, str]:
    rabbitmq_programs.install()
    server = RabbitmqServer.make()
    return server, server.url("/")


@contextmanager
def killed_once(broker: Broker, folder: Path) -> Iterator[list[bool]]:
    """Kill the broker once services of a run in a folder have started, and start it again; whether that was done."""
    over, done = threading.Event(), list[bool]()

    def work() -> None:
        end = time.monotonic() + STARTED
        while not (folder / "pids.json").exists() and time.monotonic() < end:
            over.wait(0.1)
        if not over.wait(FIRST):
            broker.kill()
            over.wait(DOWN)
            broker.start()
            done.append(True)

    thread = threading.Thread(target=work)
    thread.start()
    try:
        yield done
    finally:
        over.set()
        thread.join()


@pytest.mark.parametrize("make", [kafka_broker, rabbitmq_broker])
def test_the_ledger_is_exact_while_services_and_the_broker_are_killed(
    postgres: Databases, tmp_path: Path, make: Callable[[], tuple[Broker, str]]
) -> None:
    broker, url = make()
    broker.start()
    try:
        with killed_once(broker, tmp_path) as done:
            words = ["--limit", 150, "--rate", 30, "--kill-every", 1.5, "--dir", tmp_path]
            code, ledger, said = demo(*words, "--store", postgres.server_url, "--channel", url)
        assert is_exact(code, ledger, said)
        assert done == [True]
        assert ledger["kills"] > 0
    finally:
        broker.remove()


def test_the_ledger_is_exact_over_sns_and_sqs_while_services_are_killed(aws: Endpoint) -> None:
    url = f"aws://?region=eu-west-1&endpoint={aws.url}&poll=1&visibility=3"
    code, ledger, said = demo("--limit", 60, "--rate", 10, "--kill-every", 2, "--channel", url)
    assert is_exact(code, ledger, said)
    assert ledger["kills"] > 0


# --- a topic is wiped half-way ---

ORDERS = 120
LOST = "payments.commands"


class HalfWay:
    """A run that was stopped while one service did not take what others had sent it; commands are given as a person does."""

    def __init__(self, path: Path, channel: str) -> None:
        with running("--limit", ORDERS, "--dir", path, "--channel", channel) as run:
            self.folder = Folder(path)
            pid = self._payments()
            os.kill(pid, signal.SIGSTOP)
            self._wait_for_commands()
            run.send_signal(signal.SIGINT)
            os.kill(pid, signal.SIGKILL)
            assert run.wait(30) == 130
        assert self.folder.earlier() is not None

    def _payments(self) -> int:
        end, log = time.monotonic() + STARTED, self.folder.logs / "payments.log"
        while not (log.exists() and "app.started" in log.read_text()):
            assert time.monotonic() < end
            time.sleep(0.02)
        return int(json.loads(self.folder.pids.read_text())["payments"])

    def _wait_for_commands(self) -> None:
        end = time.monotonic() + STARTED
        progress = Progress(self.folder)
        while (now := progress.look()).lag[LOST] < ORDERS // 2 or now.lag["orders.fulfilment"]:
            assert time.monotonic() < end, now
            time.sleep(0.1)
        progress.close()

    def headwater(self, service: str, *words: str) -> str:
        """What a command says about a service of the run."""
        command = [sys.executable, "-m", "headwater", *words, "--app", f"examples.shop.{service}:app"]
        environment = os.environ | self.folder.environment(service)
        done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr
        return done.stdout

    def behind(self) -> int:
        """How many commands the service has yet to take."""
        states = json.loads(self.headwater("payments", "consumers", "--json"))["consumers"]
        return sum(int(one["behind"]) for one in states if one["name"] == LOST and one["source"] == "channel")


def is_mended(half: HalfWay, wipe: Callable[[], object], on_topic: Callable[[], int]) -> bool:
    """Wipe the topic and have it filled by commands, with the services down; then the run goes on to its end."""
    assert half.behind() >= ORDERS // 2
    wipe()
    assert "made " in half.headwater("payments", "channel", "apply")
    assert on_topic() == 0, "they are lost"
    said = half.headwater("orders", "republish", "--from", "1", "--topic", LOST)
    [count] = re.findall(r"published (\d+) messages again", said)
    assert on_topic() == int(count) >= ORDERS // 2
    assert half.behind() == int(count), "nobody has taken them yet"
    return is_exact(*demo("--dir", half.folder.path))


def test_a_topic_on_kafka_that_was_wiped_half_way_is_filled_by_republish(kafka: Brokers, tmp_path: Path) -> None:
    url = kafka.url()
    [prefix] = re.findall("prefix=([^&]*)", url)

    def wipe() -> None:
        kafka.delete(prefix + LOST)

    def on_topic() -> int:
        ends = kafka.admin.list_offsets({TopicPartition(prefix + LOST, n): OffsetSpec.latest() for n in range(4)})
        return sum(one.result().offset for one in ends.values())

    assert is_mended(HalfWay(tmp_path, url), wipe, on_topic)


def test_a_queue_on_rabbitmq_that_was_wiped_half_way_is_filled_by_republish(rabbitmq: Vhosts, tmp_path: Path) -> None:
    url = rabbitmq.make()

    async def wipe() -> None:
        async with await aio_pika.connect(url.replace("rabbitmq://", "amqp://")) as connection:
            channel = await connection.channel()
            for number in range(4):
                queue = await channel.get_queue(f"w-{LOST}/payments/{number}-of-4")
                await queue.delete(if_unused=False, if_empty=False)

    half = HalfWay(tmp_path, f"{url}?prefix=w-")
    assert is_mended(half, lambda: asyncio.run(wipe()), half.behind)


# --- folders and topics of runs ---


@pytest.mark.parametrize(
    ("channel", "found"),
    [
        ("kafka://127.0.0.1:9092", "kafka://127.0.0.1:9092?prefix=shop_1-"),
        ("aws://?region=eu-west-1", "aws://?region=eu-west-1&prefix=shop_1-"),
        ("kafka://127.0.0.1:9092?prefix=mine-", "kafka://127.0.0.1:9092?prefix=mine-"),
        ("sqlite:///channel.db", "sqlite:///channel.db"),
        ("postgresql://localhost/channel", "postgresql://localhost/channel"),
    ],
)
def test_each_run_has_topics_of_its_own_on_a_broker(channel: str, found: str) -> None:
    assert with_prefix(channel, "shop_1-") == found


def test_a_run_that_goes_on_finds_its_topics_again(tmp_path_factory: pytest.TempPathFactory) -> None:
    folder = Folder(tmp_path_factory.mktemp("run"))
    folder.claim()
    folder.keep(Run("", "", None, 1, channel="kafka://127.0.0.1:9092", name="shop_1"))
    again = Folder(folder.path)
    again.earlier()
    assert again.channel() == folder.channel() == "kafka://127.0.0.1:9092?prefix=shop_1-"
    folder.release()
