"""Looks at the checkpoint of a read model, again and again; at the end says when it saw which position.

    python -m benchmarks.watch DATABASE CONSUMER

Standard input gives, when it ends, the position up to which it looks.
"""

from __future__ import annotations

import json
import select
import sys
import time

import apsw

PAUSE = 0.000_2
PATIENCE = 20.0
CHECKPOINT = "SELECT position FROM checkpoints WHERE name = ?"


def watch(path: str, consumer: str) -> list[tuple[float, int]]:
    connection = apsw.Connection(path, flags=apsw.SQLITE_OPEN_READWRITE)
    connection.pragma("query_only", 1)
    seen: list[tuple[float, int]] = []
    version, last, until, end = -1, 0, 2**62, float("inf")
    while last < until and time.monotonic() < end:
        now = connection.pragma("data_version")
        if now == version:
            time.sleep(PAUSE)
            if until == 2**62 and select.select([sys.stdin], [], [], 0)[0]:
                until, end = int(sys.stdin.read()), time.monotonic() + PATIENCE
            continue
        version = now
        for (position,) in connection.execute(CHECKPOINT, (consumer,)):
            if position > last:
                last = position
                seen.append((time.time(), position))
    return seen


if __name__ == "__main__":
    print(json.dumps(watch(sys.argv[1], sys.argv[2])))
