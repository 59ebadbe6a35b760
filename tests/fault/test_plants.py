"""Planted bugs are caught; here some of each promise by detectors that are soon done, all of them by `./dev prove --plants`."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from tests.fault.plants.garden import growing, plants
from tests.fault.plants.plant import Plant, Promise, patched
from tests.fault.plants.prove import Finding, Prover

ROOT = Path(__file__).parents[2]
NORMAL = "from headwater.adapters.sqlite.file import PRAGMAS; print(PRAGMAS['synchronous'])"


def python(*words: str) -> str:
    """What a new Python process says."""
    command = [sys.executable, "-P", *words]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True).stdout


@pytest.mark.timeout(300)
def test_what_is_planted_is_caught(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    found = [json.loads(line) for line in python("-m", "tests.fault.plants").splitlines()]
    assert [one for one in found if one["missed"]] == []
    assert len(found) >= 20


def test_every_promise_has_a_plant() -> None:
    assert {plant.breaks for plant in plants().values()} == set(Promise)


def test_a_plant_grows_in_the_processes_that_are_started_too() -> None:
    before = dict(os.environ)
    with growing(plants()["normal-instead-of-full"]):
        assert python("-c", NORMAL).split() == ["1"]
    assert python("-c", NORMAL).split() == ["2"]
    assert os.environ == before


# --- what is no catch ---


class Value:
    """Something that is 2."""

    number = 2


@dataclass(frozen=True)
class Look:
    """A detector that says something."""

    words: Callable[[], str]
    name: str = "look"
    seeds: Sequence[int] = range(1, 4)
    says: str = "is lost"
    slow: bool = False

    def attempt(self, seed: int) -> list[str]:
        return [self.words()] if seed > 1 and self.words() else []


def found_by(words: Callable[[], str]) -> Finding:
    plant = Plant("one", Promise.ATOMIC, lambda: patched("number", 1, Value), (Look(words),), "")
    return Prover().prove(plant, plant.caught_by)


@pytest.mark.parametrize(
    ("words", "why"),
    [
        (lambda: f"{Value.number} is lost" * (Value.number == 1), ""),
        (lambda: "", "it saw nothing"),
        (lambda: "it rains", "it says something else: it rains"),
        (lambda: "all is lost", "it says so without the plant too: all is lost"),
        (
            lambda: f"TypeError: {Value.number} is lost" * (Value.number == 1),
            "the patch is broken: TypeError: 1 is lost",
        ),
        (lambda: 1 / 0, "ZeroDivisionError: division by zero"),
        (lambda: os._exit(3), "it died"),
    ],
    ids=["caught", "survives", "other words", "not its own", "broken", "falls", "dies"],
)
@pytest.mark.filterwarnings("ignore:.*multi-threaded.*fork:DeprecationWarning")
def test_only_what_a_plant_breaks_is_a_catch(words: Callable[[], Any], why: str) -> None:
    found = found_by(words)
    assert (found.caught, [sight.why for sight in found.sights]) == (not why, [why])
    assert found.as_data()["caught_by"] == ("" if why else "look")
