"""Two services, a saga, timers and read models under every fault at once, for many seeds: the books balance in the end.

A failing seed replays: the clock, the ids and the chances are all drawn from it.
"""

from __future__ import annotations

import asyncio
import random
from collections import Counter
from collections.abc import Iterator
from typing import Any

import msgspec
import pytest

from headwater import (
    END,
    After,
    Aggregate,
    App,
    CancelTimer,
    ChannelError,
    Command,
    Conflict,
    DatabaseError,
    Event,
    ReadModel,
    Refused,
    Rejected,
    Retry,
    Saga,
    Unknown,
    decide,
    evolve,
    react,
)
from headwater.adapters.memory import MemoryDatabase
from headwater.database import Failed
from headwater.testing.harness import Harness
from tests.flow.rig import Killed, log_of, payloads

MONEY = 40
CUSTOMERS = ("ada", "bob", "cyd")


class Place(Command, service="orders"):
    order: str
    customer: str
    cents: int


class Finish(Command, service="orders"):
    order: str
    how: str


class Placed(Event, service="orders", category="Order"):
    order: str
    customer: str
    cents: int


class Finished(Event, service="orders", category="Order"):
    order: str
    how: str


class Overdue(Event, service="orders"):
    order: str


class Fund(Command, service="bank"):
    customer: str
    cents: int


class Charge(Command, service="bank"):
    customer: str
    order: str
    cents: int


class Funded(Event, service="bank", category="Account"):
    customer: str
    cents: int


class Charged(Event, service="bank", category="Account"):
    customer: str
    order: str
    cents: int
    left: int


class Order(Aggregate, key="order"):
    how: str = ""

    @decide
    def place(self, command: Place) -> Placed:
        if self.how:
            raise Rejected("placed already")
        return Placed(command.order, command.customer, command.cents)

    @decide
    def finish(self, command: Finish) -> Finished:
        if self.how not in ("", "placed"):
            raise Rejected("finished already")
        return Finished(command.order, command.how)

    @evolve
    def placed(self, event: Placed) -> None:
        self.how = "placed"

    @evolve
    def finished(self, event: Finished) -> None:
        self.how = event.how


class Account(Aggregate, key="customer"):
    cents: int = 0

    @decide
    def fund(self, command: Fund) -> Funded:
        return Funded(command.customer, command.cents)

    @decide
    def charge(self, command: Charge) -> Charged:
        if command.cents > self.cents:
            raise Rejected("no money")
        return Charged(command.customer, command.order, command.cents, self.cents - command.cents)

    @evolve
    def funded(self, event: Funded) -> None:
        self.cents += event.cents

    @evolve
    def charged(self, event: Charged) -> None:
        self.cents -= event.cents


class Buying(Saga, key="order"):
    overdue: bool = False
    refused: bool = False

    @react(starts=True)
    def placed(self, event: Placed) -> Iterator[Any]:
        yield Charge(event.customer, event.order, event.cents)
        yield After(Overdue(event.order), seconds=3)

    @react
    def charged(self, event: Charged) -> Iterator[Any]:
        yield CancelTimer(Overdue)
        yield Finish(event.order, "late" if self.overdue else "paid")
        yield END

    @react
    def late(self, event: Overdue) -> None:
        self.overdue = True

    @react
    def no(self, event: Refused) -> Iterator[Any]:
        if self.refused:
            raise AssertionError("refused twice")
        self.refused = True
        if event.type == "bank.Charge":
            yield CancelTimer(Overdue)
            yield Finish(event.id, "never") if not event.stream else self._finish(event)
            yield END

    def _finish(self, event: Refused) -> Finish:
        return Finish(event.stream.partition("/")[2], "refused")


class Spent(ReadModel, key="customer"):
    cents: int = 0
    orders: list[str] = []

    @evolve
    def charged(self, event: Charged) -> None:
        self.cents += event.cents
        self.orders.append(event.order)


class State(ReadModel, key="order", inline=True):
    how: str = ""

    @evolve
    def placed(self, event: Placed) -> None:
        self.how = "placed"

    @evolve
    def finished(self, event: Finished) -> None:
        self.how = event.how


class Heard(Event):
    order: str


class World:
    """The services, and the faults that befall them."""

    def __init__(self, seed: int) -> None:
        self.chance = random.Random(seed)
        self.seed = seed
        self.calls = 0
        self.orders = self.app("orders", Order, Buying, State)
        self.bank = self.app("bank", Account)
        self.stats = self.app("stats", Spent)
        self.twins = [self.app("bank", Account), self.app("stats", Spent), self.app("orders", Order, Buying, State)]
        self.faulty = True
        self.apps = (self.orders, self.bank, self.stats)
        self.harness = Harness(*self.apps, seed=seed)

    def app(self, name: str, *declared: Any) -> App:
        batch = self.chance.choice([1, 2, 5, 100])
        app = App(name, retry=Retry(attempts=10_000, base=0.05, cap=2.0), batch=batch)
        app.add(*declared)
        if name == "stats":
            app.on(Finished)(self.hear)
        return app

    async def hear(self, event: Finished) -> Heard:
        for _ in range(self.chance.randrange(3)):
            await asyncio.sleep(0)
        if self.happens(0.1):
            raise RuntimeError("the handler stumbles")
        return Heard(event.order)

    async def begin(self) -> None:
        """Second members of the services share what the channel brings; what needs a lease stays with the first."""
        self.twin_flows: list[Any] = []
        self.afflict()
        for twin in self.twins:
            twin.clock = self.harness.clock
            database = MemoryDatabase(self.harness.clock, self.harness.databases[twin.name].file)
            await database.open()
            database.commit = self._commit(database.commit)  # type: ignore[method-assign]
            wiring = await twin.connect(database, self.harness.channel)
            for wired in await wiring.flows("twin", lambda _: lambda: None):
                if not wired.lease:
                    self.twin_flows.append(wired.flow)

    async def end(self) -> None:
        for twin in self.twins:
            await twin.wiring.leave()
            await twin.stop()

    def happens(self, share: float) -> bool:
        return self.faulty and self.chance.random() < share

    def afflict(self) -> None:
        """Put faults into every database, and into the channel."""
        for database in self.harness.databases.values():
            if "commit" not in vars(database):
                database.commit = self._commit(database.commit)  # type: ignore[method-assign]
        channel = self.harness.channel
        if "publish" not in vars(channel):
            channel.publish = self._publish(channel.publish)  # type: ignore[method-assign]

    def _commit(self, commit: Any) -> Any:
        async def faulty(writes: Any) -> Any:
            fault = self.chance.choice(["killed", "error", "failed", "unknown"]) if self.happens(0.04) else ""
            after = self.happens(0.5)
            if fault and after:
                await commit(writes)
            if fault == "killed":
                raise Killed
            if fault == "error" and not after:
                raise DatabaseError("the database stumbles")
            if fault == "failed" and not after:
                return [Failed(DatabaseError("it cannot")) for _ in writes]
            if fault == "unknown" or (fault and after):
                return [Unknown(cause="the cable was cut") for _ in writes]
            return await commit(writes)

        return faulty

    def _publish(self, publish: Any) -> Any:
        async def faulty(publications: Any, **options: Any) -> Any:
            sent = list(publications)
            if self.happens(0.05):
                raise ChannelError("the broker stumbles")
            if self.happens(0.2):
                sent += [self.chance.choice(sent) for _ in range(3) if sent]
            if self.happens(0.2):
                self.chance.shuffle(sent)
            if self.happens(0.2):
                sent = [msgspec.structs.replace(one, delay=self.chance.random() * 3) for one in sent]
            answer = await publish(sent, **options)
            if self.happens(0.05):
                raise ChannelError("the answer was lost")
            return answer

        return faulty

    async def work(self) -> None:
        """Let the services work until they rest or one dies; what died starts again."""
        self.afflict()
        if self.happens(0.3):
            await self._break_off()
        if self.happens(0.7):
            await self._side_by_side(self.chance.randrange(600))
        try:
            await self.harness.settle()
        except (DatabaseError, ChannelError, Unknown):
            return
        except Killed:
            await self.harness.restart(self.chance.choice(self.apps))
        if self.happens(0.1):
            await self.harness.restart(self.chance.choice(self.apps))

    async def _break_off(self) -> None:
        """At any moment all that is under way is given up, and one of the services starts again."""
        working = asyncio.ensure_future(self.harness.settle())
        for _ in range(self.chance.randrange(400)):
            await asyncio.sleep(0)
        working.cancel()
        try:
            await working
        except (asyncio.CancelledError, DatabaseError, ChannelError, Unknown, Killed):
            pass
        await self.harness.restart(self.chance.choice(self.apps))
        self.afflict()

    async def _side_by_side(self, turns: int) -> None:
        """All flows of all members at once, as they run in earnest, until one dies or for some turns of the loop."""
        flows = [flow for flows in self.harness._flows.values() for flow in flows] + self.twin_flows
        self.harness._working = True
        tasks = [asyncio.ensure_future(self._tend(flow)) for flow in flows]
        tasks += [asyncio.ensure_future(self._call()) for _ in range(3)]
        for _ in range(turns):
            await asyncio.sleep(0)
            if any(task.done() and not task.cancelled() and isinstance(task.exception(), Killed) for task in tasks):
                break
        for task in tasks[: len(flows)]:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        self.harness._working = False
        await self.harness.restart(self.chance.choice(self.apps))
        self.afflict()

    async def _tend(self, flow: Any) -> None:
        while True:
            try:
                worked = await flow.step()
            except (DatabaseError, ChannelError, Unknown, Conflict):
                worked = False
            for _ in range(1 if worked else self.chance.randrange(1, 30)):
                await asyncio.sleep(0)

    async def _call(self) -> None:
        """A caller who sends while all is at work."""
        self.calls += 1
        number = self.calls
        customer = self.chance.choice(CUSTOMERS)
        await self.send(self.orders, Place(f"c{number}", customer, self.chance.randrange(1, 9)), f"call-{number}")

    async def send(self, app: App, command: Any, key: str) -> None:
        """As a caller does who wants to know: again, under the same key, until the answer is known."""
        while True:
            try:
                answer = await app.attempt(command, key=key)
            except (DatabaseError, Killed):
                await asyncio.sleep(0)
                continue
            if not isinstance(answer, Unknown):
                return

    async def check(self) -> None:
        world = self.harness
        assert [row for app in self.apps for row in await world.held(app)] == [], self.seed
        placed = {one.order: one for one in await payloads(world, self.orders, Placed)}
        finished = await payloads(world, self.orders, Finished)
        assert Counter(one.order for one in finished) == Counter(placed.keys()), self.seed
        charged = await payloads(world, self.bank, Charged)
        assert len({one.order for one in charged}) == len(charged), self.seed
        paid = {one.order for one in finished if one.how in ("paid", "late")}
        assert paid == {one.order for one in charged}, self.seed
        for customer in CUSTOMERS:
            left = MONEY
            mine = [one for one in charged if one.customer == customer]
            for one in mine:
                left -= one.cents
                assert one.left == left >= 0, self.seed
            row = await self.stats.get(Spent, customer)
            assert (row.cents if row else 0) == MONEY - left, self.seed
            assert sorted(row.orders if row else []) == sorted(one.order for one in mine), self.seed
        states = {row.order: row.how for row in await self.orders.find(State, limit=1000)}
        assert states == {one.order: one.how for one in finished}, self.seed
        heard = Counter(one.order for one in await payloads(world, self.stats, Heard))
        assert heard == Counter(placed.keys()), self.seed
        for app in self.apps:
            log = await log_of(world, app)
            versions: dict[str, int] = {}
            for one in log:
                versions[one.stream] = versions.get(one.stream, 0) + 1
                assert one.version == versions[one.stream], self.seed


async def live(seed: int) -> None:
    world = World(seed)
    async with world.harness:
        await world.begin()
        for customer in CUSTOMERS:
            await world.send(world.bank, Fund(customer, MONEY), f"fund-{customer}")
        for n in range(30):
            customer = world.chance.choice(CUSTOMERS)
            order = Place(f"o{n}", customer, world.chance.randrange(1, 9))
            await world.send(world.orders, order, f"place-{n}")
            if world.chance.random() < 0.6:
                await world.work()
            world.harness.clock.advance(world.chance.choice([0.0, 0.3, 2.0, 6.0]))
        world.faulty = False
        for _ in range(12):
            await world.harness.advance(seconds=11)
            while any([await flow.step() for flow in world.twin_flows]):
                await world.harness.settle()
        await world.check()
        await world.end()


@pytest.mark.parametrize("first", range(0, 40, 10))
def test_the_books_balance_whatever_happens(first: int) -> None:
    for seed in range(first, first + 10):
        asyncio.run(asyncio.wait_for(live(seed), 30))
