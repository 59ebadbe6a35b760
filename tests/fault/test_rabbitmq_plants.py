"""Bugs that are planted in the RabbitMQ channel are seen on a real server, each by the tests that claim to see it."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from importlib import import_module
from pathlib import Path
from typing import Any

import pytest

from tests.fault.plants import queueing
from tests.fault.plants.plant import Detector, Plant, plants_of
from tests.servers.rabbitmq import Vhosts

PLANTS = list(plants_of(queueing))
SEEN = [(plant, detector) for plant in PLANTS for detector in plant.caught_by]


def named(detector: Detector) -> Callable[..., None]:
    """The test that a detector runs; one of a class with a case of its own."""
    file, *names = detector.test.split("::")  # type: ignore[attr-defined]
    found: Any = import_module(file.removesuffix(".py").replace("/", "."))
    for name in names:
        found = getattr(found() if inspect.isclass(found) else found, name)
    test: Callable[..., None] = found
    return test


@pytest.mark.parametrize(("plant", "detector"), SEEN, ids=[f"{plant.name}-{detector.name}" for plant, detector in SEEN])
def test_what_is_planted_is_seen(
    plant: Plant, detector: Detector, rabbitmq: Vhosts, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    test = named(detector)
    given: dict[str, Any] = {"rabbitmq": rabbitmq, "tmp_path": tmp_path, "monkeypatch": monkeypatch}
    case = getattr(test, "__self__", None)
    if case is not None:
        case.rabbitmq = rabbitmq
        case.patience = 2.0
    with plant.apply(), pytest.raises(AssertionError):
        test(**{name: given[name] for name in inspect.signature(test).parameters})
