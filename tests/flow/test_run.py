"""`headwater run` as a process: it starts, works, and ends as it is told; alone and with workers."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

SERVICE = """
import os, signal, time
from headwater import Aggregate, App, Command, Event, decide

class Say(Command):
    text: str

class Said(Event):
    text: str

class Speaker(Aggregate, key="text"):
    @decide
    def say(self, command: Say) -> Said:
        return Said(command.text)

app = App("talk")
app.add(Speaker)

@app.on(Said)
def hear(event: Said) -> None:
    print("heard", event.text)
    if event.text == "stuck":
        time.sleep(3600)
"""


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "talk.py").write_text(SERVICE, encoding="utf-8")
    return tmp_path


@contextmanager
def running(folder: Path, *options: str) -> Iterator[subprocess.Popen[str]]:
    """`headwater run`, in a process group of its own, which is ended whatever happens."""
    with (folder / "log").open("w") as log:
        process = subprocess.Popen(
            [sys.executable, "-m", "headwater", "run", "talk:app", *options],
            cwd=folder,
            stdout=subprocess.PIPE,
            stderr=log,
            text=True,
            env={name: value for name, value in os.environ.items() if not name.startswith("HEADWATER_")},
        )
        try:
            yield process
        finally:
            process.kill()
            process.communicate()
            for pid in pids(folder):
                end(pid)


def end(pid: int) -> None:
    try:
        os.kill(pid, signal.SIGKILL)
    except ProcessLookupError:
        return


def lines(folder: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (folder / "log").read_text().splitlines()]


def events(folder: Path) -> list[str]:
    return [line["event"] for line in lines(folder)]


def pids(folder: Path) -> list[int]:
    return [line["pid"] for line in lines(folder) if line["event"] == "worker.started"]


def until(true: Callable[[], bool], seconds: float = 20.0) -> None:
    deadline = time.monotonic() + seconds
    while not true():
        assert time.monotonic() < deadline, "it did not come to be in time"
        time.sleep(0.02)


def send(folder: Path, text: str) -> None:
    command = [sys.executable, "-m", "headwater", "command", "send", "talk:app", "Say", json.dumps({"text": text})]
    assert subprocess.run(command, cwd=folder, capture_output=True, timeout=50, check=False).returncode == 0


def alive(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_it_works_until_it_is_told_to_stop(folder: Path, number: signal.Signals) -> None:
    with running(folder) as process:
        until(lambda: "app.started" in events(folder))
        send(folder, "hello")
        assert process.stdout is not None
        assert process.stdout.readline() == "heard hello\n"
        process.send_signal(number)
        assert process.wait(15) == 0
    assert events(folder)[-1] == "app.stopped"


def test_a_second_signal_ends_it_at_once(folder: Path) -> None:
    with running(folder) as process:
        until(lambda: "app.started" in events(folder))
        send(folder, "stuck")
        assert process.stdout is not None
        assert process.stdout.readline() == "heard stuck\n"
        process.send_signal(signal.SIGINT)
        time.sleep(0.3)
        assert process.poll() is None
        process.send_signal(signal.SIGINT)
        assert process.wait(8) == 130


def test_a_handler_that_never_returns_is_left_after_the_grace_time(folder: Path) -> None:
    with running(folder) as process:
        until(lambda: "app.started" in events(folder))
        send(folder, "stuck")
        assert process.stdout is not None
        assert process.stdout.readline() == "heard stuck\n"
        began = time.monotonic()
        process.send_signal(signal.SIGTERM)
        assert process.wait(20) == 0
        assert time.monotonic() - began > 9


def test_a_worker_that_dies_is_started_again_and_all_end_with_a_signal(folder: Path) -> None:
    with running(folder, "--workers", "2") as process:
        until(lambda: events(folder).count("app.started") == 2)
        os.kill(pids(folder)[0], signal.SIGKILL)
        until(lambda: events(folder).count("app.started") == 3)
        [ended] = [line for line in lines(folder) if line["event"] == "worker.ended"]
        assert (ended["worker"], ended["code"]) == (1, -signal.SIGKILL)
        send(folder, "hello")
        assert process.stdout is not None
        assert process.stdout.readline() == "heard hello\n"
        process.send_signal(signal.SIGTERM)
        assert process.wait(15) == 0
        assert not any(alive(pid) for pid in pids(folder))


def test_workers_end_when_their_parent_is_killed(folder: Path) -> None:
    with running(folder, "--workers", "2") as process:
        until(lambda: events(folder).count("app.started") == 2)
        process.kill()
        until(lambda: not any(alive(pid) for pid in pids(folder)))
    assert events(folder).count("app.stopped") == 2


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (("--store", "sqlite:////nowhere/a.db"), "the folder /nowhere does not exist"),
        (("--store", "sqlite:////nowhere/a.db", "--workers", "3"), "the folder /nowhere does not exist"),
        (("--channel", "sqlite:////nowhere/c.db", "--workers", "3"), "the folder /nowhere does not exist"),
        (("--store", "memory://", "--workers", "2"), "leave out --workers"),
        (("--only", "nothing"), "has no part 'nothing'"),
        (("--only", "nothing", "--workers", "3"), "has no part 'nothing'"),
    ],
)
def test_what_cannot_run_says_so_once(folder: Path, options: tuple[str, ...], said: str) -> None:
    with running(folder, *options) as process:
        assert process.wait(20) == 3
        written = (folder / "log").read_text()
        (folder / "log").write_text("")
    [line] = [line for line in written.splitlines() if not line.startswith("{")]
    assert line.startswith("error: ")
    assert said in line


def test_an_interrupted_tail_ends_with_130(folder: Path) -> None:
    send(folder, "one")
    command = [sys.executable, "-m", "headwater", "events", "tail", "--store", "sqlite:///talk.db", "--after", "0"]
    with subprocess.Popen(command, cwd=folder, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        assert "talk.Speaker/one @1" in process.stdout.readline()
        process.send_signal(signal.SIGINT)
        out, err = process.communicate(timeout=10)
    assert (process.returncode, out, err.strip()) == (130, "", "interrupted")
