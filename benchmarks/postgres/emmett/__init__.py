"""Emmett on its PostgreSQL event store, where Node is there: a small program of ours does one work at a time in it.

What it needs is installed once, as `package-lock.json` names it, into a folder of the user's cache; a pool of as many
connections as it has writers, everything else as it comes.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import subprocess
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

from benchmarks.load import Clockwork, Figures
from benchmarks.names import EMMETT
from benchmarks.sample import EVENTS_AN_ORDER, line_json, order_id

PROGRAM = Path(__file__).parent
FILES = ("package.json", "package-lock.json", "main.mjs", "works.mjs", "load.mjs", "orders.mjs")
SAMPLES = (1, 123_456)
INSTALLATION = 300.0
"""Seconds that an installation may take."""
PATIENCE = 300.0
"""Seconds that a work may take; filling a log takes the longest."""


class Missing(Exception):
    """There is no Emmett; the text says why."""


@dataclass(frozen=True)
class Emmett:
    """The program, installed: `run` does a work over a database."""

    node: str
    folder: Path

    def run(self, work: str, url: str, writers: int = 1, **asked: object) -> dict[str, Any]:
        """What it answers; raises where it fails, or makes other events than the rest."""
        samples = [(number, line_json(str(order_id(number)), number).decode()) for number in SAMPLES]
        task = json.dumps({"work": work, "url": url, "writers": writers, "samples": samples} | asked)
        command = [self.node, "main.mjs"]
        try:
            ran = subprocess.run(
                command, input=task, capture_output=True, text=True, cwd=self.folder, timeout=PATIENCE, check=False
            )
        except subprocess.TimeoutExpired:
            raise SystemExit(f"bench: {EMMETT} was not done with {work} after {PATIENCE:.0f} s") from None
        if ran.returncode:
            raise SystemExit(f"bench: {EMMETT} failed at {work}: {ran.stderr.strip()[-1_000:]}")
        answer: dict[str, Any] = json.loads(ran.stdout)
        return answer

    def load(self, work: str, url: str, writers: int, seconds: float, **asked: object) -> dict[str, Any]:
        """The same by closed loops of writers; it counts when its code has been compiled, which takes V8 some time."""
        return self.run(work, url, writers, seconds=seconds, warm=max(seconds, 0.5), **asked)

    def fill(self, url: str, orders: int) -> None:
        """Store orders."""
        self.run("fill", url, orders=orders, events=EVENTS_AN_ORDER)

    def versions(self) -> dict[str, str]:
        """Of itself, of the driver below it, and of Node."""
        packages = json.loads((self.folder / "package.json").read_text())["dependencies"]
        said = subprocess.run([self.node, "--version"], capture_output=True, text=True, check=True).stdout
        return {EMMETT: packages["@event-driven-io/emmett-postgresql"], "pg": packages["pg"], "Node": said.strip()}


def figures_of(answer: dict[str, Any], unit: str) -> Figures:
    """The figures of an answer to `load`, as of all subjects."""
    done = Clockwork(0)
    done.took = [ms / 1e3 for ms in answer["took"]]
    done.last = done.begun + answer["seconds"]
    done.cpu = answer["cpu"] / 1e6
    return done.figures(unit)


def subject(measure: Callable[[Emmett], Figures]) -> dict[str, Callable[[], Figures]]:
    """It as one more subject, measured so; none where it is missing."""
    emmett = found()
    return {} if emmett is None else {EMMETT: lambda: measure(emmett)}


@cache
def found() -> Emmett | None:
    """The program, installed if need be; where that cannot be, none, and a line says why."""
    try:
        return install()
    except Missing as error:
        print(f"{EMMETT} is left out: {error}")
        return None


def install() -> Emmett:
    """Install it, unless it is there. Raises Missing."""
    node, npm = shutil.which("node"), shutil.which("npm")
    if node is None or npm is None:
        raise Missing("node and npm are not both on PATH; install Node 20 or newer to have it beside the others")
    contents = b"\0".join((PROGRAM / name).read_bytes() for name in FILES)
    place = _cache() / f"emmett-{hashlib.sha256(contents).hexdigest()[:16]}"
    if not place.exists():
        _make(npm, place)
    return Emmett(node, place)


def _make(npm: str, place: Path) -> None:
    """Make the folder beside its place, and move it there whole: of several that do, one is the first."""
    place.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=f"{place.name}-", dir=place.parent) as name:
        folder = Path(name) / "made"
        folder.mkdir()
        for file in FILES:
            shutil.copy(PROGRAM / file, folder)
        _install(npm, folder)
        try:
            folder.rename(place)
        except OSError:
            if not place.exists():
                raise


def _install(npm: str, folder: Path) -> None:
    command = [npm, "ci", "--ignore-scripts", "--no-audit", "--no-fund", "--loglevel=error"]
    try:
        ran = subprocess.run(command, capture_output=True, text=True, cwd=folder, timeout=INSTALLATION, check=False)
    except subprocess.TimeoutExpired:
        raise Missing(f"`npm ci` took longer than {INSTALLATION:.0f} s") from None
    if ran.returncode:
        raise Missing(f"`npm ci` failed: {' '.join(ran.stderr.split())[:200]}")


def _cache() -> Path:
    given = os.environ.get("XDG_CACHE_HOME")
    return (Path(given) if given else Path.home() / ".cache") / "headwater-bench"
