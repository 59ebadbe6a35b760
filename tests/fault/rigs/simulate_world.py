"""The services of a simulated universe: `orders` with a saga and timers, `bank` with money, `stats` that listens."""

from __future__ import annotations

import asyncio
import functools
import zlib
from collections.abc import Awaitable, Callable, Iterator
from contextvars import ContextVar
from typing import Any

from headwater import (
    END,
    After,
    Aggregate,
    CancelTimer,
    Command,
    Event,
    Message,
    Once,
    ReadModel,
    Refused,
    Rejected,
    Saga,
    decide,
    evolve,
    react,
)
from headwater.app.declared import Declarations

SERVICES = ("orders", "bank", "stats")
CUSTOMERS = ("ada", "bob", "cyd", "dee", "eve")
Send = Callable[[str], Awaitable[int]]

mail: ContextVar[Send] = ContextVar("mail")
"""Sends a letter under a key; its number. It is outside, and is told to each process."""

PATIENCE = 1.5
"""Seconds after which an order that is not charged is late."""


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
    number: int


class Charge(Command, service="bank"):
    customer: str
    order: str
    cents: int


class Take(Command, service="bank"):
    customer: str
    cents: int
    number: int


class Funded(Event, service="bank", category="Account"):
    customer: str
    cents: int
    number: int


class Taken(Event, service="bank", category="Account"):
    customer: str
    cents: int
    number: int


class Charged(Event, service="bank", category="Account"):
    customer: str
    order: str
    cents: int
    left: int


class Heard(Event, service="stats"):
    what: str


class Mailed(Event, service="stats"):
    order: str
    letter: int


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
        return Funded(command.customer, command.cents, command.number)

    @decide
    def charge(self, command: Charge) -> Charged:
        if command.cents > self.cents:
            raise Rejected("no money")
        return Charged(command.customer, command.order, command.cents, self.cents - command.cents)

    @decide
    def take(self, command: Take) -> Taken:
        if command.cents > self.cents:
            raise Rejected("no money")
        return Taken(command.customer, command.cents, command.number)

    @evolve
    def taken(self, event: Taken) -> None:
        self.cents -= event.cents

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
        yield After(Overdue(event.order), seconds=PATIENCE)

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
        yield CancelTimer(Overdue)
        yield Finish(event.stream.partition("/")[2], "refused")
        yield END


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


async def hear(event: Finished | Funded | Taken, message: Message) -> Heard:
    """A handler that takes a while, and stumbles over one attempt in eight."""
    luck = zlib.crc32(f"{message.id}/{message.attempt}".encode())
    await asyncio.sleep(luck % 3 / 100)
    if luck % 8 == 0:
        raise RuntimeError("the handler stumbles")
    return Heard(event.order if isinstance(event, Finished) else f"{type(event).__name__} {event.number}")


async def letter(event: Finished, once: Once) -> Mailed:
    """A handler with an outside effect."""
    return Mailed(event.order, await once("mail", mail.get()))


@functools.cache
def declared(service: str) -> Declarations:
    """What a service declares."""
    found = Declarations(service)
    parts: dict[str, tuple[type, ...]] = {"orders": (Order, Buying, State), "bank": (Account,), "stats": (Spent,)}
    for one in parts[service]:
        found.add(one)
    if service == "stats":
        found.on(letter, (Finished,), "letter", None)
        found.on(hear, (Finished, Funded, Taken), "hear", None)
    return found
