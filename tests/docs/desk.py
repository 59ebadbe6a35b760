"""The services of a page and the bank of the README in a folder, and a shell there."""

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

from tests.docs.page import ROOT, files, write


def commands(page: str) -> list[str]:
    """The commands of Headwater that a page shows, in order."""
    return re.findall(r"^headwater (.+)$", (ROOT / page).read_text(encoding="utf-8"), re.MULTILINE)


class Desk:
    """Where the commands of a page are given, with a channel's URL in the environment."""

    def __init__(self, folder: Path, page: str, channel: str) -> None:
        self.folder = write(files(page) | {"bank.py": files("README.md")["bank.py"]}, folder)
        self.environment = os.environ | {"HEADWATER_CHANNEL": channel}

    def headwater(self, *words: str) -> subprocess.Popen[str]:
        """Start a command."""
        return subprocess.Popen(
            [sys.executable, "-m", "headwater", *words],
            cwd=self.folder,
            env=self.environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )

    def done(self, command: str, *, code: int = 0) -> str:
        """What a command says; it ends with that code."""
        with self.headwater(*command.split()) as process:
            out, said = process.communicate(timeout=30)
        assert process.returncode == code, f"{command}: {out}{said}"
        return out

    def withdraw(self, cents: int) -> None:
        """Take so much from the account a1."""
        self.done(f'command send --app bank:app Withdraw {{"account_id":"a1","cents":{cents}}}')

    def hears_of_a_withdrawal(self, bank: str, audit: str) -> str:
        """What the audit says of the first withdrawal from an account, both services running."""
        with self.running(audit) as hearing, self.running(bank):
            self.done('command send --app bank:app OpenAccount {"account_id":"a1","owner":"Ada"}')
            self.done('command send --app bank:app Deposit {"account_id":"a1","cents":500}')
            self.withdraw(120)
            assert hearing.stdout is not None
            return hearing.stdout.readline()

    def until(self, consumers: str, behind: int, *seconds: float | None) -> None:
        """Until the handler is behind by so many messages, and where it is said, seconds."""
        end = time.monotonic() + 20
        while True:
            states = json.loads(self.done(f"{consumers} --json"))["consumers"]
            [seen] = [one for one in states if one["name"] == "audit.large"]
            if seen["behind"] == behind and seconds in ((), (seen["seconds"],)):
                return
            assert time.monotonic() < end, f"{seen}, not {behind} messages"

    @contextmanager
    def running(self, command: str) -> Iterator[subprocess.Popen[str]]:
        """A service that runs meanwhile."""
        with self.headwater(*command.split()) as service:
            try:
                yield service
            finally:
                service.send_signal(signal.SIGTERM)
                service.communicate(timeout=20)
