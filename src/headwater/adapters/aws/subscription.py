"""A member of a group: it receives from a queue for each topic, and keeps what it has received until that is settled.

SQS gives out no more of a key while some of it is in hand, so what is fetched together is received together. A call that
receives is never cut off: what SQS has answered would be nobody's until its time in hand is over.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable, Iterable, Sequence
from contextlib import suppress
from time import monotonic
from typing import Final

from msgspec import Struct

from headwater.adapters.aws.publishing import BATCH
from headwater.adapters.aws.queue import Queue, Taken
from headwater.adapters.aws.services import Services, together
from headwater.channel import Delivery
from headwater.clock import Clock
from headwater.errors import ChannelError

RECEIVES: Final = 8
"""Calls that receive from one queue at once, where each before has come back full."""
SHARE_OF_TIME: Final = 3
"""What is in hand is renewed when a third of its time is over."""
MEMBERS: Final = 2**31 - 1


class Batch(Struct, frozen=True):
    """What was fetched together and is not acknowledged."""

    deliveries: list[Delivery]
    taken: list[Taken]


class AwsSubscription:
    """A member of a group; used by one task at a time. It waits in real time."""

    def __init__(self, services: Services, clock: Clock, name: str, queues: Sequence[Queue]) -> None:
        self.closed = False
        self._clock = clock
        self._name = name
        self._queues = queues
        self._poll = services.options.poll
        self._visibility = services.options.visibility
        self._partition = int(clock.random() * MEMBERS)
        self._position = 0
        self._ready: deque[Taken] = deque()
        self._in_hand: deque[Batch] = deque()
        self._wide: dict[str, int] = {}
        self._polls: dict[str, asyncio.Task[int]] = {}
        self._receiving: set[asyncio.Task[int]] = set()
        self._keeping: asyncio.Task[None] | None = None
        self._asked = monotonic()
        self._lost = False

    async def fetch(self, limit: int) -> list[Delivery]:
        self._check()
        self._asked = monotonic()
        if len(self._ready) < limit:
            await together(self._look(queue, limit - len(self._ready)) for queue in self._queues)
            self._check()
        taken = [self._ready.popleft() for _ in range(min(limit, len(self._ready)))]
        deliveries = [self._delivery(one) for one in taken]
        if taken:
            self._in_hand.append(Batch(deliveries, taken))
        return deliveries

    async def wait(self, timeout: float) -> None:
        self._check()
        end = monotonic() + timeout
        while not (self._ready or self._lost or self.closed) and (left := end - monotonic()) > 0:
            for queue in self._queues:
                if queue.url not in self._polls:
                    self._polls[queue.url] = self._receive(queue, BATCH, self._poll)
            await asyncio.wait(self._polls.values(), timeout=left, return_when=asyncio.FIRST_COMPLETED)
            for queue in self._queues:
                self._over(queue)

    async def acknowledge(self, deliveries: Sequence[Delivery]) -> None:
        self._check()
        batches = self._whole(deliveries)
        taken = [one for batch in batches for one in batch.taken]
        lost = any(one.until <= monotonic() for one in taken if not one.deleted)
        if not lost and taken:
            lost = any(await together(queue.delete(some) for queue, some in _by_queue(taken)))
        if lost:
            await self._lose()
            self._check()
        for _ in batches:
            self._in_hand.popleft()

    async def release(self) -> None:
        self._check()
        self._ready.extendleft(reversed([one for batch in self._in_hand for one in batch.taken if not one.deleted]))
        self._in_hand.clear()

    async def close(self) -> None:
        if self.closed:
            return
        self.closed = True
        if self._receiving:
            await asyncio.wait(self._receiving)
        for task in self._polls.values():
            task.exception()
        if self._keeping is not None:
            self._keeping.cancel()
            await asyncio.wait({self._keeping})
        with suppress(ChannelError):  # it comes to others when its time is over
            await self._give_back(self._kept())

    def oldest(self, url: str) -> int | None:
        """When the oldest message that it has of a queue was published (microseconds)."""
        return min((one.sent for one in self._kept() if one.queue.url == url), default=None)

    # --- receiving ---

    async def _look(self, queue: Queue, limit: int) -> None:
        """Receive what is there; nothing is where a call that waits is still waiting."""
        if queue.url in self._polls and not self._over(queue):
            return
        wide = min(self._wide.get(queue.url, 1), -(-limit // BATCH))
        tasks = [self._receive(queue, limit, 0) for _ in range(wide)]
        await asyncio.wait(tasks)
        full = all(task.result() == BATCH for task in tasks)
        self._wide[queue.url] = min(wide * 2, RECEIVES) if full else 1

    def _receive(self, queue: Queue, most: int, wait: int) -> asyncio.Task[int]:
        async def received() -> int:
            found = await queue.receive(most, wait, self._clock.new_id())
            self._ready.extend(found)
            if found and (self._keeping is None or self._keeping.done()):
                self._keeping = asyncio.create_task(self._keep())
            return len(found)

        task = asyncio.create_task(received())
        self._receiving.add(task)
        task.add_done_callback(self._receiving.discard)
        return task

    def _over(self, queue: Queue) -> bool:
        """Whether a call that waited has ended. Raises ChannelError if it has failed."""
        task = self._polls.get(queue.url)
        if task is None or not task.done():
            return False
        del self._polls[queue.url]
        task.result()
        return True

    def _delivery(self, one: Taken) -> Delivery:
        self._position = max(self._position + 1, self._clock.now())
        return Delivery(one.queue.topic, one.key, one.headers, one.body, self._position, self._partition)

    # --- keeping ---

    def _kept(self, wanted: Callable[[Taken], bool] = lambda one: True) -> list[Taken]:
        """What is received and not settled, in order."""
        kept = [one for batch in self._in_hand for one in batch.taken] + list(self._ready)
        return [one for one in kept if not one.deleted and wanted(one)]

    async def _keep(self) -> None:
        """Renew what is received while there is any; what nobody asks for goes back."""
        share = self._visibility / SHARE_OF_TIME
        while self._kept():
            await asyncio.sleep(share)
            if monotonic() - self._asked > self._visibility:
                idle = list(self._ready)
                self._ready.clear()
                with suppress(ChannelError):
                    await self._give_back(idle)
            late = monotonic() + 2 * share
            lost = False
            with suppress(ChannelError):  # it is tried again while there is time
                due = self._kept(lambda one: one.until < late and not one.settling)  # noqa: B023 - called at once
                lost = any(await together(queue.extend(some) for queue, some in _by_queue(due)))
            if lost or self._kept(lambda one: one.until <= monotonic()):
                await self._lose()

    async def _lose(self) -> None:
        """Something is no longer ours: give back all, so that none of it overtakes what comes again."""
        kept = self._kept(lambda one: one.until > monotonic())
        self._lost = True
        self._ready.clear()
        self._in_hand.clear()
        with suppress(ChannelError):
            await self._give_back(kept)

    async def _give_back(self, taken: Iterable[Taken]) -> None:
        await together(queue.give_back(some) for queue, some in _by_queue(taken))

    # --- settling ---

    def _whole(self, deliveries: Sequence[Delivery]) -> list[Batch]:
        """The batches that these deliveries are, from the first in hand on."""
        found: list[Batch] = []
        done = 0
        for batch in self._in_hand:
            if done == len(deliveries):
                break
            if _places(deliveries[done : done + len(batch.deliveries)]) != _places(batch.deliveries):
                break
            found.append(batch)
            done += len(batch.deliveries)
        if done != len(deliveries):
            raise ChannelError("only whole batches can be acknowledged, in the order they were fetched")
        return found

    def _check(self) -> None:
        if self.closed:
            raise ChannelError(f"{self._name} has left")
        if self._lost:
            self._lost = False
            raise ChannelError(
                f"{self._name} had messages in hand for longer than SQS keeps them: what it had fetched is fetched again"
            )


def _by_queue(taken: Iterable[Taken]) -> list[tuple[Queue, list[Taken]]]:
    found: dict[Queue, list[Taken]] = {}
    for one in taken:
        found.setdefault(one.queue, []).append(one)
    return list(found.items())


def _places(deliveries: Sequence[Delivery]) -> list[tuple[int, int]]:
    return [(one.partition, one.position) for one in deliveries]
