"""That all are equally durable: the settings of each subject's writing connection read back, and its fsyncs counted.

    python -m benchmarks.durability SUBJECT FOLDER

stores some events one by one; `check` runs it under strace and counts. An fdatasync of nothing marks the begin and the end.
"""

from __future__ import annotations

import asyncio
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import apsw
from eventsourcing.persistence import StoredEvent

from . import ours, peer
from .case import Setting
from .names import GROUP, OURS, PEER, RAW
from .raw import tables
from .raw.driver import Driver
from .raw.group import Group
from .sample import order_id

COMMITS = 40
FULL = 2
ROOT = Path(__file__).parents[1]

Found = dict[str, Any]


def check(setting: Setting) -> dict[str, Found]:
    """The settings and the fsyncs a commit of each subject; raises where one is not as durable as the others."""
    found = {subject: _check(setting, subject) for subject in (OURS, PEER, RAW, GROUP)}
    for subject, one in found.items():
        counted = one["fsyncs a commit"]
        if (one["journal_mode"], one["synchronous"]) != ("wal", FULL) or (counted is not None and counted < 1):
            raise SystemExit(f"bench: {subject} is not as durable as the others: {one}")
    return found


def _check(setting: Setting, subject: str) -> Found:
    with setting.fresh() as folder:
        trace = folder / "trace"
        command = [sys.executable, "-m", "benchmarks.durability", subject, str(folder)]
        tracer = shutil.which("strace")
        before = [tracer, "-f", "-qq", "-e", "trace=fsync,fdatasync", "-o", str(trace)] if tracer else []
        environment = os.environ | {"PYTHONPATH": str(ROOT)}
        ran = subprocess.run([*before, *command], capture_output=True, text=True, env=environment, check=False)
        if ran.returncode and before:  # where tracing is not allowed
            return _read_back(command, environment)
        if ran.returncode:
            raise SystemExit(f"bench: {subject} could not be checked: {ran.stderr}")
        counted = _count(trace.read_text()) / COMMITS if before else None
        found: Found = json.loads(ran.stdout)
        return found | {"fsyncs a commit": counted}


def _read_back(command: list[str], environment: dict[str, str]) -> Found:
    ran = subprocess.run(command, capture_output=True, text=True, env=environment, check=True)
    found: Found = json.loads(ran.stdout)
    return found | {"fsyncs a commit": None}


def _count(trace: str) -> int:
    """The syncs between the two that failed; those of a checkpoint would come on top, and there is none in so few."""
    calls = [line for line in trace.splitlines() if "sync(" in line or "sync resumed" in line]
    ends = [place for place, line in enumerate(calls) if "EBADF" in line]
    return sum("unfinished" not in line for line in calls[ends[0] + 1 : ends[1]])


def _mark() -> None:
    try:
        os.fdatasync(10_000)
    except OSError:
        pass


async def _ours(path: Path) -> Found:
    opened: list[apsw.Connection] = []
    apsw.connection_hooks.append(opened.append)
    database = await ours.opened(path)
    apsw.connection_hooks.remove(opened.append)
    writing = [one for one in opened if _is_open(one) and not one.pragma("query_only")]
    settings = [tables.pragmas(one) for one in writing]
    _mark()
    for number in range(COMMITS):
        await ours.commit(database, [ours.new_order(number, 1)])
    _mark()
    await database.close()
    assert settings
    assert all(one == settings[0] for one in settings)
    return settings[0]


def _is_open(connection: apsw.Connection) -> bool:
    try:
        return bool(connection.filename)
    except apsw.ConnectionClosedError:
        return False


async def _peer(path: Path) -> Found:
    app = peer.orders_app(path)
    [template] = peer.stored_order(app, 0, 1)
    found = peer.pragmas(app)
    _mark()
    for number in range(COMMITS):
        event = StoredEvent(order_id(number), 1, template.topic, template.state)
        peer.recorder_of(app).insert_events([event])
    _mark()
    app.close()
    return found


async def _raw(path: Path) -> Found:
    driver = Driver(path)
    _mark()
    for number in range(COMMITS):
        driver.commit([tables.event_row(number, 1)])
    _mark()
    return tables.pragmas(driver.connection)


async def _group(path: Path) -> Found:
    group = Group(path)
    found = tables.pragmas(group.connection)
    _mark()
    for number in range(COMMITS):
        await group.commit([tables.event_row(number, 1)])
    _mark()
    await group.close()
    return found


SUBJECTS: dict[str, Callable[[Path], Any]] = {OURS: _ours, PEER: _peer, RAW: _raw, GROUP: _group}

if __name__ == "__main__":
    print(json.dumps(asyncio.run(SUBJECTS[sys.argv[1]](Path(sys.argv[2]) / "some.db"))))
