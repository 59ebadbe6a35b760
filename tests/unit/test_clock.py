"""Times and ids, of the machine and of a test."""

from __future__ import annotations

import asyncio
import uuid

import pytest

from headwater.clock import Clock, SystemClock, iso, parse_iso, uuid7
from headwater.testing.clock import START, VirtualClock


def test_an_id_is_a_uuid_of_version_7_that_holds_its_time():
    found = uuid.UUID(uuid7(START + 123_456, 2**62 - 1))
    assert (found.version, found.variant) == (7, uuid.RFC_4122)
    assert found.int >> 80 == (START + 123_456) // 1000
    assert str(found) == uuid7(START + 123_456, 2**62 - 1)


def test_ids_sort_by_time_to_the_microsecond():
    ids = [uuid7(START + offset, 0) for offset in range(3_000)]
    assert ids == sorted(set(ids))


@pytest.mark.parametrize("clock", [SystemClock(), VirtualClock()], ids=["system", "virtual"])
def test_ids_of_one_clock_are_apart_and_in_order(clock: Clock):
    ids = [clock.new_id() for _ in range(5_000)]
    assert ids == sorted(set(ids))
    assert all(0 <= clock.random() < 1 for _ in range(100))


@pytest.mark.parametrize("time", [0, 1, START, START + 999_999, -1, 4_102_444_800_000_001])
def test_a_time_reads_back_from_its_text(time):
    assert parse_iso(iso(time)) == time


def test_text_of_a_time_is_rfc_3339_in_utc():
    assert iso(START + 5) == "2026-01-01T00:00:00.000005Z"
    assert parse_iso("2026-01-01T02:30:00+02:30") == parse_iso("2026-01-01 00:00:00") == START
    assert parse_iso("2026-01-01T00:00:00.000007Z") == START + 7
    for wrong in (
        "",
        "now",
        "2026-02-30T00:00:00Z",
        "2026-02-30T00:00:00.000001Z",
        "2026-01-01T00:00+01.000001Z",
        "2026-01-01T00:00:00.00000\N{ARABIC-INDIC DIGIT ONE}Z",
    ):
        with pytest.raises(ValueError, match=r"isoformat|range"):
            parse_iso(wrong)


def test_the_system_clock_goes():
    clock = SystemClock()
    now, monotonic = clock.now(), clock.monotonic()
    asyncio.run(clock.sleep(0.001))
    assert clock.now() > now > START - 10**15
    assert clock.monotonic() > monotonic


# --- the clock of a test ---


def test_the_same_seed_gives_the_same_ids_and_chances():
    def some(seed: int) -> list[object]:
        clock = VirtualClock(seed=seed)
        return [clock.new_id(), clock.random(), clock.new_id()]

    assert some(1) == some(1) != some(2)


def test_time_stands_still_until_it_is_advanced():
    clock = VirtualClock(start=1_000_000)
    assert (clock.now(), clock.monotonic()) == (1_000_000, 0.0)
    clock.advance(2.5)
    assert (clock.now(), clock.monotonic()) == (3_500_000, 2.5)


def test_sleepers_wake_when_time_is_advanced_past_them_earliest_first():
    async def run() -> None:
        clock, woken = VirtualClock(), []

        async def sleeper(seconds: float) -> None:
            await clock.sleep(seconds)
            woken.append((seconds, clock.monotonic()))

        tasks = [asyncio.create_task(sleeper(seconds)) for seconds in (3, 1, 2, 0)]
        await asyncio.sleep(0.001)
        assert woken == [(0, 0.0)]
        clock.advance(2)
        await asyncio.sleep(0.001)
        assert woken[1:] == [(1, 2.0), (2, 2.0)]
        clock.advance(1)
        await asyncio.gather(*tasks)

    asyncio.run(run())


def test_running_for_a_while_wakes_each_sleeper_at_its_own_time():
    async def run() -> None:
        clock, beats = VirtualClock(), []

        async def heart(every: float) -> None:
            while True:
                await clock.sleep(every)
                beats.append((clock.monotonic(), every))

        hearts = [asyncio.create_task(heart(every)) for every in (1.0, 1.5)]
        await clock.run_for(3.2)
        assert beats == [(1.0, 1.0), (1.5, 1.5), (2.0, 1.0), (3.0, 1.5), (3.0, 1.0)]
        assert clock.monotonic() == 3.2
        for task in hearts:
            task.cancel()
        await asyncio.gather(*hearts, return_exceptions=True)
        assert clock.next_due() is None

    asyncio.run(run())
