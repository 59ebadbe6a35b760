"""The shop with its logs on a PostgreSQL server: every order once, while services are killed, cut off, or have no server."""

from __future__ import annotations

import json
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import psycopg
import pytest

from examples.shop.demo import DemoOptions, agreed
from examples.shop.folder import Folder, Run, url
from headwater import ConfigurationError
from tests.flow.test_shop import DEMO
from tests.servers.postgres import Databases, PostgresServer, run

pytestmark = pytest.mark.timeout(200)  # four services and a server on a busy machine

TIMES = 4
MADE = "SELECT datname FROM pg_database WHERE datname LIKE 'shop\\_%'"
SHIPPED = "SELECT EXISTS (SELECT FROM headwater.events WHERE type = 'orders.OrderShipped')"
CUT_OFF = """
SELECT count(pg_terminate_backend(pid)) FROM pg_stat_activity
WHERE datname LIKE 'shop\\_%' AND application_name = 'headwater' AND random() < 0.5
"""


def demo(*arguments: object) -> tuple[int, dict[str, Any], str]:
    """Run a demo to its end: its exit code, its ledger and what it said on stderr."""
    words = [*DEMO, "--json", *map(str, arguments)]
    done = subprocess.run(words, capture_output=True, text=True, check=False)
    return done.returncode, json.loads(done.stdout.splitlines()[-1]) if done.stdout else {}, done.stderr


@contextmanager
def every(seconds: float, harm: Callable[[], object]) -> Iterator[list[object]]:
    """Do harm so often, a few times, in a thread; what came of it."""
    over, done = threading.Event(), list[object]()

    def work() -> None:
        while len(done) < TIMES and not over.wait(seconds):
            done.append(harm())

    thread = threading.Thread(target=work)
    thread.start()
    try:
        yield done
    finally:
        over.set()
        thread.join()


def is_exact(code: int, ledger: dict[str, Any], said: str) -> bool:
    assert code == 0, said
    assert ledger["lost"] == ledger["doubled"] == ledger["out_of_order"] == ledger["dead_letters"] == 0
    return bool(ledger["exact"])


def test_the_ledger_of_a_run_on_a_server_is_exact_and_nothing_is_left_there(postgres: Databases) -> None:
    own = PostgresServer.make()
    own.start()
    try:
        assert is_exact(*demo("--limit", 300, "--store", own.url("").rstrip("/")))
        assert run(own.url("postgres"), MADE) == []
    finally:
        own.remove()


@pytest.mark.parametrize("channel", ["sqlite", "postgres"])
def test_the_ledger_holds_through_kills_and_cuts(tmp_path: Path, postgres: Databases, channel: str) -> None:
    other = ["--channel", url(tmp_path / "channel.db")] if channel == "sqlite" else []
    words = ["--limit", 200, "--rate", 50, "--kill-every", 0.7, "--store", postgres.server_url, *other]
    with every(0.7, lambda: postgres.run(CUT_OFF)) as cuts:
        code, ledger, said = demo(*words)
    assert is_exact(code, ledger, said)
    assert ledger["kills"] > 3
    assert len(cuts) > 3


def test_the_ledger_holds_while_the_server_dies_again_and_again(tmp_path: Path, postgres: Databases) -> None:
    own = PostgresServer.make()
    own.start()

    def shipped() -> bool:
        """Whether all services have begun."""
        place = Folder(tmp_path)
        with suppress(psycopg.Error):
            return bool(place.earlier() and run(place.store("orders"), SHIPPED)[0][0])
        return False

    def die() -> None:
        while not shipped():
            time.sleep(0.2)
        own.kill()
        time.sleep(0.2)
        own.restart()

    try:
        with every(2.0, die) as deaths:
            found = demo("--limit", 250, "--rate", 30, "--dir", tmp_path, "--store", own.url("").rstrip("/"))
        assert is_exact(*found)
        assert len(deaths) > 2
        place = Folder(tmp_path)
        place.earlier()
        assert run(place.store("orders"), "SELECT count(*) > 250 FROM headwater.events") == [(True,)]
    finally:
        own.remove()


def test_a_run_goes_on_on_the_server_that_it_began_on(tmp_path: Path) -> None:
    orders = tmp_path / "orders.txt"
    orders.write_text("")
    first = agreed(DemoOptions(orders=orders, store="postgresql://ada@one"), None)
    assert agreed(DemoOptions(), first) == first == Run(**vars(first))
    assert agreed(DemoOptions(store="postgresql://ada@one"), first) == first
    with pytest.raises(ConfigurationError, match="another --store"):
        agreed(DemoOptions(store="postgresql://ada@other"), first)
