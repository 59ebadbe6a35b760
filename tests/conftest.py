"""In CI a skipped test is a failure: what was not run was not shown. And the real servers that tests ask for."""

import contextlib
import os

import pytest

from tests.servers import emmett as emmett_programs
from tests.servers import kafka as kafka_programs
from tests.servers import node as node_programs
from tests.servers import postgres as postgres_programs
from tests.servers import rabbitmq as rabbitmq_programs
from tests.servers.aws import aws, aws_server, own_aws
from tests.servers.emmett import emmett
from tests.servers.kafka import kafka, kafka_server, own_kafka, own_kafka_server
from tests.servers.node import node
from tests.servers.postgres import Unavailable, postgres, postgres_server
from tests.servers.rabbitmq import rabbitmq, rabbitmq_server

__all__ = [
    "aws",
    "aws_server",
    "emmett",
    "kafka",
    "kafka_server",
    "node",
    "own_aws",
    "own_kafka",
    "own_kafka_server",
    "postgres",
    "postgres_server",
    "rabbitmq",
    "rabbitmq_server",
]

PROGRAMS = {
    "postgres": postgres_programs.install,
    "rabbitmq": rabbitmq_programs.install,
    "kafka": kafka_programs.install,
    "emmett": emmett_programs.install,
    "own_kafka": kafka_programs.install_programs,
    "node": node_programs.install,
}
"""How a server is installed, by the fixture that asks for it."""


def pytest_collection_finish(session: pytest.Session) -> None:
    """An installation takes longer than a test may."""
    asked = {name for item in session.items for name in getattr(item, "fixturenames", ())}
    for name, install in PROGRAMS.items():
        if name in asked:
            with contextlib.suppress(Unavailable):
                install()


def _skipped_in_ci(config: pytest.Config) -> int:
    reporter = config.pluginmanager.get_plugin("terminalreporter")
    return len(reporter.stats.get("skipped", ())) if reporter and os.environ.get("CI") else 0


def pytest_sessionfinish(session: pytest.Session, exitstatus: int) -> None:
    if exitstatus == pytest.ExitCode.OK and _skipped_in_ci(session.config):
        session.exitstatus = pytest.ExitCode.TESTS_FAILED


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter, config: pytest.Config) -> None:
    if skipped := _skipped_in_ci(config):
        terminalreporter.write_line(f"CI: {skipped} skipped, so this run fails", red=True)
