"""Runs an app's flows: each in a loop of its own, under its lease, waiting out what passes, until told to stop."""

from __future__ import annotations

import asyncio
import itertools
import logging
from collections.abc import Callable, Sequence
from contextlib import suppress

from headwater.app.parts import Parts
from headwater.app.wiring import ALL, Wired, Wiring
from headwater.clock import Clock
from headwater.database import Database
from headwater.errors import ChannelError, Conflict, HeadwaterError
from headwater.lease import Fence, Lease
from headwater.telemetry import signal

IDLE = 0.25
FOLLOW = 0.5
BACKOFF = 5.0
GRACE = 10.0
SMALL = 64
REST = 2
LONGEST = 0.01
"""A patient flow rests after a step of fewer than SMALL messages: REST times as long as it took, LONGEST seconds at most."""
TOLD = 10
"""A channel that stays away is told of at every so many tries."""


class Runner:
    """Runs the flows of one wired app, or of some of its parts, as one member of its service.

    Without a name for the member it takes the first seat that is free: a process that comes after one that died finds what
    that one had in hand under the same name.
    """

    def __init__(self, wiring: Wiring, member: str = "", parts: Parts = ALL) -> None:
        self.wiring = wiring
        self.member = member
        self.parts = parts
        self.clock: Clock = wiring.clock
        self.database: Database = wiring.database
        self._leases: dict[str, Lease] = {}
        self._taking = asyncio.Lock()
        self._begun: dict[str, int] = {}
        self._stopping = asyncio.Event()
        self._tasks: list[asyncio.Task[None]] = []

    async def start(self) -> None:
        """Start every flow; those over a channel that is away start once it is there. Raises ConfigurationError."""
        self.member = self.member or await self._take_seat()
        await self.wiring.begin(self.parts)
        try:
            joined = [] if self.parts.only else await self._join()
        except ChannelError as error:
            joined = []
            self._tasks.append(asyncio.create_task(self._join_later(error), name="joining"))
        self._run(joined + self.wiring.local(self._fence_of, self.parts))
        signal("app.started", service=self.wiring.service, member=self.member)

    def _run(self, flows: Sequence[Wired]) -> None:
        if self._stopping.is_set():
            return
        self._tasks += [asyncio.create_task(self._tend(wired), name=wired.name) for wired in flows]

    async def _join(self) -> list[Wired]:
        await self.wiring.channel.open()
        return await self.wiring.join(self.member, self._fence_of)

    async def _join_later(self, error: HeadwaterError) -> None:
        """Try again until the channel is there and ready; meanwhile the rest of the service works."""
        for failures in itertools.count(1):
            if failures == 1 or failures % TOLD == 0:
                cause = str(error)
                signal("channel.away", logging.ERROR, service=self.wiring.service, cause=cause, failures=failures)
            await self._pause(_backoff(failures, self.clock))
            if self._stopping.is_set():
                return
            try:
                self._run(await self._join())
            except HeadwaterError as again:
                error = again
            else:
                signal("channel.joined", service=self.wiring.service)
                return

    async def stop(self) -> None:
        """Stop fetching, finish what is in hand within 10 seconds, and give up the leases."""
        self._stopping.set()
        if self._tasks:
            await asyncio.wait(self._tasks, timeout=GRACE)
            for task in self._tasks:
                task.cancel()
            await asyncio.gather(*self._tasks, return_exceptions=True)
        try:
            await self.wiring.leave()
        finally:
            for lease in self._leases.values():
                await lease.release()
        signal("app.stopped", service=self.wiring.service, member=self.member)

    async def _take_seat(self) -> str:
        owner = self.clock.new_id()
        for number in itertools.count(1):
            lease = await self.database.acquire(f"member-{number}", owner)
            if lease is not None:
                self._leases[lease.name] = lease
                return lease.name
        raise AssertionError("there is always another number")

    def _fence_of(self, name: str) -> Callable[[], Fence | None]:
        def fence() -> Fence | None:
            lease = self._leases.get(name)
            if lease is None or not lease.held:
                raise Conflict(f"this member no longer holds the lease {name}")
            return Fence(lease.name, lease.epoch)

        return fence

    async def _tend(self, wired: Wired) -> None:
        failures = 0
        while not self._stopping.is_set():
            try:
                if not await self._may_run(wired):
                    await self._pause(FOLLOW)
                    continue
                begun = self.clock.monotonic()
                done = await wired.flow.step()
                failures = 0
                if self._stopping.is_set():
                    break
                if not done:
                    await wired.flow.wait(IDLE)
                elif wired.patient and done < SMALL:
                    await self.clock.sleep(min(LONGEST, REST * (self.clock.monotonic() - begun)))
            except Exception as error:  # noqa: BLE001 - a flow goes on: what fails now may pass
                failures += 1
                self._report(wired, error, failures)
                await self._pause(_backoff(failures, self.clock))
        with suppress(HeadwaterError):  # as after a crash, then
            await wired.flow.end()

    async def _may_run(self, wired: Wired) -> bool:
        """Whether this member holds the flow's lease, or needs none; a flow begins anew with each lease."""
        if not wired.lease:
            return True
        lease = await self._lease(wired.lease)
        if lease is None:
            return False
        if self._begun.get(wired.name) != lease.epoch:
            await wired.flow.begin()
            self._begun[wired.name] = lease.epoch
        return True

    async def _lease(self, name: str) -> Lease | None:
        """The lease, taken if nobody holds it; flows may share one."""
        async with self._taking:
            lease = self._leases.get(name)
            if lease is not None and lease.held:
                return lease
            taken = await self.database.acquire(name, self.member)
            if taken is not None:
                self._leases[name] = taken
            return taken

    async def _pause(self, seconds: float) -> None:
        waiting = asyncio.ensure_future(self._stopping.wait())
        await asyncio.wait({waiting}, timeout=seconds)
        waiting.cancel()

    def _report(self, wired: Wired, error: Exception, failures: int) -> None:
        """Signal the first failure and some of those that follow; that a lease was lost on the way is none."""
        lease = self._leases.get(wired.lease)
        if isinstance(error, Conflict) and lease is not None and not lease.held:
            signal("lease.lost", logging.WARNING, service=self.wiring.service, flow=wired.name, lease=wired.lease)
            return
        known = isinstance(error, HeadwaterError)
        if failures in (1, 10) or failures % 100 == 0:
            signal(
                "flow.failed",
                logging.ERROR,
                service=self.wiring.service,
                flow=wired.name,
                error=type(error).__name__,
                cause=str(error) if known else "",
                where="" if known else _where(error),
                failures=failures,
            )


def _backoff(failures: int, clock: Clock) -> float:
    """Seconds until the next try, with jitter."""
    return min(BACKOFF, 0.05 * 2.0 ** min(failures, 10)) * (0.5 + clock.random() / 2)


def _where(error: BaseException) -> str:
    trace = error.__traceback__
    while trace is not None and trace.tb_next is not None:
        trace = trace.tb_next
    return f"{trace.tb_frame.f_code.co_qualname}:{trace.tb_lineno}" if trace is not None else ""
