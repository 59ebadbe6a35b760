"""One process of a service of the `pause` rig; it ends with its standard input.

python -m tests.fault.rigs.pause_member SERVICE FOLDER TTL MEMBER
"""

from __future__ import annotations

import asyncio
import functools
import logging
import os
import sys
from pathlib import Path
from threading import Thread
from typing import Any

from headwater.app import open_channel, open_database
from headwater.telemetry import log_json
from tests.fault.rigs.pair import Pair


async def serve(service: str, folder: Path, ttl: float, member: str) -> None:
    """Run one member with leases that live so many seconds."""
    pair = Pair(folder)
    app = pair.desk() if service == "desk" else pair.mirror()
    database: Any = open_database(pair.ground.url(service), app.clock)
    await database.open()
    database.acquire = functools.partial(database.acquire, ttl=ttl)
    await app.connect(database, open_channel(pair.ground.url("channel"), app.clock))
    await app.start(member)
    print("ready", flush=True)
    await asyncio.Event().wait()


def end_with_parent() -> None:
    """Wait for the end of the standard input."""
    os.read(sys.stdin.fileno(), 1)
    os._exit(0)


if __name__ == "__main__":
    Thread(target=end_with_parent, daemon=True).start()
    log_json(sys.stderr, logging.WARNING)
    asyncio.run(serve(sys.argv[1], Path(sys.argv[2]), float(sys.argv[3]), sys.argv[4]))
