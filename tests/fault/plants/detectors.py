"""What catches planted bugs: a rig, by seed, or a test of a suite."""

from __future__ import annotations

import re
from collections.abc import Generator, Sequence
from contextlib import redirect_stdout
from dataclasses import dataclass, field, replace
from io import StringIO
from pathlib import Path
from typing import Any

import pytest

from tests.fault.rigs.on_server import ANY
from tests.fault.rigs.runner import rig
from tests.fault.rigs.trial import TrialResult

ALWAYS = ("gap", "cut")
"""Rigs that know nothing but a server."""
FAILED = r": (AssertionError|Failed)\b"
ROOT = Path(__file__).parents[3]
IMPORTED = "ignore::pytest.PytestAssertRewriteWarning"
"""What a rig has imported before is not rewritten, which only makes its assertions less wordy."""
QUIET = ("-q", "-c", str(ROOT / "pyproject.toml"), "-W", IMPORTED, "-p", "no:cacheprovider", "-p", "no:xdist")


@dataclass(frozen=True)
class Rig:
    """A rig: a trial is one of its seeds, whatever it makes of one; `call` names another function of it and its arguments."""

    name: str
    says: str
    seeds: Sequence[int] = range(1, 101)
    slow: bool = False
    call: str = "one_trial"
    arguments: tuple[Any, ...] = ()

    def attempt(self, seed: int) -> list[str]:
        """Make the trial of a seed."""
        found: TrialResult = getattr(rig(self.name), self.call)(seed, *self.arguments)
        return found.violations

    def on_server(self) -> Rig | None:
        """The same rig with a server under it."""
        if self.name in ALWAYS or self.call == "on_server":
            return self
        return replace(self, arguments=(*self.arguments, ANY)) if self.call == "world" else None


def kill(point: str, says: str) -> Rig:
    """The rig `kill` with all of its kills at one fault point."""
    return Rig("kill", says, range(1, 6), slow=True, call="world", arguments=((point,) * 10, 8.0))


@dataclass(frozen=True)
class Suite:
    """Tests by pytest's words for them, run in this process; a failure is told as `test: error: message`."""

    test: str
    says: str = FAILED
    seeds: Sequence[int] = (0,)
    slow: bool = False

    @property
    def name(self) -> str:
        """The test alone."""
        return self.test.rpartition("::")[2]

    def attempt(self, seed: int) -> list[str]:
        """Run the tests. Raises LookupError where there are none."""
        listener = Listener()
        pytest.main([*QUIET, str(ROOT / self.test)], plugins=[listener])
        if not listener.ran:
            raise LookupError(f"{self.test} was not run")
        return listener.failures

    def on_server(self) -> Suite | None:
        """The same promise of the contract, kept by the adapter of a server; a test of that adapter as it is."""
        if "postgres" in self.test:
            return self
        file, found, test = re.sub("Sqlite|Memory", "Postgres", self.test).partition("::")
        moved = Suite(
            re.sub("_(sqlite|memory).py", "_postgres.py", file) + found + test, self.says, self.seeds, self.slow
        )
        return moved if "::TestPostgres" in moved.test else None


def seen_by(test: str) -> Suite:
    """A test on a real server, which takes a while to start."""
    return Suite(test, slow=True)


def warm_up(suites: Sequence[Suite]) -> None:
    """Have the modules of some tests imported, so that a forked process need not."""
    with redirect_stdout(StringIO()):
        pytest.main([*QUIET, "--collect-only", *sorted({str(ROOT / one.test.partition("::")[0]) for one in suites})])


@dataclass
class Listener:
    """Hears what became of each test."""

    ran: int = 0
    failures: list[str] = field(default_factory=list)

    @pytest.hookimpl(wrapper=True)
    def pytest_runtest_makereport(self, item: pytest.Item, call: pytest.CallInfo[None]) -> Generator[None, Any, Any]:
        """Keep the error of a test that failed where it was called, not where it was prepared."""
        report = yield
        if call.when == "call":
            self.ran += not report.skipped
            if report.failed and call.excinfo is not None:
                self.failures.append(f"{item.name}: {call.excinfo.typename}: {call.excinfo.value}")
        return report
