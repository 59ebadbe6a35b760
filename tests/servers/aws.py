"""SNS and SQS for tests: moto's server, one for a whole run, as a process of its own on loopback.

All workers of pytest-xdist share it, and each test names its topics and queues with a prefix of its own. moto keeps nothing:
what was in it is gone after `kill`, `stop` and `restart`. `HEADWATER_TEST_AWS` (the URL of an endpoint) names one to be used in
its place.
"""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from urllib.error import URLError
from urllib.parse import urlencode
from urllib.request import urlopen
from uuid import uuid4

import pytest

from tests.servers.postgres import Unavailable, _free_port, _wait_for_end
from tests.servers.sharing import Found, folder_of_run, shared

GIVEN = "HEADWATER_TEST_AWS"
REGION = "eu-west-1"
ACCOUNT = "123456789012"
"""Everybody's, in moto."""
PROGRAM = Path(__file__).with_name("moto_program.py")
CREDENTIALS = {"AWS_ACCESS_KEY_ID": "testing", "AWS_SECRET_ACCESS_KEY": "testing"}
"""What moto takes; it takes anything."""
READY = 30.0
"""Seconds that it may take to start: it imports much."""


class MotoServer:
    """A server on a port of its own. `start`, `stop`, `kill` (-9), and start it again: empty."""

    def __init__(self, port: int, pid: int = 0) -> None:
        self.port = port
        self.pid = pid

    @classmethod
    def make(cls) -> MotoServer:
        """A new one, not yet started."""
        return cls(_free_port())

    @property
    def url(self) -> str:
        """Its endpoint."""
        return f"http://127.0.0.1:{self.port}"

    def start(self, **environment: str) -> None:
        """Start it, with nothing in it, and wait until it answers. Raises Unavailable."""
        log = Path(tempfile.gettempdir()) / f"headwater-moto-{self.port}.log"
        with log.open("wb") as said:
            # it outlives the worker of pytest-xdist that has started it, not the run
            run = os.getppid() if os.environ.get("PYTEST_XDIST_WORKER") else os.getpid()
            words = [sys.executable, str(PROGRAM), str(self.port), str(run)]
            process = subprocess.Popen(
                words, stdout=said, stderr=said, env=os.environ | environment, start_new_session=True
            )
        self.pid = process.pid
        end = time.monotonic() + READY
        while not self._answers():
            if process.poll() is not None or time.monotonic() > end:
                raise Unavailable(f"moto does not start: {log.read_text()[-500:]}")
            time.sleep(0.05)
        log.unlink()
        process.returncode = 0  # whoever ends it waits for it by its id

    def stop(self) -> None:
        """End it, and all that was in it."""
        self._end(15)

    def kill(self) -> None:
        """End it without a word."""
        self._end(9)

    def restart(self) -> None:
        """Start it again on its port after `kill` or `stop`; nothing of what it had is there."""
        self.start()

    def _end(self, signal: int) -> None:
        if self.pid:
            os.kill(self.pid, signal)
            _wait_for_end(self.pid)
            self.pid = 0

    def _answers(self) -> bool:
        try:
            with urlopen(f"{self.url}/moto-api/", timeout=2) as answer:
                return bool(answer.status == 200)
        except (URLError, OSError):
            return False


class Endpoint:
    """Where SNS and SQS answer, for one test: its `prefix` is its own."""

    def __init__(self, url: str, server: MotoServer | None = None) -> None:
        self.url = url
        self.server = server
        self.prefix = f"t{uuid4().hex[:12]}-"

    def channel(self, **options: object) -> str:
        """The URL of a channel there, with its options; that it need not ask whose it is saves a client for each."""
        named: dict[str, object] = {"region": REGION, "endpoint": self.url, "prefix": self.prefix}
        named |= ({"account": ACCOUNT} if self.server else {}) | options
        return f"aws://?{urlencode(named)}"


def _started() -> Found:
    server = MotoServer.make()
    server.start()
    return {"port": server.port, "pid": server.pid}


@contextmanager
def shared_server(folder: Path) -> Iterator[MotoServer | str]:
    """The server of this test run, or the endpoint that is given: the first worker starts it, the last one stops it."""
    if given := os.environ.get(GIVEN):
        yield given
        return
    with shared(folder, "aws", _started, lambda found: MotoServer(**found).stop()) as found:
        yield MotoServer(**found)


@pytest.fixture(scope="session")
def aws_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[MotoServer | str]:
    """The server or the given endpoint; the test is skipped where there is none."""
    try:
        with shared_server(folder_of_run(tmp_path_factory)) as server:
            yield server
    except Unavailable as error:
        pytest.skip(str(error))


@pytest.fixture
def aws(aws_server: MotoServer | str, monkeypatch: pytest.MonkeyPatch) -> Endpoint:
    """Where a test has SNS and SQS."""
    if isinstance(aws_server, str):
        return Endpoint(aws_server)
    for name, value in CREDENTIALS.items():
        monkeypatch.setenv(name, value)
    return Endpoint(aws_server.url, aws_server)


@pytest.fixture
def own_aws(monkeypatch: pytest.MonkeyPatch) -> Iterator[Endpoint]:
    """The same, on a server of the test's own, which may be stopped and killed."""
    for name, value in CREDENTIALS.items():
        monkeypatch.setenv(name, value)
    server = MotoServer.make()
    try:
        server.start()
    except Unavailable as error:
        pytest.skip(str(error))
    yield Endpoint(server.url, server)
    server.stop()
