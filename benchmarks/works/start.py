"""M6: importing, starting, and the memory of a consumer that waits; each in a process of its own."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator
from functools import partial

from benchmarks.case import Case, Setting
from benchmarks.load import Figures
from benchmarks.names import OURS, PEER

IMPORT = """
import time; begun = time.perf_counter()
{}
elapsed = time.perf_counter() - begun
"""
IDLE = """
import asyncio, sys, time
import headwater
class Happened(headwater.Event, service="other", category="Thing"):
    thing: str
async def main():
    app = headwater.App("idle", store=f"sqlite:///{sys.argv[1]}/idle.db", channel=f"sqlite:///{sys.argv[1]}/channel.db")
    @app.on(Happened)
    async def take(event: Happened) -> None: ...
    async with app:
        ready = time.perf_counter() - begun
        cpu = time.process_time()
        await asyncio.sleep(1)
        used = time.process_time() - cpu
        return ready, used
elapsed, used = asyncio.run(main())
"""
TELL = """
import json
status = dict(line.split(":", 1) for line in open("/proc/self/status") if ":" in line)
print(json.dumps([elapsed * 1e3, int(status["VmRSS"].split()[0]) / 1024, globals().get("used", 0) * 1e3]))
"""


def starts(setting: Setting) -> Iterator[Case]:
    imports = {
        OURS: partial(_import, "import headwater; from headwater.adapters.sqlite import SqliteDatabase"),
        PEER: partial(_import, "import eventsourcing.application, eventsourcing.sqlite"),
    }
    yield Case("M6", "import", imports, PEER)
    yield Case("M6", "an idle consumer on SQLite, import included", {OURS: partial(_idle, setting)})


def _import(statement: str) -> Figures:
    elapsed, memory, _ = _tell(IMPORT.format(statement))
    return {"ms": elapsed, "MB": memory}


def _idle(setting: Setting) -> Figures:
    with setting.fresh() as folder:
        elapsed, memory, used = _tell("import time; begun = time.perf_counter()" + IDLE, str(folder))
    return {"ms to ready": elapsed, "MB": memory, "ms CPU a second": used}


def _tell(code: str, *arguments: str) -> list[float]:
    ran = subprocess.run([sys.executable, "-c", code + TELL, *arguments], capture_output=True, text=True, check=True)
    found: list[float] = json.loads(ran.stdout)
    return found
