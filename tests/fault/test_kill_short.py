"""The `kill` rig in a few seconds: it reaches its points, it finds nothing, and it sees bugs that are planted."""

from __future__ import annotations

from functools import partial

import pytest

from headwater import fault
from tests.fault.plants.garden import growing, plants
from tests.fault.rigs import kill
from tests.fault.rigs.kill_plan import AT_BIRTH, points_of
from tests.fault.rigs.trial import TrialResult, isolated
from tests.servers.postgres import Databases

SOME = [name for name in kill.POINTS if not name.startswith(AT_BIRTH)][::2]

SOME_ON_A_SERVER = ("postgres.committing", "postgres.committed", "consumer.committed", "feed.acknowledged")


def some(seed: int) -> TrialResult:
    return kill.world(seed, SOME)


@pytest.mark.timeout(150)
def test_kill() -> None:
    found = isolated(some, 1)
    assert (found.violations, found.trials > 5) == ([], True)


def some_on_a_server(seed: int, store: str = "") -> TrialResult:
    return kill.world(seed, SOME_ON_A_SERVER, store=store)


@pytest.mark.timeout(150)
def test_kill_on_a_server(postgres: Databases) -> None:
    found = isolated(partial(some_on_a_server, store=postgres.server_url), 1)
    assert (found.violations, found.trials > 2) == ([], True)


def test_every_point_has_a_process_that_comes_to_it() -> None:
    reached = {name for service in ("bank", "vault", "desk") for name in points_of(service)}
    assert reached == set(fault.POINTS) == {*kill.POINTS, *kill.SERVER_POINTS}


# --- planted bugs ---

PLANTED = {
    "mark-before-effect": ["consumer.ran"] * 8,
    "acknowledge-first": ["feed.acknowledged"] * 8,
    "once-repeated-blindly": ["once.called"] * 8,
    "group-commit-answers-before-commit": ["sqlite.written"] * 12,
}


def with_plant(name: str, seed: int) -> TrialResult:
    with growing(plants()[name]):
        return kill.world(seed, PLANTED[name], rest=3.0)


@pytest.mark.timeout(150)
@pytest.mark.parametrize("name", PLANTED)
def test_kill_sees(name: str) -> None:
    """A world sees it half of the time: whether a kill hits what counts is chance."""
    assert any(isolated(partial(with_plant, name), seed).violations for seed in range(1, 21))
