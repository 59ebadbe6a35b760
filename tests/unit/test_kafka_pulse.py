"""The pulse of Kafka's publisher: it beats in the loop between start and stop, and its thread ends with it."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Callable

from headwater.adapters.kafka.pulse import LAST, SHARE, Pulse

NAME = "headwater-kafka-pulse"


class Beats:
    """Counts beats, and waits for so many."""

    def __init__(self) -> None:
        self.count = 0
        self.threads: set[int] = set()

    def beat(self) -> None:
        self.count += 1
        self.threads.add(threading.get_ident())

    async def reach(self, count: int) -> None:
        async with asyncio.timeout(10):
            while self.count < count:
                await asyncio.sleep(0.001)


def until(true: Callable[[], bool]) -> None:
    end = time.monotonic() + 10
    while not true():
        assert time.monotonic() < end
        time.sleep(0.005)


def none_is_left() -> bool:
    return all(one.name != NAME for one in threading.enumerate())


def test_it_beats_in_the_loop_while_it_is_on() -> None:
    async def main() -> None:
        beats = Beats()
        pulse = Pulse(beats.beat)
        await asyncio.sleep(0.02)
        assert beats.count == 0
        for wanted in (3, 6):
            pulse.start()
            await beats.reach(wanted)
            pulse.stop()
            at = beats.count
            await asyncio.sleep(0.02)
            assert beats.count == at
        assert beats.threads == {threading.get_ident()}
        pulse.close()

    asyncio.run(main())
    until(none_is_left)


def test_beats_do_not_pile_up_while_the_loop_is_busy() -> None:
    async def main() -> None:
        beats = Beats()
        pulse = Pulse(beats.beat)
        pulse.start()
        await beats.reach(1)
        at = beats.count
        time.sleep(0.1)  # noqa: ASYNC251 - so is a loop busy
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        assert beats.count <= at + 2
        pulse.close()

    asyncio.run(main())


def test_what_takes_long_is_looked_at_seldom() -> None:
    async def main() -> None:
        beats = Beats()
        pulse = Pulse(beats.beat)
        pulse.start()
        await asyncio.sleep(LAST / SHARE + 0.01)
        at, since = beats.count, time.monotonic()
        await asyncio.sleep(0.05)
        assert beats.count - at <= (time.monotonic() - since) / LAST + 2
        pulse.start()
        await beats.reach(beats.count + 3)
        pulse.close()

    asyncio.run(main())


def test_its_thread_ends_when_it_is_closed_and_when_its_loop_is() -> None:
    async def main(*, closes: bool, starts: bool) -> None:
        pulse = Pulse(Beats().beat)
        if starts:
            pulse.start()
        if closes:
            pulse.close()

    for starts in (True, False):
        asyncio.run(main(closes=True, starts=starts))
        until(none_is_left)
    asyncio.run(main(closes=False, starts=True))
    until(none_is_left)
