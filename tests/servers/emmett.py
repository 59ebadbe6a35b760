"""Emmett for the tests of the benchmarks, installed once for all workers of pytest-xdist."""

from __future__ import annotations

import tempfile
from pathlib import Path

import pytest

from benchmarks.postgres import emmett as program
from benchmarks.postgres.emmett import Emmett, Missing
from tests.servers.postgres import Unavailable
from tests.servers.sharing import locked


def install() -> Emmett:
    """The program. Raises Unavailable."""
    with locked(Path(tempfile.gettempdir()) / "headwater-bench-emmett.lock"):
        try:
            return program.install()
        except Missing as error:
            raise Unavailable(str(error)) from None


@pytest.fixture(scope="session")
def emmett() -> Emmett:
    """The program; the test is skipped where there is no Node."""
    try:
        return install()
    except Unavailable as error:
        pytest.skip(str(error))
