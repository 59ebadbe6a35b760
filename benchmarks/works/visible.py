"""E2E: from a command to the row of a read model in another process, at 200 and 500 a second, while the whole shop runs.

This process sends; `orders` works with three other services; `customers`, its read model, is folded in a process of its own;
one more looks at the read model's checkpoint in the file, four times a millisecond at most, and so adds up to a quarter of a
millisecond.
"""

from __future__ import annotations

import asyncio
import json
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from functools import partial
from pathlib import Path

from benchmarks.case import Case, Setting
from benchmarks.load import Figures, quantile
from benchmarks.names import OURS
from benchmarks.quiet import Watch
from examples.shop.feeder import client
from examples.shop.folder import Folder
from examples.shop.messages import PlaceOrder
from examples.shop.services import Services

INJECT = Path(__file__).parents[1] / "inject"
ROOT = Path(__file__).parents[2]
CONSUMER = "orders.customers"
SETTLE = 1.0
PATIENCE = 20.0
ROUNDS = 3

Sent = list[tuple[float, int, float]]
"""When a command was sent, at which position it is, and when it was answered."""
Seen = list[tuple[float, int]]
"""When up to which position was seen."""


def visible(setting: Setting) -> Iterator[Case]:
    for rate in (200, 500):
        yield Case("E2E", f"{rate} commands/s", {OURS: partial(_measure, setting, rate)}, rounds=ROUNDS)


def _measure(setting: Setting, rate: int) -> Figures:
    with setting.fresh() as path:
        sync_ms = Watch(setting.folder).sync_ms()
        folder = Folder(path)
        folder.claim()
        found_path = os.pathsep.join([str(INJECT), str(ROOT)])
        before, os.environ["PYTHONPATH"] = os.environ.get("PYTHONPATH", ""), found_path
        services = Services(folder, {"HEADWATER_BENCH_WAITS": str(path), "SHOP_SEED": "1"}, apart=[CONSUMER])
        try:
            services.start_all()
            begun, sent, seen = _drive(folder, rate, 2.0 if setting.quick else 10.0)
        finally:
            services.stop_all()
            os.environ["PYTHONPATH"] = before
        return _figures(sent, seen, _waits(path, begun)) | {"ms fdatasync p50": sync_ms}


def _drive(folder: Folder, rate: int, seconds: float) -> tuple[float, Sent, Seen]:
    """When what counts began; what was sent (when, at which position); and what was seen (when, up to which position)."""
    database = folder.database("orders")
    _wait_for(database)
    watching = [sys.executable, "-m", "benchmarks.watch", str(database), CONSUMER]
    with subprocess.Popen(watching, stdin=subprocess.PIPE, stdout=subprocess.PIPE, env=_environment()) as watcher:
        begun, sent = asyncio.run(_send(folder, rate, seconds))
        out, _ = watcher.communicate(str(sent[-1][1]).encode(), timeout=PATIENCE * 2)
    return begun, [one for one in sent if one[0] >= begun], [(moment, position) for moment, position in json.loads(out)]


def _environment() -> dict[str, str]:
    return os.environ | {"PYTHONPATH": str(ROOT)}


def _wait_for(database: Path) -> None:
    end = time.monotonic() + PATIENCE
    while not database.exists() and time.monotonic() < end:
        time.sleep(0.05)
    time.sleep(SETTLE)


async def _send(folder: Folder, rate: int, seconds: float) -> tuple[float, Sent]:
    where = folder.environment("orders")
    sent: Sent = []
    async with client(where["HEADWATER_STORE"], where["HEADWATER_CHANNEL"]).client() as app:

        async def place(number: int) -> None:
            begun = time.time()
            order = PlaceOrder(number, f"{number % 23_570:05d}", "1997-01-01", 1 + number % 3, 1_499)
            answer = await app.send(order, key=f"line-{number}")
            sent.append((begun, answer.position, time.time()))

        begun = time.monotonic()
        async with asyncio.TaskGroup() as group:
            number = 0
            while (elapsed := time.monotonic() - begun) < seconds + SETTLE:
                while number < elapsed * rate:
                    number += 1
                    group.create_task(place(number))
                await asyncio.sleep((number + 1) / rate - elapsed)
    return sent[0][0] + SETTLE, sorted(sent, key=lambda one: one[1])


def _figures(sent: Sent, seen: Seen, waits: list[float]) -> Figures:
    took = []
    looks = iter(seen)
    moment, reached = next(looks)
    for begun, position, _ in sent:
        while reached < position:
            moment, reached = next(looks)
        took.append((moment - begun) * 1e3)
    took.sort()
    answered = sorted((end - begun) * 1e3 for begun, _, end in sent)
    return {
        "ms p50": quantile(took, 0.5),
        "ms p99": quantile(took, 0.99),
        "ms answered p50": quantile(answered, 0.5),
        "ms answered p99": quantile(answered, 0.99),
        "ms lock wait p99": quantile(waits, 0.99) * 1e3,
    }


def _waits(folder: Path, begun: float) -> list[float]:
    lines = [line for file in folder.glob("waits-*.jsonl") for line in file.read_text().splitlines()]
    found = [json.loads(line) for line in lines]
    return sorted(wait for moment, wait in found if moment >= begun) or [0.0]
