"""The examples of the page on decisions over streams: they run as they stand, and they are clean under both type checkers."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

PAGE = Path(__file__).parents[2] / "docs" / "how-to" / "decide-over-streams.md"
BLOCKS = re.findall(r"```python\n# (\w+\.py)\n(.*?)```", PAGE.read_text(encoding="utf-8"), re.DOTALL)


@pytest.fixture
def written(tmp_path: Path) -> Path:
    for name, text in BLOCKS:
        (tmp_path / name).write_text(text, encoding="utf-8")
    return tmp_path


def run(folder: Path, *command: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, *command], cwd=folder, capture_output=True, text=True, timeout=50, check=False
    )


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
    done = run(written, "-m", *checker, *sorted(name for name, _ in BLOCKS))
    assert done.returncode == 0, done.stdout
