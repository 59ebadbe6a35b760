"""`power`: the power is cut while commits are acknowledged; the files are opened again as the disk then has them.

One seed records one run of the real adapter, of a database or of a channel, and cuts it at many places; a trial is one
image that lacks something of what was written. To see that the rig sees: `mock.patch.dict(PRAGMAS, synchronous=1)`.
"""

from __future__ import annotations

import asyncio
import random
import shutil
import tempfile
from collections.abc import Callable, Coroutine, Sequence
from pathlib import Path
from typing import Any
from unittest import mock

from headwater.adapters.sqlite.file import PRAGMAS
from tests.fault.rigs.disk_model import MODES, Disk, Trace, recording
from tests.fault.rigs.power_channel import check_channel, use_channel
from tests.fault.rigs.power_database import check_database, use_database
from tests.fault.rigs.trial import TrialResult

COUNT = 2_000
CUTS = 25
CHECKPOINTS = (15, 50, 200)
"""Pages of the WAL after which it is written back: seldom in a short run, unless it is told to do so earlier."""

Use = Callable[[Path, random.Random, Trace], Coroutine[Any, Any, None]]
Check = Callable[[Path, Sequence[Any]], Coroutine[Any, Any, list[str]]]


def one_trial(seed: int) -> TrialResult:
    """Record one run, cut it at many places, and look at each image."""
    chance = random.Random(seed)
    use, check = ((use_database, check_database), (use_channel, check_channel))[seed % 2]
    with tempfile.TemporaryDirectory(prefix="headwater-power-", dir=_fast()) as place:
        trace = _record(use, Path(place), chance)
        images, violations = _cut(trace, check, Path(place) / "image", chance)
    return TrialResult(images > 0, violations, images)


def _fast() -> str | None:
    return "/dev/shm" if Path("/dev/shm").is_dir() else None


def _record(use: Use, place: Path, chance: random.Random) -> Trace:
    folder = place / "recorded"
    folder.mkdir()
    with mock.patch.dict(PRAGMAS, wal_autocheckpoint=chance.choice(CHECKPOINTS)), recording() as trace:
        asyncio.run(use(folder / "a.db", chance, trace))
    return trace


def _cut(trace: Trace, check: Check, image: Path, chance: random.Random) -> tuple[int, list[str]]:
    """How many images were looked at, and what was wrong in them."""
    start = next(index for index, op in enumerate(trace.ops) if op.kind == "mark")
    disk, done, images = Disk(), 0, 0
    violations: list[str] = []
    for cut in sorted(chance.sample(range(start + 1, len(trace.ops)), min(CUTS, len(trace.ops) - start - 1))):
        disk.advance(trace.ops[done:cut])
        done = cut
        for mode in MODES:
            files, harmed = disk.image(mode, chance)
            if harmed:
                images += 1
                _lay_down(image, files)
                found = asyncio.run(_look(check, image / "a.db", disk.marks))
                violations += [f"cut after {cut} of {len(trace.ops)} steps, {mode}: {one}" for one in found]
    return images, violations


async def _look(check: Check, path: Path, marks: Sequence[Any]) -> list[str]:
    try:
        return await check(path, marks)
    except Exception as error:  # noqa: BLE001 - what cannot be opened or read is a violation
        return [f"{type(error).__name__}: {error}"]


def _lay_down(image: Path, files: dict[str, bytes]) -> None:
    shutil.rmtree(image, ignore_errors=True)
    image.mkdir()
    for name, content in files.items():
        (image / name).write_bytes(content)
