"""In CI a skipped test is a failure: what was not run was not shown. And the real servers that tests ask for."""

import contextlib
import os

import pytest

from tests.servers import postgres as postgres_programs
from tests.servers.aws import aws, aws_server, own_aws
from tests.servers.postgres import postgres, postgres_server

__all__ = ["aws", "aws_server", "own_aws", "postgres", "postgres_server"]


def pytest_collection_finish(session: pytest.Session) -> None:
    """An installation takes longer than a test may."""
    if any("postgres" in getattr(item, "fixturenames", ()) for item in session.items):
        with contextlib.suppress(postgres_programs.Unavailable):
            postgres_programs.install()


def _skipped_in_ci(config: pytest.Config) -> int:
    reporter = config.pluginmanager.get_plugin("terminalreporter")
    return len(reporter.stats.get("skipped", ())) if reporter and os.environ.get("CI") else 0


def pytest_sessionfinish(session: pytest.Session, exitstatus: int) -> None:
    if exitstatus == pytest.ExitCode.OK and _skipped_in_ci(session.config):
        session.exitstatus = pytest.ExitCode.TESTS_FAILED


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter, config: pytest.Config) -> None:
    if skipped := _skipped_in_ci(config):
        terminalreporter.write_line(f"CI: {skipped} skipped, so this run fails", red=True)
