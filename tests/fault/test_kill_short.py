"""The `kill` rig in a few seconds: it reaches its points, it finds nothing, and it sees bugs that are planted."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import AbstractContextManager, ExitStack
from functools import partial
from typing import Any
from unittest import mock

import msgspec
import pytest

from headwater import fault
from headwater.adapters.sqlite import writer
from headwater.consumer.arrival import Arrival, Outcome
from headwater.consumer.consumer import Consumer, Settle
from headwater.consumer.feed import Feed
from headwater.consumer.once import Once
from headwater.database import Answer
from headwater.relay import Tallying
from headwater.source import Batch
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


def marks_first() -> AbstractContextManager[Any]:
    """A consumer that commits its marks and checkpoints before the effects, in a transaction of their own."""
    run = Consumer._run

    async def early(self: Consumer, arrivals: Sequence[Arrival], settle: Settle) -> tuple[Outcome, Answer]:
        wanted = settle(Outcome())
        await self.database.commit([msgspec.structs.replace(wanted, holds=[], releases=[], note=None, journal=[])])
        fault.point("consumer.ran")

        def rest(outcome: Outcome) -> Any:
            return msgspec.structs.replace(settle(outcome), marks=[], checkpoints=outcome.checkpoints)

        return await run(self, arrivals, rest)

    return mock.patch.object(Consumer, "_run", early)


def acknowledged_first() -> AbstractContextManager[Any]:
    """A feed that acknowledges a batch before anybody has custody of it, with no tally to tell that it is lost."""
    run = Feed._run

    async def early(self: Feed, batch: Batch) -> None:
        await self.source.acknowledge(batch)
        if not self.source.ours:
            await self.source.subscription._file.flush()  # type: ignore[attr-defined]
        fault.point("feed.acknowledged")
        with mock.patch.object(type(self.source), "acknowledge", nothing):
            await run(self, batch)

    stack = ExitStack()
    stack.enter_context(mock.patch.object(Feed, "_run", early))
    stack.enter_context(mock.patch.object(Tallying, "due", lambda *_, **__: []))
    return stack


async def nothing(*_: Any) -> None:
    pass


def repeated_blindly() -> AbstractContextManager[Any]:
    """An outside effect whose outcome is not known is tried again."""
    call = Once.__call__
    return mock.patch.object(Once, "__call__", lambda self, name, what: call(self, name, what, repeat=True))


def answered_before_commit() -> AbstractContextManager[Any]:
    """A group commit that answers while its transaction is open."""

    def write(self: Any, group: list[Any]) -> None:
        with self._lock:
            connection = self._begin()
            try:
                for ticket in group:
                    results = list(self._work(connection, ticket.requests))
                    writer._answer(ticket.loop, [(ticket.future, results)])
                kill_time()
                fault.point("sqlite.written")
                self._commit(connection)
            finally:
                self._undo(connection)

    return mock.patch.object(writer.Writer, "_write", write)


def kill_time() -> None:
    import time

    time.sleep(0.002)


PLANTS = {
    marks_first: ["consumer.ran"] * 8,
    acknowledged_first: ["feed.acknowledged"] * 8,
    repeated_blindly: ["once.called"] * 8,
    answered_before_commit: ["sqlite.written"] * 12,
}


def planted(name: str, seed: int) -> TrialResult:
    [(plant, points)] = [one for one in PLANTS.items() if one[0].__name__ == name]
    with plant():
        return kill.world(seed, points, rest=3.0)


@pytest.mark.timeout(150)
@pytest.mark.parametrize("plant", [one.__name__ for one in PLANTS])
def test_kill_sees(plant: str) -> None:
    assert any(isolated(partial(planted, plant), seed).violations for seed in range(1, 9))
