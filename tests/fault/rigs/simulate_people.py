"""Who deals with the services of a simulated universe: callers, an operator, and a company that sends the mail."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Iterator, Mapping
from typing import Any

from headwater.consumer import Once
from headwater.errors import HeadwaterError, NotDone, Unknown
from headwater.inbox import Held, Reason
from headwater.operations.dead_letters import id_of, list_held
from headwater.operations.redrive import Effect, redrive
from tests.fault.rigs.simulate_faults import AT_MAIL, Faults, Killed
from tests.fault.rigs.simulate_ledger import Ledger
from tests.fault.rigs.simulate_member import Process
from tests.fault.rigs.simulate_safety import Violated
from tests.fault.rigs.simulate_world import CUSTOMERS, SERVICES, Fund, Place, Take

ORDERS = 8
TAKES = 4
HURRIES = ((0.0,), (0.0, 0.0, 0.0, 0.05, 0.5, 1.0), (0.1, 1.0))
"""How long callers wait between commands: some universes are in a rush."""

Asked = Place | Fund | Take


class Post:
    """A company outside: each letter is to be sent once. It may fail before it did, or not say that it did."""

    def __init__(self, faults: Faults, violated: Violated) -> None:
        self.sent: dict[str, int] = {}
        self._faults = faults
        self._violated = violated

    async def send(self, key: str) -> int:
        """Send a letter; its number."""
        kind = self._faults.draw(AT_MAIL)
        if kind == "mail is closed":
            self._faults.hit(kind, "post", key)
            raise NotDone("closed")
        if key in self.sent:
            self._violated(f"the letter {key} was sent twice")
        self.sent[key] = len(self.sent) + 1
        self._faults.trace.note("post", f"sends {key} as letter {self.sent[key]}")
        await asyncio.sleep(0.01)
        if kind:
            self._faults.hit(kind, "post", key)
            raise OSError("no answer")
        return self.sent[key]


class People:
    """Sends commands as one does who wants to know, and does what an operator must about what fell."""

    def __init__(
        self, chance: random.Random, processes: Mapping[str, Process], ledger: Ledger, post: Post, faults: Faults
    ) -> None:
        self._chance = chance
        self._processes = processes
        self._ledger = ledger
        self._post = post
        self._trace = faults.trace
        self._seen: set[str] = set()
        self._hurry = chance.choice(HURRIES)

    def commands(self) -> list[Asked]:
        """What is asked for, in any order; one customer may be busier than the others."""
        chance = self._chance
        customers = [*CUSTOMERS, *[chance.choice(CUSTOMERS)] * chance.choice((0, 5, 50))]
        commands: list[Asked] = [Fund(customer, 15, number) for number, customer in enumerate(CUSTOMERS)]
        for number in range(ORDERS):
            commands.append(Place(f"o{number}", chance.choice(customers), chance.randint(1, 12)))
        for number in range(TAKES):
            commands.append(Take(chance.choice(customers), chance.randint(1, 12), number))
        chance.shuffle(commands)
        return commands

    async def call(self, commands: Iterator[Asked]) -> None:
        """One caller, who takes the next command until there is none."""
        for command in commands:
            await asyncio.sleep(self._chance.choice(self._hurry))
            await self._ask("orders" if isinstance(command, Place) else "bank", command)

    async def _ask(self, service: str, command: Asked) -> None:
        """Send a command again, under the same key, until the answer is known."""
        key, asked = repr(command), len(self._ledger.balances[command.customer])
        while True:
            process = self._one_of(service)
            try:
                answer: Any = await process.attempt(command, key)
            except (HeadwaterError, Killed) as error:
                answer = Unknown(key, str(error))
            self._trace.note("caller", f"asks {process.name} {command}: {answer!r}")
            if not isinstance(answer, Unknown):
                return self._ledger.answered(service, command, answer, asked)
            await asyncio.sleep(0.2)

    def _one_of(self, service: str) -> Process:
        return self._chance.choice([one for one in self._processes.values() if one.seat.service == service])

    async def operate(self) -> None:
        """Look for dead letters and uncertain effects, ask the post about those, and let them run again."""
        while True:
            for service in SERVICES:
                process = self._one_of(service)
                try:
                    for row in await list_held(process.database):
                        await self._redrive(process, row)
                except (HeadwaterError, Killed):
                    continue
            await asyncio.sleep(2.0)

    async def _redrive(self, process: Process, row: Held) -> None:
        effect = None
        if row.reason is Reason.UNCERTAIN:
            if self._in_flight(process.seat.service, row):
                return
            effect = await self._effect(process, row)
        self._trace.note("operator", f"redrives {id_of(row)} ({row.reason}) {effect or ''}")
        await redrive(process.database, process.clock, id_of(row), effect)

    def _in_flight(self, service: str, row: Held) -> bool:
        """Whether a process may still be on its way to the post: one that is stopped, or at the first look."""
        seen = row.message.id in self._seen
        self._seen.add(row.message.id)
        return not seen or any(one.stopped for one in self._processes.values() if one.seat.service == service)

    async def _effect(self, process: Process, row: Held) -> Effect | None:
        """What the post says of a letter; nothing where its number is known by now."""
        if any(step.done for step in await process.database.steps(row.consumer, row.message.id)):
            return None
        number = self._post.sent.get(Once(process.database, row.consumer, row.message.id).key("mail"))
        return Effect(done=number is not None, outcome=str(number or 0).encode())
