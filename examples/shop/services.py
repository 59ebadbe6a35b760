"""The four services as processes, each of which can be killed and started again at any time."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from datetime import datetime
from pathlib import Path

from headwater import HeadwaterError

from .folder import Folder, replace
from .routes import SERVICES

ROOT = Path(__file__).parents[__name__.count(".")]
MODULE = f"{__package__}.service"
GENTLY = 15.0
YOUNG = 3.0
FALLS = 3
TAIL = 20_000


class Broken(HeadwaterError):
    """A service ends by itself whenever it is started."""


class Services:
    """Starts, kills and stops the services of one folder; `environment` is added to theirs.

    A part of a service, say `orders.customers`, that is named in `apart` runs in a process of its own.
    """

    def __init__(self, folder: Folder, environment: Mapping[str, str], apart: Sequence[str] = ()) -> None:
        self.folder = folder
        self.environment = environment
        self.apart = apart
        self.kills = 0
        self._silence, self._end_of_silence = os.pipe()  # the services end when the second is closed
        self._running: dict[str, subprocess.Popen[bytes]] = {}
        self._started: dict[str, float] = {}
        self._falls: dict[str, int] = {}

    def start_all(self) -> None:
        """Start all, once what an earlier driver may have left running is gone."""
        self._end_leftovers()
        for service in (*SERVICES, *self.apart):
            self.start(service)

    def start(self, service: str) -> None:
        name, _, part = service.partition(".")
        left = [one.removeprefix(f"{name}.") for one in self.apart if one.startswith(f"{name}.")]
        parts = ["--only", part] if part else [word for one in left for word in ("--without", one)]
        with (self.folder.logs / f"{service}.log").open("ab") as log:
            self._running[service] = subprocess.Popen(
                [sys.executable, "-m", MODULE, name, str(self.folder.path), *parts],
                cwd=self.folder.path,
                env=self._environment(name),
                stdin=self._silence,
                stdout=log,
                stderr=log,
                start_new_session=True,  # Ctrl-C is for the driver, which stops them in order
            )
        self._started[service] = time.monotonic()
        replace(self.folder.pids, json.dumps(self.pids()))

    def kill(self, service: str) -> None:
        """`kill -9`, and count it."""
        process = self._running.pop(service)
        if process.poll() is None:
            process.kill()
            self.kills += 1
        process.wait()

    def hold(self, service: str) -> None:
        """Stop one gently, and leave it down until it is started."""
        process = self._running.pop(service)
        process.terminate()
        _wait(process)

    def stop_all(self) -> None:
        """Stop all gently, for good."""
        for process in self._running.values():
            process.terminate()
        for process in self._running.values():
            _wait(process)
        self._running = {}
        self.folder.pids.unlink(missing_ok=True)

    def pids(self) -> dict[str, int]:
        return {service: process.pid for service, process in self._running.items()}

    def up(self) -> dict[str, bool]:
        """Which services run."""
        running = {service: self._running.get(service) for service in SERVICES}
        return {service: process is not None and process.poll() is None for service, process in running.items()}

    def restart_fallen(self) -> list[str]:
        """Start those again that ended by themselves; a note about each. Raises Broken where that is no use."""
        notes = []
        for service, process in list(self._running.items()):
            code = process.poll()
            if code is not None:
                self._count_fall(service, code)
                notes.append(f"{service} ended by itself with {code}; started again")
                self.start(service)
        return notes

    def complaints(self, since: float = 0.0) -> dict[str, str]:
        """The last complaint in the log of each service that has one, made after a time in seconds since 1970."""
        found = {service: self._complaint(service, since) for service in SERVICES}
        return {service: words for service, words in found.items() if words}

    def _complaint(self, service: str, since: float) -> str:
        path = self.folder.logs / f"{service}.log"
        if not path.exists():
            return ""
        with path.open("rb") as log:
            log.seek(-min(log.seek(0, os.SEEK_END), TAIL), os.SEEK_END)
            lines = log.read().decode(errors="replace").splitlines()
        return next(filter(None, (complaint(line, since) for line in reversed(lines))), "")

    def _count_fall(self, service: str, code: int) -> None:
        young = time.monotonic() - self._started[service] < YOUNG
        self._falls[service] = self._falls.get(service, 0) + 1 if young else 1
        if self._falls[service] >= FALLS:
            raise Broken(f"{service} cannot run, it ended with {code} {FALLS} times: {self._complaint(service, 0)}")

    def _environment(self, service: str) -> dict[str, str]:
        found = {**os.environ, **self.environment, **self.folder.environment(service)}
        for name in ("HEADWATER_STORE_FILE", "HEADWATER_CHANNEL_FILE"):
            found.pop(name, None)
        found["PYTHONPATH"] = os.pathsep.join(filter(None, (str(ROOT), found.get("PYTHONPATH"))))
        return found

    def _end_leftovers(self) -> None:
        try:
            recorded: dict[str, int] = json.loads(self.folder.pids.read_text())
        except (OSError, ValueError):
            return
        for pid in recorded.values():
            while _is_ours(pid, self.folder.path):
                os.kill(pid, signal.SIGKILL)
                time.sleep(0.05)


def _wait(process: subprocess.Popen[bytes]) -> None:
    """Until a process that was told to end has ended; not for ever."""
    try:
        process.wait(GENTLY)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()


def complaint(line: str, since: float) -> str:
    """What a line of a log complains of: the words of a process that ended, or the cause in a line of JSON."""
    if line.startswith("error: "):
        return line.removeprefix("error: ")
    try:
        found = json.loads(line)
        late = datetime.fromisoformat(found["time"]).timestamp() >= since
        return str(found.get("cause", "")) if late and found["level"] == "error" else ""
    except (ValueError, TypeError, KeyError):
        return ""


def _is_ours(pid: int, folder: Path) -> bool:
    """Whether a process is a service of this folder, and not another that has got its number since."""
    words = _command_line(pid)
    return MODULE in words and str(folder) in words


def _command_line(pid: int) -> str:
    if Path("/proc/self/cmdline").exists():
        try:
            return Path(f"/proc/{pid}/cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace")
        except OSError:
            return ""
    ask = ["ps", "-ww", "-o", "args=", "-p", str(pid)]
    return subprocess.run(ask, capture_output=True, text=True, check=False).stdout
