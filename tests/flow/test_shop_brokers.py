"""The shop over real brokers: every order once, while services and the broker itself are killed and started again."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Protocol

import pytest

from examples.shop.folder import Folder, Run, with_prefix
from tests.flow.test_shop_postgres import demo, is_exact
from tests.servers import kafka as kafka_programs
from tests.servers import rabbitmq as rabbitmq_programs
from tests.servers.aws import Endpoint
from tests.servers.kafka import KafkaServer
from tests.servers.postgres import Databases
from tests.servers.rabbitmq import RabbitmqServer

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
