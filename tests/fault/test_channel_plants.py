"""Bugs that are planted in the channels of brokers are seen on a real server, each by the tests that claim to see it."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from importlib import import_module
from types import ModuleType
from typing import Any

import pytest

from tests.fault.plants import partitioning, queueing
from tests.fault.plants.plant import Detector, Plant, plants_of

SERVERS: dict[ModuleType, str] = {queueing: "rabbitmq", partitioning: "kafka"}
"""What a case of the contract is given, by the theme of its plants."""
SEEN = [(plant, detector) for theme in SERVERS for plant in plants_of(theme) for detector in plant.caught_by]
FAILED = (AssertionError, pytest.fail.Exception)


def named(detector: Detector) -> Callable[..., None]:
    """The test that a detector runs; one of a class with a case of its own."""
    file, *names = detector.test.split("::")  # type: ignore[attr-defined]
    found: Any = import_module(file.removesuffix(".py").replace("/", "."))
    for name in names:
        found = getattr(found() if inspect.isclass(found) else found, name)
    test: Callable[..., None] = found
    return test


@pytest.mark.timeout(200)
@pytest.mark.parametrize(("plant", "detector"), SEEN, ids=[f"{plant.name}-{detector.name}" for plant, detector in SEEN])
def test_what_is_planted_is_seen(plant: Plant, detector: Detector, request: pytest.FixtureRequest) -> None:
    test = named(detector)
    given = {name: request.getfixturevalue(name) for name in inspect.signature(test).parameters}
    case = getattr(test, "__self__", None)
    if case is not None:
        [server] = [name for theme, name in SERVERS.items() if plant in plants_of(theme)]
        setattr(case, server, request.getfixturevalue(server))
        case.patience = 2.0
    with plant.apply(), pytest.raises(FAILED):
        test(**given)
