"""The examples of the page on topics that are not ours: they run as they stand, and are clean under the type checker."""

from __future__ import annotations

from pathlib import Path

from tests.docs.page import files, run, write

FILES = files("docs/how-to/listen-to-others.md")


def test_what_a_till_says_is_heard_and_folded(tmp_path: Path) -> None:
    done = run(write(FILES, tmp_path), "till.py")
    assert done.returncode == 0, done.stderr
    assert sorted(done.stdout.splitlines()) == ["Revenue(cents=999, order_id='o1')", "thank you for o1: 999 cents"]


def test_they_are_clean(tmp_path: Path) -> None:
    done = run(write(FILES, tmp_path), "-m", "mypy", "--strict", "--cache-dir", ".cache", *sorted(FILES))
    assert done.returncode == 0, done.stdout
