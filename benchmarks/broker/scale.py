"""SCALE: `headwater run` with one worker and with several, of a service whose handler works for about a millisecond.

The channel is empty and all workers run when the clock starts; it stops when all that was published then is acknowledged.
More workers than cores are not tried: what they share is the processor.
"""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from pathlib import Path

from benchmarks.case import Case, Setting
from benchmarks.load import Figures
from benchmarks.works.consume import published
from headwater.channel import Publication, Route

from .server import Broker, Place, fill, opened

MESSAGES = 10_000
WARM = 400
ROUNDS = 3
STARTED = '"app.started"'
SERVICE = """
from benchmarks.works.consume import LineAdded
from headwater import App

app = App("{group}", store="sqlite:///scaled.db", channel="{url}", batch=50)

@app.on(LineAdded, name="work")
def work(event: LineAdded) -> None:
    sum(range(60_000))
"""


def scale(setting: Setting, broker: Broker) -> Iterator[Case]:
    count = MESSAGES // (5 if setting.quick else 1)
    workers = [number for number in (1, 2, 4, 8) if number <= (os.cpu_count() or 1)]
    names = {number: f"{number} worker{'s' if number > 1 else ''}" for number in workers}
    subjects = {name: partial(_run, setting, broker, published(count), number) for number, name in names.items()}
    yield Case(f"SCALE {broker.name}", "a handler of 1 ms CPU", subjects, limit=names[1], rounds=ROUNDS)


def _run(setting: Setting, broker: Broker, messages: Sequence[Publication], workers: int) -> Figures:
    with setting.fresh() as folder, broker.empty() as place, _running(folder, place, workers):
        _drained(place, published(WARM))
        begun = time.perf_counter()
        _drained(place, messages)
        return {"messages/s": len(messages) / (time.perf_counter() - begun)}


def _drained(place: Place, messages: Sequence[Publication]) -> None:
    """Publish messages and wait until the group has acknowledged all."""

    async def settled() -> None:
        async with opened(place.url) as channel:
            await channel.examine([Route(messages[0].topic, (place.group,))])
            while sum(one.messages for one in await channel.lag(place.group)):  # noqa: ASYNC110 - looked at from outside
                await asyncio.sleep(0.05)

    fill(place.url, messages)
    asyncio.run(settled())


@contextmanager
def _running(folder: Path, place: Place, workers: int) -> Iterator[None]:
    """The service, with all its workers started."""
    (folder / "scaled.py").write_text(SERVICE.format(group=place.group, url=place.url))
    for words in (("channel", "apply", "--app"), ("run", "--workers", str(workers))):
        command = [sys.executable, "-m", "headwater", *words, "scaled:app"]
        with (folder / "log").open("w") as log:
            process = subprocess.Popen(command, cwd=folder, stdout=log, stderr=log)
        if words[0] == "channel" and process.wait():
            raise SystemExit(f"bench: {(folder / 'log').read_text()}")
    try:
        while (folder / "log").read_text().count(STARTED) < workers:
            if process.poll() is not None:
                raise SystemExit(f"bench: {(folder / 'log').read_text()[-1000:]}")
            time.sleep(0.05)
        yield
    finally:
        process.send_signal(signal.SIGTERM)
        process.wait(30)
