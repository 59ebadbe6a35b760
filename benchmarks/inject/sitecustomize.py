"""Put on the path of the shop's processes: times every wait for a file's lock, and writes the times down."""

import json
import os
import time
from pathlib import Path

waits: list[tuple[float, float]] = []
folder = os.environ.get("HEADWATER_BENCH_WAITS")
TOGETHER = 50


def _watch(file: Path) -> None:
    from headwater.adapters.sqlite.lock import FileLock  # noqa: PLC0415 - only where it is asked for

    take = FileLock.take

    def timed(lock: FileLock, *, wait: bool = False) -> bool:
        begun = time.perf_counter()
        if not take(lock, wait=wait):
            return False
        waits.append((time.time(), time.perf_counter() - begun))
        if len(waits) >= TOGETHER:
            with file.open("a") as out:
                out.write("".join(f"{json.dumps(wait)}\n" for wait in waits))
            waits.clear()
        return True

    FileLock.take = timed  # type: ignore[method-assign, assignment]


if folder:
    _watch(Path(folder) / f"waits-{os.getpid()}.jsonl")
