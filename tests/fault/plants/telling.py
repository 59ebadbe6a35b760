"""Bugs of the tallies, by which a lost last message shows."""

from __future__ import annotations

from contextlib import ExitStack
from typing import Any
from unittest import mock

from headwater.consumer import tallying
from headwater.repair import Asking
from headwater.tally import Count
from tests.fault.plants.detectors import Rig, Suite
from tests.fault.plants.plant import Patch, Promise, planted

TALLIES = "tests/flow/test_tallies.py::"


@planted(
    Promise.NO_SILENT_GAP,
    Suite(f"{TALLIES}test_a_lost_tally_shows_by_the_next_one_and_its_span_is_told_again"),
    Rig("wipe", "never came back", range(1, 4), slow=True),
    everywhere=True,
)
def tally_without_a_chain() -> Patch:
    """A tally does not say where the one before it ended."""
    close = Count.close

    def unchained(self: Any, service: str, topic: str, position: int, clock: Any) -> Any:
        self.prior = position - 1
        return close(self, service, topic, position, clock)

    return mock.patch.object(Count, "close", unchained)


@planted(
    Promise.NO_SILENT_GAP,
    Suite(f"{TALLIES}test_the_last_message_of_a_stream_comes_back_with_no_later_one"),
    Rig("wipe", "never came back", range(1, 2), slow=True),
    everywhere=True,
)
def tally_taken_unchecked() -> Patch:
    """The marks are not looked at for what a tally tells of."""
    return mock.patch.object(tallying, "missing_of", lambda *_, **__: {})


@planted(
    Promise.NO_SILENT_GAP,
    Suite(f"{TALLIES}test_what_is_lost_comes_back_though_the_one_or_the_other_ends_in_between"),
)
def tally_checked_in_memory() -> Patch:
    """What a tally tells of and has not come is forgotten when the process ends."""
    held: dict[int, list[Any]] = {}
    check, look = tallying.Checking.check, Asking._tallies

    async def note(self: Any, *arguments: Any) -> Any:
        told = await check(self, *arguments)
        held.setdefault(id(self.database), []).extend(told.holds)
        return tallying.Told(told.marks, [])

    async def recall(self: Any, now: int, requests: dict[str, int]) -> Any:
        rows = held.get(id(self.database), [])
        with mock.patch.object(self.database, "held_list", _answering(rows)):
            await look(self, now, requests)
        return []

    stack = ExitStack()
    stack.enter_context(mock.patch.object(tallying.Checking, "check", note))
    stack.enter_context(mock.patch.object(Asking, "_tallies", recall))
    return stack


def _answering(rows: Any) -> Any:
    async def answer(*_: Any) -> Any:
        return rows

    return answer
