"""The README's examples: they run as they stand, and they are clean under mypy and pyright in strict use."""

import re
import sys
from pathlib import Path

import pytest

from tests.docs.page import files, run, write

FILES = files("README.md")


@pytest.fixture
def written(tmp_path: Path) -> Path:
    return write(FILES, tmp_path)


def test_the_bank_does_what_its_comments_say(written: Path) -> None:
    done = run(written, "bank.py")
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines() == [
        "Statement(withdrawn_cents=120, account_id='a1')",
        "not enough money",
        "Account(owner='Ada', cents=500)",
    ]


def test_running_the_bank_again_goes_on_with_the_same_accounts(written: Path) -> None:
    run(written, "bank.py")
    done = run(written, "bank.py")
    assert done.returncode == 0, done.stderr
    assert "Statement(withdrawn_cents=240, account_id='a1')" in done.stdout


@pytest.mark.parametrize("name", sorted(FILES))
def test_every_example_can_be_imported_as_it_stands(written: Path, name: str) -> None:
    done = run(written, "-c", f"import {name.removesuffix('.py')}")
    assert done.returncode == 0, done.stderr


def test_hello_is_short(written: Path) -> None:
    lines = [line for line in FILES["hello.py"].splitlines() if line and not line.startswith(("from", "import", "#"))]
    classes = sum(2 for line in lines if re.match(r"class \w+\((Command|Event)\)", line))
    assert len(lines) - classes <= 12


def test_the_examples_are_clean_under_mypy_strict(written: Path) -> None:
    done = run(written, "-m", "mypy", "--strict", "--cache-dir", str(written / ".cache"), *sorted(FILES))
    assert done.returncode == 0, done.stdout


def test_the_examples_are_clean_under_pyright(written: Path) -> None:
    done = run(written, "-m", "pyright", "--pythonpath", sys.executable, *sorted(FILES))
    assert done.returncode == 0, done.stdout
