"""Node.js for tests, with a client of RabbitMQ that is not ours: amqplib comes from npm, once, into a cache folder."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest

from tests.servers.postgres import Unavailable
from tests.servers.sharing import locked

PACKAGE, VERSION = "amqplib", "2.3.1"
CACHE = Path.home() / ".cache" / "headwater" / "node"


def modules() -> Path:
    """The folder of packages."""
    return CACHE / f"{PACKAGE}-{VERSION}" / "node_modules"


def install() -> None:
    """See to it that there are Node.js and the package. Raises Unavailable."""
    if not shutil.which("node") or not shutil.which("npm"):
        raise Unavailable("Node.js and npm are not installed: install them")
    CACHE.mkdir(parents=True, exist_ok=True)
    with locked(CACHE / "lock"):
        if not (modules() / ".complete").exists():
            _fetch()


def _fetch() -> None:
    folder = str(modules().parent)
    words = [
        "npm",
        "install",
        "--prefix",
        folder,
        "--no-audit",
        "--no-fund",
        "--ignore-scripts",
        f"{PACKAGE}@{VERSION}",
    ]
    done = subprocess.run(words, check=False, capture_output=True, text=True)
    if done.returncode:
        raise Unavailable(f"{PACKAGE} cannot be fetched: {done.stderr.strip()[-300:]}")
    (modules() / ".complete").touch()


@pytest.fixture(scope="session")
def node() -> Path:
    """The folder of packages; the test is skipped where there is no Node.js."""
    try:
        install()
    except Unavailable as error:
        pytest.skip(str(error))
    return modules()
