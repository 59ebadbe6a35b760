"""SCALE: `headwater run` with one worker and with several, of a service whose handler works for about a millisecond.

The channel is empty and all workers run when the clock starts; it stops when all that was published then is handled. More
workers than cores are not tried: what they share is the processor.
"""

from __future__ import annotations

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
from headwater.channel import Publication

from .server import Broker, Place, fill

MESSAGES = 10_000
WARM = 400
PARTITIONS = 8
ROUNDS = 3
PATIENCE = 120.0
STARTED = '"app.started"'
SERVICE = """
import os
from benchmarks.works.consume import LineAdded
from headwater import App

app = App("{group}", store="sqlite:///scaled.db", channel="{url}", batch=50)
done = os.open("done", os.O_CREAT | os.O_APPEND | os.O_WRONLY)

@app.on(LineAdded, name="work")
def work(event: LineAdded) -> None:
    sum(range(60_000))
    os.write(done, b".")
"""


def scale(setting: Setting, broker: Broker) -> Iterator[Case]:
    messages = published(WARM + MESSAGES // (5 if setting.quick else 1))
    workers = [number for number in (1, 2, 4, 8) if number <= (os.cpu_count() or 1)]
    names = {number: f"{number} worker{'s' if number > 1 else ''}" for number in workers}
    subjects = {name: partial(_run, setting, broker, messages, number) for number, name in names.items()}
    yield Case(f"SCALE {broker.name}", "a handler of 1 ms CPU", subjects, limit=names[1], rounds=ROUNDS)


def _run(setting: Setting, broker: Broker, messages: Sequence[Publication], workers: int) -> Figures:
    with setting.fresh() as folder, broker.empty(PARTITIONS) as place, _running(folder, place, workers):
        fill(place.url, messages[:WARM])
        _handled(folder, WARM)
        begun = time.perf_counter()
        fill(place.url, messages[WARM:])
        _handled(folder, len(messages))
        return {"messages/s": (len(messages) - WARM) / (time.perf_counter() - begun)}


def _handled(folder: Path, count: int) -> None:
    """Wait until so many messages are handled."""
    end = time.monotonic() + PATIENCE
    while (folder / "done").stat().st_size < count:
        if time.monotonic() > end:
            raise SystemExit(f"bench: {(folder / 'done').stat().st_size} of {count} messages were handled")
        time.sleep(0.01)


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
