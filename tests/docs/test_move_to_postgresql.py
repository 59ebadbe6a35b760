"""The commands of the page on PostgreSQL, on a real server, with the bank of the README as the service."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

from tests.docs.page import ROOT, files
from tests.servers.postgres import Databases
from tests.servers.postgres import run as asked

PAGE = ROOT / "docs" / "how-to" / "move-to-postgresql.md"
COMMANDS = re.findall(r"^headwater (.+)$", PAGE.read_text(encoding="utf-8"), re.MULTILINE)
BANK = files("README.md")["bank.py"]

STATEMENT = "SELECT account_id, withdrawn_cents FROM statement"


def test_the_commands_of_the_page_do_what_it_says(postgres: Databases, tmp_path: Path) -> None:
    (tmp_path / "bank.py").write_text(BANK, encoding="utf-8")
    url = postgres.make()
    environment = os.environ | {"HEADWATER_STORE": url, "HEADWATER_CHANNEL": url}

    def headwater(command: str) -> subprocess.Popen[str]:
        words = [url if word == '"$HEADWATER_STORE"' else word for word in command.split()]
        return subprocess.Popen(
            [sys.executable, "-m", "headwater", *words],
            cwd=tmp_path,
            env=environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )

    def done(command: str) -> str:
        with headwater(command) as process:
            out, said = process.communicate(timeout=30)
        assert process.returncode == 0, said
        return out

    assert [command.split()[:2] for command in COMMANDS] == [
        ["db", "init"],
        ["run", "bank:app"],
        ["db", "sql"],
        ["db", "status"],
        ["db", "upgrade"],
    ]
    init, run, sql, status, upgrade = COMMANDS
    assert "is made" in done(init)
    with headwater(run) as service:
        try:
            done('command send bank:app OpenAccount {"account_id":"a1","owner":"Ada"}')
            done('command send bank:app Deposit {"account_id":"a1","cents":500}')
            done('command send bank:app Withdraw {"account_id":"a1","cents":120}')
            end = time.monotonic() + 20
            while asked(url, STATEMENT) != [("a1", 120)] and time.monotonic() < end:
                time.sleep(0.1)
            assert asked(url, STATEMENT) == [("a1", 120)]
        finally:
            service.send_signal(signal.SIGTERM)
            service.communicate(timeout=20)
    assert "CREATE TABLE" in done(sql)
    assert "version" in done(status)
    assert "nothing to do" in done(upgrade)
