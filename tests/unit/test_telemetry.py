"""Signals: all that are given are listed, and who asks for no log gets none."""

from __future__ import annotations

import json
import logging
import re
import subprocess
import sys
from pathlib import Path

import pytest

import headwater
from headwater import telemetry

GIVEN = re.compile(r"""\b(?:signal|say)\(\s*"([a-z_]+\.[a-z_]+)\"""")
LISTED = re.compile(r"[a-z_]+\.[a-z_]+")


def test_the_list_of_signals_is_whole() -> None:
    sources = Path(headwater.__file__).parent.rglob("*.py")
    given = {name for source in sources for name in GIVEN.findall(source.read_text(encoding="utf-8"))}
    listed = (telemetry.__doc__ or "").partition("Signals:")[2]
    assert set(LISTED.findall(listed)) == given


def said(*lines: str) -> str:
    """What a process says on stderr that gives a signal."""
    source = [
        "import logging, sys",
        "from headwater.telemetry import log_json, signal",
        *lines,
        "signal('kafka.client', logging.WARNING, kind='FAIL')",
    ]
    words = [sys.executable, "-c", "\n".join(source)]
    return subprocess.run(words, capture_output=True, text=True, check=True).stderr


def test_who_asks_for_no_log_gets_none() -> None:
    assert said() == ""


def test_who_asks_for_one_gets_lines_of_json() -> None:
    line = json.loads(said("log_json(sys.stderr)"))
    assert {name: line[name] for name in ("level", "event", "kind")} == {
        "level": "warning",
        "event": "kafka.client",
        "kind": "FAIL",
    }


def test_a_log_of_ones_own_gets_them_too(caplog: pytest.LogCaptureFixture) -> None:
    assert said("logging.basicConfig(format='%(name)s %(message)s')") == "headwater kafka.client\n"
    telemetry.signal("app.started", logging.WARNING, service="bank")
    [record] = caplog.records
    assert record.__dict__["fields"] == {"service": "bank"}
