"""What figures were taken on: the machine, the versions and the commit."""

from __future__ import annotations

import platform
import subprocess
from collections.abc import Sequence
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import Any

import apsw

STORES = ("eventsourcing", "apsw", "psycopg")
BROKERS = ("faststream", "confluent-kafka", "aiokafka", "aio-pika", "psycopg", "asyncpg")


def about(command: Sequence[str], beside: Sequence[str] = STORES) -> dict[str, Any]:
    """When, by which command, from which commit, on what, `beside` which packages."""
    return {
        "time": datetime.now(UTC).isoformat(timespec="seconds"),
        "command": list(command),
        "commit": _commit(),
        "machine": {"system": platform.platform(), "cpu": _cpu(), "python": platform.python_version()},
        "versions": {name: version(name) for name in ("headwater", "msgspec", *beside)}
        | {"sqlite": apsw.sqlite_lib_version()},
    }


def _cpu() -> str:
    lines = Path("/proc/cpuinfo").read_text().split("\n")
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return f"{len(names)} x {names[0]}" if names else platform.processor()


def _commit() -> str:
    """The commit, with a plus where files differ from it."""
    place = str(Path(__file__).parent)
    asked = ["git", "-C", place, "describe", "--always", "--exclude=*", "--dirty=+"]
    return subprocess.run(asked, capture_output=True, text=True, check=False).stdout.strip()
