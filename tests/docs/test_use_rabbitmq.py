"""The commands of the page on RabbitMQ, on a real server: two services, and what the first states is heard by the second."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from headwater.adapters.rabbitmq.url import ChannelOptions
from tests.docs.page import ROOT, files, write
from tests.servers.rabbitmq import Vhosts

PAGE = "docs/how-to/use-rabbitmq.md"
TEXT = (ROOT / PAGE).read_text(encoding="utf-8")
COMMANDS = re.findall(r"^headwater (.+)$", TEXT, re.MULTILINE)


class Desk:
    """A folder with both services, and a shell in it."""

    def __init__(self, folder: Path, url: str) -> None:
        self.folder = write(files(PAGE) | {"bank.py": files("README.md")["bank.py"]}, folder)
        self.environment = os.environ | {"HEADWATER_CHANNEL": url}

    def headwater(self, *words: str) -> subprocess.Popen[str]:
        return subprocess.Popen(
            [sys.executable, "-m", "headwater", *words],
            cwd=self.folder,
            env=self.environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )

    def done(self, command: str, *, code: int = 0) -> str:
        with self.headwater(*command.split()) as process:
            out, said = process.communicate(timeout=30)
        assert process.returncode == code, f"{command}: {out}{said}"
        return out

    def until(self, consumers: str, wanted: tuple[int, float | None]) -> None:
        """Until the handler is behind by so many messages and seconds."""
        end = time.monotonic() + 20
        while True:
            states = json.loads(self.done(f"{consumers} --json"))["consumers"]
            seen = next((one["behind"], one["seconds"]) for one in states if one["name"] == "audit.large")
            if seen == wanted:
                return
            assert time.monotonic() < end, f"{seen}, not {wanted}"

    @contextmanager
    def running(self, command: str) -> Iterator[subprocess.Popen[str]]:
        with self.headwater(*command.split()) as service:
            try:
                yield service
            finally:
                service.send_signal(signal.SIGTERM)
                service.communicate(timeout=20)


def test_the_commands_of_the_page_do_what_it_says(rabbitmq: Vhosts, tmp_path: Path) -> None:
    desk = Desk(tmp_path, rabbitmq.make())
    plan, apply_bank, apply_audit, run_bank, run_audit, consumers = COMMANDS
    assert "missing" in desk.done(plan, code=7)
    assert "made bank.Account" in desk.done(apply_bank)
    assert "made bank.Account/audit/3-of-4" in desk.done(apply_audit)
    assert "nothing is missing" in desk.done(plan)
    assert "nothing was missing" in desk.done(apply_audit)
    with desk.running(run_audit) as audit, desk.running(run_bank):
        desk.done('command send --app bank:app OpenAccount {"account_id":"a1","owner":"Ada"}')
        desk.done('command send --app bank:app Deposit {"account_id":"a1","cents":500}')
        desk.done('command send --app bank:app Withdraw {"account_id":"a1","cents":120}')
        assert audit.stdout is not None
        assert audit.stdout.readline() == "a1: 120\n"
    desk.until(consumers, (0, 0.0))
    with desk.running(run_bank):
        desk.done('command send --app bank:app Withdraw {"account_id":"a1","cents":7}')
        desk.until(consumers, (1, None))


def test_the_table_of_options_is_whole() -> None:
    rows = re.search(r"\| option \|.*?\n\n", TEXT, re.DOTALL)
    assert rows is not None
    named = set(re.findall(r"`(\w+)(?:=[\w.]+)?`", "\n".join(re.findall(r"^\| (`[^|]+) \|", rows[0], re.MULTILINE))))
    assert named == set(ChannelOptions.__struct_fields__)


@pytest.mark.parametrize("option", ["partitions", "prefetch", "timeout", "heartbeat"])
def test_the_defaults_it_says_are_those_there_are(option: str) -> None:
    [default] = re.findall(rf"^\| `{option}=[^|]*\|[^|]*\| (\d+) \|$", TEXT, re.MULTILINE)
    assert float(default) == (getattr(ChannelOptions(), option) or 4)
