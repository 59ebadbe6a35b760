"""The examples of the page on decisions over streams: they run as they stand, and they are clean under both type checkers."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from tests.docs.page import files, run, write

FILES = files("docs/how-to/decide-over-streams.md")


@pytest.fixture
def written(tmp_path: Path) -> Path:
    return write(FILES, tmp_path)


def test_the_school_does_what_its_comments_say(written: Path) -> None:
    done = run(written, "school.py")
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines() == [
        "no seat is left",
        "too many courses",
        "Committed(position=7, version=2, repeated=False)",
    ]


def test_its_tests_pass(written: Path) -> None:
    done = run(written, "-m", "pytest", "-q", "-p", "no:cacheprovider", "test_school.py")
    assert done.returncode == 0, done.stdout
    assert "3 passed" in done.stdout


@pytest.mark.parametrize(
    "checker",
    [("mypy", "--strict", "--cache-dir", ".cache"), ("pyright", "--pythonpath", sys.executable)],
    ids=lambda checker: checker[0],
)
def test_they_are_clean_under(written: Path, checker: tuple[str, ...]) -> None:
    done = run(written, "-m", *checker, *sorted(FILES))
    assert done.returncode == 0, done.stdout
