"""The short form of `simulate`, that it tells the same story each time, and that it sees bugs which were planted."""

from __future__ import annotations

import hashlib
import logging
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from unittest import mock

import pytest

from headwater.consumer import consumer, custody, failing, feed
from headwater.database import WriteSet
from headwater.relay import Relay
from headwater.relay.tallying import Tallying
from headwater.scheduler import Scheduler
from tests.fault.rigs import simulate
from tests.fault.rigs.simulate import Universe
from tests.fault.rigs.trial import TrialResult

ROOT = Path(__file__).parents[2]
TELL = "import sys; from tests.fault.rigs import simulate; simulate.replay(int(sys.argv[1]), print)"
ENOUGH = 100
"""Universes in which a planted bug must show."""


@pytest.fixture(autouse=True)
def _quiet() -> Iterator[None]:
    logger = logging.getLogger("headwater")
    before = logger.level
    logger.setLevel(logging.CRITICAL)
    yield
    logger.setLevel(before)


@pytest.mark.parametrize("first", range(1, 81, 20))
def test_nothing_is_violated(first: int) -> None:
    found = {seed: simulate.one_trial(seed) for seed in range(first, first + 20)}
    assert {seed: one.violations for seed, one in found.items() if one.violations} == {}
    assert sum(not one.effective for one in found.values()) <= 1, "few universes have less than five faults"


def told(seed: int) -> list[str]:
    lines: list[str] = []
    simulate.replay(seed, lines.append)
    return lines


def elsewhere(seed: int, hashing: str) -> str:
    """The story of a seed in another process, where texts have other hashes."""
    environment = {**os.environ, "PYTHONHASHSEED": hashing, "PYTHONPATH": str(ROOT)}
    command = [sys.executable, "-P", "-c", TELL, str(seed)]
    return subprocess.run(
        command, env=environment, capture_output=True, text=True, check=True, encoding="utf-8"
    ).stdout.rstrip()


@pytest.mark.parametrize("seed", [3, 7])
def test_a_seed_tells_the_same_story_each_time(seed: int) -> None:
    stories = ["\n".join(told(seed)), "\n".join(told(seed)), elsewhere(seed, "1"), elsewhere(seed, "2")]
    assert len({hashlib.sha256(one.encode()).hexdigest() for one in stories}) == 1
    assert len(stories[0].splitlines()) > 100


def test_a_universe_that_is_told_is_the_same_as_one_that_is_not() -> None:
    assert [Universe(seed).play() for seed in (5, 6)] == [Universe(seed, told=True).play() for seed in (5, 6)]


# --- planted bugs ---


def found() -> TrialResult:
    """The first universe in which something is violated."""
    return next(
        (one for seed in range(1, ENOUGH) if (one := simulate.one_trial(seed)).violations), TrialResult(effective=False)
    )


def test_it_sees_a_failed_message_that_is_not_held() -> None:
    with mock.patch.object(failing.Failing, "holds", lambda *_: []):
        assert found().violations


def test_it_sees_an_inbox_that_forgets() -> None:
    sort = custody.sort_delivered

    def forgetful(name: str, messages: Any, marks: dict[str, int], *rest: Any, **options: Any) -> Any:
        return sort(name, messages, dict.fromkeys(marks, 0), *rest, **options)

    with mock.patch.object(consumer, "sort_delivered", forgetful):
        assert found().violations


def test_it_sees_a_batch_that_is_acknowledged_first_where_no_tally_tells_of_what_is_lost() -> None:
    run = feed.Feed._run

    async def acknowledge_first(self: Any, batch: Any) -> None:
        await self.source.acknowledge(batch)
        with mock.patch.object(self.source, "acknowledge", mock.AsyncMock()):
            await run(self, batch)

    silent = mock.patch.object(Tallying, "due", lambda *_, **__: [])
    with silent, mock.patch.object(feed.Feed, "_run", acknowledge_first):
        assert found().violations


def test_it_sees_a_relay_that_moves_its_place_first() -> None:
    publish = Relay._publish

    async def move_first(self: Any, leaving: Any, publications: Any, position: int) -> None:
        await self.channel.publish([], producer=self.service, position=position, epoch=self.fence().epoch)
        await publish(self, leaving, publications, position)

    with mock.patch.object(Relay, "_publish", move_first):
        assert found().violations


def test_it_sees_a_timer_that_is_deleted_first() -> None:
    async def step(self: Any) -> bool:
        due = [self._fire(timer) for timer in await self.database.timers_due(self.clock.now(), 500)]
        for one in due:
            await self.database.commit([WriteSet(cancels=one.cancels)])
            await self.database.commit([WriteSet(appends=one.appends)])
        return bool(due)

    with mock.patch.object(Scheduler, "step", step):
        assert found().violations
