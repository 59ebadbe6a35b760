"""Workers of a service come and go, killed or told to: on real brokers each message takes effect once, in the order of its key."""

from __future__ import annotations

import asyncio
import json
import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from pathlib import Path

import pytest

from headwater.app import open_database
from headwater.clock import SystemClock
from headwater.database import Database
from tests.contract.foreign import running
from tests.flow.shop import Bump, shop
from tests.servers.kafka import Brokers
from tests.servers.rabbitmq import Vhosts

KEYS, EACH = 24, 20
SEED = 7
SERVICE = """
import asyncio
from headwater import App, Event

class Bumped(Event, service="shop", category="Counter"):
    key: str
    n: int

class Noted(Event):
    key: str
    n: int

app = App("mail", batch=20)
app.add(Noted)

@app.on(Bumped, name="note")
async def note(event: Bumped) -> Noted:
    await asyncio.sleep(0.02)
    return Noted(event.key, event.n)
"""


class Desk:
    """A folder with the service, its database and its logs, and commands that are given there."""

    def __init__(self, folder: Path, channel: str) -> None:
        self.folder = folder
        self.channel = channel
        self.started = 0
        (folder / "mail.py").write_text(SERVICE, encoding="utf-8")

    def headwater(self, *words: str, log: Path | None = None) -> subprocess.Popen[bytes]:
        """Start a command; what it says goes to `log`."""
        with (log or self.folder / "said").open("ab") as said:
            return subprocess.Popen(
                [sys.executable, "-m", "headwater", *words],
                cwd=self.folder,
                env=os.environ | {"HEADWATER_CHANNEL": self.channel, "HEADWATER_STORE": "sqlite:///mail.db"},
                stdout=said,
                stderr=said,
            )

    @contextmanager
    def running(self, workers: int) -> Iterator[Callable[[], list[int]]]:
        """`headwater run` with so many workers, all started, and told to end; the processes that do the work."""
        self.started += 1
        log = self.folder / f"run-{self.started}.log"
        process = self.headwater("run", "mail:app", "--workers", str(workers), log=log)

        def working() -> list[int]:
            lines = [json.loads(line) for line in log.read_text().splitlines() if line.startswith("{")]
            pids = [line["pid"] for line in lines if line["event"] == "worker.started"]
            return [pid for pid in pids if Path(f"/proc/{pid}").exists()]

        try:
            end = time.monotonic() + 20
            while log.read_text().count("app.started") < workers:
                assert time.monotonic() < end, log.read_text()[-2_000:]
                time.sleep(0.05)
            yield working
        finally:
            process.send_signal(signal.SIGTERM)
            assert process.wait(20) == 0, log.read_text()[-2_000:]


async def noted(database: Database) -> dict[str, list[int]]:
    """What has taken effect, by key, in the order in which it was committed."""
    found: dict[str, list[int]] = {}
    for one in await database.read(0, 100_000):
        if one.type == "mail.Noted":
            fields = json.loads(one.data)
            found.setdefault(fields["key"], []).append(fields["n"])
    return found


async def publish(channel: str, folder: Path) -> None:
    """State all that is to be handled, over about as long as workers come and go."""
    async with running(shop(store=f"sqlite:///{folder}/shop.db", channel=channel)) as producer:
        for _ in range(EACH):
            await asyncio.gather(*(producer.send(Bump(f"k{number}")) for number in range(KEYS)))
            await asyncio.sleep(0.3)
        relayed = producer.wiring.database
        while await relayed.checkpoint("shop.relay") < await relayed.head():
            await asyncio.sleep(0.05)


async def settled(folder: Path) -> dict[str, list[int]]:
    """What has taken effect once all has and nothing is held, a tally neither, or when it has taken too long."""
    database = open_database(f"sqlite:///{folder}/mail.db", SystemClock())
    await database.open()
    end = time.monotonic() + 40

    async def is_settled() -> bool:
        effects = sum(map(len, (await noted(database)).values()))
        return effects >= KEYS * EACH and await database.held_count("mail.note") == (0, 0)

    try:
        while not await is_settled() and time.monotonic() < end:
            await asyncio.sleep(0.2)
        await asyncio.sleep(0.5)  # what comes twice would come now
        assert await database.held_count("mail.note") == (0, 0)
        return await noted(database)
    finally:
        await database.close()


def come_and_go(desk: Desk, over: Callable[[], bool]) -> int:
    """Kill workers, which are started again, and let others join and leave, until it is over; how many were killed."""
    chance, kills = random.Random(SEED), 0
    with desk.running(2) as working:
        while not over():
            with suppress(ProcessLookupError):
                os.kill(chance.choice(working()), signal.SIGKILL)
                kills += 1
            with desk.running(1):
                time.sleep(chance.uniform(0.5, 1.5))
        assert asyncio.run(settled(desk.folder)) == {f"k{number}": list(range(1, EACH + 1)) for number in range(KEYS)}
    return kills


@pytest.mark.parametrize("broker", ["kafka", "rabbitmq"])
def test_order_per_key_is_kept_and_nothing_is_lost_or_doubled(
    broker: str, request: pytest.FixtureRequest, tmp_path: Path
) -> None:
    server: Brokers | Vhosts = request.getfixturevalue(broker)
    url = server.url() if isinstance(server, Brokers) else server.make()
    desk = Desk(tmp_path, url)
    assert desk.headwater("channel", "apply", "--app", "mail:app").wait(30) == 0
    with ThreadPoolExecutor(1) as pool:
        publishing = pool.submit(asyncio.run, publish(url, tmp_path))
        kills = come_and_go(desk, publishing.done)
        publishing.result()
    assert kills >= 2
