"""All plants, and how they come into a process and all that it starts."""

from __future__ import annotations

import os
from collections.abc import Iterator, MutableMapping
from contextlib import contextmanager
from pathlib import Path

from tests.fault.plants import (
    answering,
    claiming,
    consuming,
    deciding,
    holding,
    leasing,
    lending,
    partitioning,
    queueing,
    reading,
    receiving,
    relaying,
    serving,
    skipping,
    storing,
    telling,
    timing,
)
from tests.fault.plants.plant import Plant, plants_of

THEMES = (
    storing,
    answering,
    deciding,
    relaying,
    consuming,
    holding,
    timing,
    leasing,
    lending,
    partitioning,
    queueing,
    reading,
    skipping,
    telling,
    receiving,
    serving,
    claiming,
)
VARIABLE = "PLANTED"
PATHS = "PYTHONPATH"
ROOT = Path(__file__).parents[3]
SITE = Path(__file__).parent / "site"


def plants() -> dict[str, Plant]:
    """All plants by name."""
    return {one.name: one for theme in THEMES for one in plants_of(theme)}


@contextmanager
def growing(plant: Plant) -> Iterator[None]:
    """Have a bug in this process, and in every Python process that is started meanwhile by it or below it."""
    with announced(plant, os.environ), plant.apply():
        yield


@contextmanager
def announced(plant: Plant, environment: MutableMapping[str, str]) -> Iterator[None]:
    """Say in an environment what a Python process has to plant when it starts: `site/sitecustomize.py` does."""
    before = dict(environment)
    paths = [str(SITE), str(ROOT), *filter(None, [environment.get(PATHS)])]
    environment.update({VARIABLE: plant.name, PATHS: os.pathsep.join(paths)})
    try:
        yield
    finally:
        environment.clear()
        environment.update(before)
