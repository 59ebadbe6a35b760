"""Processes share a channel file, and are killed: this file is also the program that those processes run."""

import asyncio
import os
import signal
import subprocess
import sys
import time
from collections import defaultdict
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

from headwater.adapters.sqlite.channel import SqliteChannel
from headwater.channel import Publication
from headwater.clock import SystemClock

KEYS = 30
BATCH = 60


class Taken(NamedTuple):
    """A message in a member's hands, from when to when (seconds of the machine's monotonic clock)."""

    member: str
    key: str
    number: int
    start: float
    end: float


def messages(first: int, count: int) -> list[Publication]:
    """The n-th message of a key has the number n."""
    return [Publication("t", f"k{n % KEYS}", {}, b"%d" % (n // KEYS)) for n in range(first, first + count)]


# --- the program ---


async def consume(path: str, member: str, log: str) -> None:
    channel = SqliteChannel(path, SystemClock())
    await channel.open()
    subscription = await channel.subscribe("g", ["t"], member)
    descriptor = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    while True:
        batch = await subscription.fetch(20)
        if not batch:
            await subscription.wait(1)
            continue
        start = time.monotonic()
        write(descriptor, "fetched", member, [(d.key, d.body) for d in batch], start)
        await asyncio.sleep(0.005)
        write(descriptor, "settled", member, [(d.key, d.body) for d in batch], time.monotonic())
        await subscription.acknowledge(batch)


def write(descriptor: int, word: str, member: str, batch: list[tuple[str, bytes]], at: float) -> None:
    lines = (f"{word} {member} {key} {body.decode()} {at!r}\n" for key, body in batch)
    os.write(descriptor, "".join(lines).encode())


async def produce(path: str) -> None:
    channel = SqliteChannel(path, SystemClock())
    await channel.open()
    position = await channel.producer_position("p") or 0
    while True:
        position += 7
        await channel.publish(messages(position - 7, 7), producer="p", position=position)


@contextmanager
def process(*arguments: str) -> Iterator[subprocess.Popen[bytes]]:
    running = subprocess.Popen([sys.executable, __file__, *arguments])
    try:
        yield running
    finally:
        running.kill()
        running.wait()


# --- what happened ---


def taken(log: Path, ends: dict[str, float]) -> list[Taken]:
    """All that was in anybody's hands, by time; what a dead member had, it had until its end."""
    fetched: dict[tuple[str, str, int], float] = {}
    found = []
    for line in log.read_text().splitlines():
        word, member, key, number, at = line.split()
        if word == "fetched":
            fetched[member, key, int(number)] = float(at)
        else:
            found.append(Taken(member, key, int(number), fetched.pop((member, key, int(number))), float(at)))
    found += [Taken(member, key, number, at, ends[member]) for (member, key, number), at in fetched.items()]
    return sorted(found, key=lambda one: one.start)


def assert_one_at_a_time(found: list[Taken]) -> None:
    last: dict[str, Taken] = {}
    for one in found:
        before = last.get(one.key)
        assert before is None or before.member == one.member or before.end <= one.start, (before, one)
        last[one.key] = one


def assert_in_order(found: list[Taken], count: int) -> None:
    seen: dict[str, int] = defaultdict(lambda: -1)
    for one in found:
        assert one.number <= seen[one.key] + 1, (one, seen[one.key])
        seen[one.key] = max(seen[one.key], one.number)
    assert seen == {f"k{key}": count // KEYS - 1 for key in range(KEYS)}


def until(holds: Callable[[], bool], seconds: float = 15.0) -> None:
    end = time.monotonic() + seconds
    while not holds():
        assert time.monotonic() < end
        time.sleep(0.02)


def test_a_killed_member_loses_nothing_and_its_work_goes_to_the_others(tmp_path: Path) -> None:
    path, log = tmp_path / "channel.db", tmp_path / "log"
    log.touch()

    def active() -> set[str]:
        return {line.split()[1] for line in log.read_text().splitlines()[-300:]}

    async def publish(batches: int, first: int) -> int:
        channel = SqliteChannel(path, SystemClock())
        await channel.open()
        for batch in range(batches):
            await channel.publish(messages(first + batch * BATCH, BATCH))
            await asyncio.sleep(0.01)
        await channel.close()
        return first + batches * BATCH

    ends = {}
    count = asyncio.run(publish(1, 0))
    with process("consume", str(path), "m1", str(log)) as one, process("consume", str(path), "m2", str(log)):
        while active() != {"m1", "m2"}:
            count = asyncio.run(publish(5, count))
        one.send_signal(signal.SIGKILL)
        one.wait()
        ends["m1"] = time.monotonic()
        count = asyncio.run(publish(30, count))
        with process("consume", str(path), "m3", str(log)):
            while active() != {"m2", "m3"}:
                count = asyncio.run(publish(5, count))
            until(lambda: len({tuple(line.split()[2:4]) for line in log.read_text().splitlines()}) == count)
            time.sleep(0.3)
        ends["m3"] = time.monotonic()
    ends["m2"] = time.monotonic()
    found = taken(log, ends)
    assert_one_at_a_time(found)
    assert_in_order(found, count)
    again = len(found) - count
    assert again <= sum(one.end == ends["m1"] for one in found) + 20 * 20, "only what was not yet written comes again"


def test_a_killed_producer_leaves_whole_batches_and_their_position(tmp_path: Path) -> None:
    path = tmp_path / "channel.db"

    async def published() -> tuple[int, int]:
        channel = SqliteChannel(path, SystemClock())
        await channel.open()
        await (await channel.subscribe("g", ["t"], "m")).close()
        (lag,) = await channel.lag("g")
        position = await channel.producer_position("p") or 0
        await channel.close()
        return lag.messages, position

    before = 0
    for _ in range(3):
        with process("produce", str(path)):
            until(lambda before=before: asyncio.run(published())[1] > before + 100)  # type: ignore[misc]
        messages_there, position = asyncio.run(published())
        assert messages_there == position > before
        before = position


if __name__ == "__main__":
    program = {"consume": consume, "produce": produce}[sys.argv[1]]
    asyncio.run(program(*sys.argv[2:]))
