"""The desk of the `kill` rig: it sends commands, sees after what is dead or in doubt, rebuilds, and does mischief to the channel."""

from __future__ import annotations

import asyncio
import os
import random
from collections.abc import Awaitable, Callable, Iterator
from contextlib import suppress
from typing import Any

import msgspec

from headwater import App, Committed, HeadwaterError, Rejected, Stale
from headwater.app import open_channel
from headwater.channel import Channel, Publication
from headwater.errors import ChannelError, DatabaseError
from headwater.inbox import Held, Reason
from headwater.operations import Effect, discard, id_of, list_held, rebuild_projection, redrive
from tests.fault.rigs.kill_ledger import Ledger
from tests.fault.rigs.kill_member import Life, opened
from tests.fault.rigs.kill_messages import Book, Move, Pay, number_of
from tests.fault.rigs.kill_services import Place, Statement

ACCOUNTS = 8
PURSES = 6
AT_ONCE = 6
PAUSE = 0.06
LARGE = "x" * 4_000
ANY = "SELECT topic, key, headers, body FROM messages WHERE for_group IS NULL ORDER BY random() LIMIT 1"


class Acknowledged:
    """What the desk was answered, kept across its lives: a payment's number with `+` committed or `-` refused, `!` a complaint."""

    def __init__(self, place: Place) -> None:
        self.path = place.folder / "acknowledged"

    def note(self, mark: str, what: object) -> None:
        """Keep an answer."""
        descriptor = os.open(self.path, os.O_WRONLY | os.O_APPEND | os.O_CREAT)
        os.write(descriptor, f"{mark}{what}\n".encode())
        os.close(descriptor)

    def numbers(self, mark: str) -> set[int]:
        """The numbers that were answered so."""
        return set(map(int, self._noted(mark)))

    def complaints(self) -> list[str]:
        """What the desk has seen that must not be."""
        return self._noted("!")

    def _noted(self, mark: str) -> list[str]:
        lines = self.path.read_text().splitlines() if self.path.exists() else []
        return [line[1:] for line in lines if line[0] == mark]


def order(seed: int, number: int) -> Pay | Move | Book:
    """The command of a number: always the same, however often the desk dies over it."""
    chance = random.Random(f"{seed} {number}")
    if chance.random() < 0.2:
        return Book(f"r{number // 40}", f"g{number // 60}-{chance.randrange(3)}", number)
    account, cents = f"a{chance.randrange(ACCOUNTS)}", chance.randint(1, 100)
    if chance.random() < 0.5:
        return Move(account, number, cents, f"p{chance.randrange(PURSES)}")
    return Pay(account, number, cents + 50, LARGE if number % 13 == 0 else "")


class Desk:
    """One life of the desk."""

    def __init__(self, life: Life, app: App, bank: Any, vault: Any, channel: Channel) -> None:
        self.life = life
        self.app = app
        self.databases = (bank, vault)
        self.channel = channel
        self.acknowledged = Acknowledged(life.place)
        self.chance = random.Random(life.weather.salt)

    async def work(self) -> None:
        """Do everything side by side, for as long as it lives."""
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(self._send())
            for part, pause in ((self.tend, 0.05), (self._mischief, 0.04), (self._rebuild, 0.02)):
                tasks.create_task(self._again(part, pause))

    async def finish(self) -> None:
        """Send what was not answered and one payment more on each account, and see to it that all comes to rest."""
        numbers = self._open()
        known = max([0, *self.acknowledged.numbers("+"), *self.acknowledged.numbers("-")])
        await asyncio.gather(*(self._order(order(self.life.seed, next(numbers))) for _ in range(AT_ONCE)))
        while (number := next(numbers)) <= known:
            await self._order(order(self.life.seed, number))
        for account in range(ACCOUNTS):
            await self._order(Pay(f"a{account}", 1_000_000 + account, 1))
        ledger = Ledger(self.life.place.folder)
        while ledger.unsettled():
            await self.tend()
            await asyncio.sleep(0.05)

    async def _again(self, part: Callable[[], Awaitable[None]], pause: float) -> None:
        while True:
            await asyncio.sleep(pause * self.chance.uniform(0.5, 1.5))
            with suppress(DatabaseError, ChannelError):  # a server is away
                await part()

    # --- commands ---

    def _open(self) -> Iterator[int]:
        """The numbers that have no answer yet."""
        answered = self.acknowledged.numbers("+") | self.acknowledged.numbers("-")
        number = 0
        while True:
            number += 1
            if number not in answered:
                yield number

    async def _send(self) -> None:
        numbers = self._open()
        while True:
            orders = [order(self.life.seed, next(numbers)) for _ in range(AT_ONCE)]
            await asyncio.gather(*map(self._order, orders))
            await asyncio.sleep(PAUSE)

    async def _order(self, command: Any) -> None:
        while True:
            with suppress(HeadwaterError):
                answer = await self.app.attempt(command, key=f"order-{command.number}")
                if isinstance(answer, Committed | Rejected):
                    self.acknowledged.note("+" if isinstance(answer, Committed) else "-", command.number)
                    await self._read_back(command, answer)
                    return
            await asyncio.sleep(0.02)

    async def _read_back(self, command: Pay | Move | Book, answer: Committed | Rejected) -> None:
        """Read what was written: each read model counts the events of an account, and so reaches its version."""
        if isinstance(answer, Rejected) or isinstance(command, Book) or self.chance.random() < 0.5:
            return
        for projection in self.app.declared.projections.values():
            with suppress(Stale):
                row: Any = await self.app.get(projection.model, command.account, after=answer, timeout=0.2)
                if row is None or row.count < answer.version:
                    self.acknowledged.note(
                        "!", f"{command.account} at {answer} was read as {row} in {projection.table.name}"
                    )

    # --- what a person does ---

    async def tend(self) -> None:
        """Set free what is dead, and settle what is in doubt by a look at the outside."""
        for database in self.databases:
            for row in await list_held(database):
                with suppress(HeadwaterError):  # it was changed meanwhile
                    await self._tend(database, row)

    async def _tend(self, database: Any, row: Held) -> None:
        if row.raw:
            await discard(database, id_of(row))
        elif row.reason is Reason.UNCERTAIN:
            done = number_of(row.message.data) in self.life.place.outside.happened()
            await redrive(database, self.app.clock, id_of(row), Effect(done, b"true"))
        else:
            await redrive(database, self.app.clock, id_of(row))

    async def _rebuild(self) -> None:
        with suppress(HeadwaterError):  # its service was never still
            await rebuild_projection(self.app, self.databases[0], Statement.__name__, lambda done, of: None)

    # --- what nobody should do to a channel ---

    async def _mischief(self) -> None:
        deed = self.chance.choice((self._junk, self._repeat))
        with suppress(HeadwaterError):
            await deed()

    async def _junk(self) -> None:
        await self.channel.publish([Publication("bank.Account", "junk", {"type": "junk"}, b"\xff")])

    async def _repeat(self) -> None:
        for topic, key, headers, body in self.life.place.ground.rows("channel", ANY):
            fields = headers if isinstance(headers, dict) else msgspec.json.decode(headers, type=dict[str, str])
            await self.channel.publish([Publication(topic, key, fields, body, delay=0.1)])


async def attend(life: Life) -> None:
    """Be the desk: until it is killed, or in calm weather until all has come to rest."""
    app = life.place.app("bank", life.weather, life.batch)
    bank = await opened(life.place, app, "bank")
    vault = await opened(life.place, app, "vault")
    channel = open_channel(life.place.channel, app.clock)
    await channel.open()
    await app.connect(bank, channel)
    desk = Desk(life, app, bank, vault, channel)
    if not life.weather.calm:
        await desk.work()
    await desk.finish()
    await channel.close()
    await vault.close()
    await app.stop()
