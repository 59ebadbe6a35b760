"""Wires what an app declares to its database and channel: consumers, sources, feeds, relay, scheduler and repair."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Sequence
from typing import Protocol

from msgspec import Struct

from headwater.app.declared import Declarations
from headwater.app.parts import Parts
from headwater.app.routes import check_listened, commands_to, control_of, fed_by, published, refuse, routes
from headwater.channel import Channel, Start, Subscription
from headwater.checkpoint import Consuming
from headwater.claims import Claims
from headwater.clock import Clock
from headwater.consumer import (
    ChannelSource,
    CommandWorker,
    Consumer,
    Feed,
    HandlerWorker,
    LogSource,
    Options,
    Retrying,
    Worker,
)
from headwater.database import Database
from headwater.deciding import Deciding
from headwater.errors import DeclarationError
from headwater.handling import Handling
from headwater.lease import Fence
from headwater.outbox import Outbox
from headwater.projection import ProjectionWorker, inline_fold
from headwater.relay import Relay
from headwater.repair import Answering, Asking
from headwater.retry import Retry
from headwater.saga import SagaWorker
from headwater.scheduler import Scheduler
from headwater.tail import Tail
from headwater.telemetry import signal

ALL = Parts()
FenceOf = Callable[[str], Callable[[], Fence | None]]


class Flow(Protocol):
    """One hop as a loop: `step` does what there is to do, `wait` waits until there may be more."""

    async def begin(self) -> None:
        """Its lease was taken: another member may have run it since, so forget what was assumed."""
        ...

    async def step(self) -> int:
        """Do one piece of work; how many messages it had, 0 where there was nothing to do."""
        ...

    async def wait(self, timeout: float) -> None:
        """Until there may be work, at most so many seconds."""
        ...

    async def end(self) -> None:
        """It stops, with nothing in hand: leave word of that where it is kept."""
        ...


class Wired(Struct, frozen=True):
    """A flow, and the lease that it needs (empty: none, several processes may run it).

    A patient one rests after a small piece of work, so that what comes meanwhile is done at once; nobody waits for its end.
    """

    name: str
    flow: Flow
    lease: str
    patient: bool = False


class Plan(Struct, frozen=True):
    """A consumer before it is wired: its worker, and the topics and log that feed it."""

    consumer: Consumer
    worker: Worker
    topics: frozenset[str]
    logged: bool


class WiringOptions(Struct, frozen=True):
    """How an app runs: where its new channel subscriptions start, retries, batch size, whether consumers journal, and its claims."""

    start: Start = "beginning"
    retry: Retry = Retry()
    batch: int = 500
    journal: bool = False
    claims: Claims | None = None


class Wiring:
    """An app wired to a database and a channel."""

    def __init__(
        self, declared: Declarations, database: Database, channel: Channel, clock: Clock, options: WiringOptions
    ) -> None:
        self.declared = declared
        self.database = database
        self.channel = channel
        self.clock = clock
        self.options = options
        self.service = declared.service
        self.log = Tail(database)
        self.outbox = Outbox(declared.schema, clock, declared.service, lambda: channel.capabilities.room)
        self.deciding = self._deciding()
        self.handling = self.deciding.handling
        self.inline = [one for one in declared.projections.values() if one.model.__inline__]
        self.plans = [self._plan(worker, name, retry) for name, worker, retry in self._workers()]
        self.subscriptions: list[Subscription] = []

    def _deciding(self) -> Deciding:
        """Commands from callers and from messages are decided apart: neither rests on what the other has not committed."""
        declared = self.declared
        handling = Handling(self.database, declared.schema, self.outbox, self.clock, declared.deciders.values())
        return Deciding(handling, declared.boundaries.values())

    async def prepare(self) -> None:
        """Make the tables of read models and fold the inline ones from now on."""
        for projection in self.declared.projections.values():
            await self.database.create_table(projection.table)
        self.database.fold_inline([inline_fold(projection, self.declared.schema) for projection in self.inline])

    async def flows(self, member: str, fence_of: FenceOf, parts: Parts = ALL) -> list[Wired]:
        """Join the channel and make the flows of these parts; `fence_of` gives the fence of a lease by name."""
        await self.begin(parts)
        joined = [] if parts.only else await self.join(member, fence_of)
        return joined + self.local(fence_of, parts)

    def check(self, parts: Parts) -> None:
        """Refuse parts that cannot run apart. Raises ConfigurationError."""
        parts.check(self.service, {self._short(plan): plan.topics for plan in self.plans})

    async def begin(self, parts: Parts) -> None:
        """Check the parts, and note which consumers there are. Raises ConfigurationError."""
        self.check(parts)
        await self.database.register(self._register())

    def local(self, fence_of: FenceOf, parts: Parts) -> list[Wired]:
        """The flows that need no channel: what the own log feeds, timers, and what waits for another try."""
        wired = (
            []
            if parts.only
            else [Wired("scheduler", Scheduler(self.database, self.clock, fence_of("scheduler")), "scheduler")]
        )
        for plan in self.plans:
            if parts.run(self._short(plan)):
                name = plan.consumer.name
                if plan.logged:
                    wired.append(self._log_feed(plan, fence_of(name)))
                wired.append(Wired(f"{name}/held", Retrying(plan.consumer, fence_of(name)), name))
        return wired

    @property
    def _crowded(self) -> bool:
        """Whether a flow that works little and often is in the way of others."""
        return self.channel.capabilities.one_writer

    def _short(self, plan: Plan) -> str:
        return plan.consumer.name.removeprefix(f"{self.service}.")

    async def join(self, member: str, fence_of: FenceOf) -> list[Wired]:
        """Join the channel, which is open, and make the flows over it. Raises ChannelError, or ConfigurationError."""
        await self._check_channel()
        try:
            return await self._joined(member, fence_of)
        except BaseException:
            await self.leave()
            raise

    async def _joined(self, member: str, fence_of: FenceOf) -> list[Wired]:
        topics = sorted(published(self.declared))
        relay = Relay(self.service, self.database, self.log, self.channel, self.clock, fence_of("relay"), topics)
        wired = [Wired("relay", relay, "relay", patient=self._crowded)]
        fed = [plan for plan in self.plans if plan.topics]
        if fed:
            wired.append(await self._channel_feed(fed, member))
            asking = Asking(self.service, [plan.consumer.name for plan in fed], self.database, self.channel, self.clock)
            wired.append(Wired("asking", asking, "asking"))
        control_topic = control_of(self.service)
        control = await self.channel.subscribe(control_topic, [control_topic], member, "now")
        self.subscriptions.append(control)
        answering = Answering(self.service, self.database, self.channel, self.clock, control)
        wired.append(Wired("answering", answering, ""))
        return wired

    async def _check_channel(self) -> None:
        check_listened(self.declared, self.channel)
        findings = await self.channel.examine(routes(self.declared))
        refuse(findings, self.service)
        for one in findings:
            signal("channel.unsafe", logging.WARNING, service=self.service, what=one.what, why=one.why)

    async def leave(self) -> None:
        """Leave the channel's groups, all at once: one may have to wait for what is under way."""
        leaving, self.subscriptions = self.subscriptions, []
        left = await asyncio.gather(*(one.close() for one in leaving), return_exceptions=True)
        for error in filter(None, left):
            raise error

    def _log_feed(self, plan: Plan, fence: Callable[[], Fence | None]) -> Wired:
        consumer, size = plan.consumer, self.options.batch
        source = LogSource(self.database, self.log, self.clock, consumer.name, consumer.worker.wants)
        feed = Feed(f"{consumer.name}/log", source, [consumer], self.database, self.clock, fence=fence, size=size)
        patient = self._crowded and not isinstance(consumer.worker, ProjectionWorker)
        return Wired(feed.name, feed, consumer.name, patient=patient)

    async def _channel_feed(self, plans: Sequence[Plan], member: str) -> Wired:
        topics = sorted({topic for plan in plans for topic in plan.topics})
        subscription = await self.channel.subscribe(self.service, topics, member, self.options.start)
        self.subscriptions.append(subscription)
        source = ChannelSource(subscription, f"{self.service}.channel", self.clock, self.declared.listened)
        consumers, size = [plan.consumer for plan in plans], self.options.batch
        feed = Feed(f"{source.name}/{member}", source, consumers, self.database, self.clock, size=size)
        return Wired(source.name, feed, "", patient=self._crowded)

    def _workers(self) -> list[tuple[str, Worker, Retry | None]]:
        found: list[tuple[str, Worker, Retry | None]] = []
        if self.declared.decides or self.declared.sends:
            name = f"{self.service}.commands"
            found.append((name, CommandWorker(name, self.service, self._deciding()), None))
        for short, reactions in self.declared.sagas.items():
            name = f"{self.service}.{short}"
            found.append((name, SagaWorker(name, reactions, self.outbox, self.database), None))
        for short, named in self.declared.handlers.items():
            name = f"{self.service}.{short}"
            if named.handler.transactional and not self.database.capabilities.sql:
                raise DeclarationError(
                    f"{short} asks for a transaction, and this store has no SQL; use sqlite:///… or postgresql://…"
                )
            found.append((name, HandlerWorker(name, named.handler, self.outbox, self.database), named.retry))
        for short, projection in self.declared.projections.items():
            if not projection.model.__inline__:
                name = f"{self.service}.{short}"
                found.append((name, ProjectionWorker(name, projection, self.declared.schema, self.database), None))
        return found

    def _plan(self, worker: Worker, name: str, retry: Retry | None) -> Plan:
        topics, logged = self._sources(worker)
        options = Options(
            retry=retry or self.options.retry,
            journal=self.options.journal,
            from_now=self.options.start == "now",
            topics=topics,
            listened=frozenset(one.type for one in self.declared.listened.values() if one.type in worker.types),
            claims=self.options.claims,
        )
        return Plan(Consumer(name, worker, self.database, self.clock, options), worker, topics, logged)

    def _sources(self, worker: Worker) -> tuple[frozenset[str], bool]:
        """The topics that feed a worker, and whether our own log does."""
        if isinstance(worker, CommandWorker):
            return frozenset(commands_to(self.declared)), self.declared.sends
        return fed_by(self.declared, worker.types)

    def _register(self) -> list[Consuming]:
        known = [Consuming(f"{self.service}.relay", "log", "relay")]
        for plan in self.plans:
            if plan.logged:
                known.append(Consuming(plan.consumer.name, "log", plan.worker.kind))
            if plan.topics:
                known.append(Consuming(plan.consumer.name, "channel", plan.worker.kind, sorted(plan.topics)))
        return known


async def wire(
    declared: Declarations, database: Database, channel: Channel, clock: Clock, options: WiringOptions
) -> Wiring:
    """Wire an app to an open database and channel."""
    declared.check()
    wiring = Wiring(declared, database, channel, clock, options)
    await wiring.prepare()
    return wiring
