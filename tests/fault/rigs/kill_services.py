"""What runs in the `kill` rig: a bank that moves money into the purses of a vault, over every flow there is.

A payment may fail for a while, so that it is retried, held and dead; an outside effect may be refused or be in doubt; a
message may be too large for the channel. Which of them fail is a matter of the process's weather; in calm weather none do.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from headwater import (
    END,
    After,
    Aggregate,
    App,
    Compensate,
    Decision,
    NotDone,
    Once,
    ReadModel,
    Refused,
    Rejected,
    Retry,
    Saga,
    Transaction,
    Undo,
    decide,
    evolve,
    react,
)
from tests.fault.rigs.ground import Ground, ground
from tests.fault.rigs.kill_messages import (
    Book,
    Booked,
    Fill,
    Filled,
    Late,
    Move,
    Moved,
    Paid,
    Pay,
    Refund,
    Refunded,
    Reminder,
)
from tests.fault.rigs.kill_outside import Outside, Weather

SOON = 0.15
"""Seconds until a timer is due."""
SAFES = 5
HASTY = Retry(attempts=3, base=0.02, cap=0.1)
RETENTION = 0.3
"""Seconds for which the channel keeps what is acknowledged."""


class Account(Aggregate, key="account"):
    cents: int = 0

    @decide
    def pay(self, command: Pay) -> Paid:
        return Paid(command.account, command.number, command.cents, command.note)

    @decide
    def move(self, command: Move) -> Moved:
        if command.cents > self.cents:
            raise Rejected("not enough money", there=self.cents)
        return Moved(command.account, command.number, command.cents, command.purse)

    @decide
    def refund(self, command: Refund) -> Refunded:
        return Refunded(command.account, command.number, command.cents)

    @evolve
    def changed(self, event: Paid | Refunded) -> None:
        self.cents += event.cents

    @evolve
    def moved(self, event: Moved) -> None:
        self.cents -= event.cents


class Purse(Aggregate, key="purse"):
    cents: int = 0

    @decide
    def fill(self, command: Fill) -> Filled:
        if command.number % 7 == 0:
            raise Rejected("it is closed on that day")
        return Filled(command.purse, command.number, command.cents)

    @evolve
    def filled(self, event: Filled) -> None:
        self.cents += event.cents


class Booking(Decision, key="room"):
    """A safe of the bank: a room has so many, and a guest takes so many."""

    taken: int = 0
    has: int = 0

    @decide
    def book(self, command: Book) -> Booked:
        if SAFES in (self.taken, self.has):
            raise Rejected("no safe is left")
        return Booked(command.room, command.guest, command.number)

    @evolve(by="room")
    def in_the_room(self, event: Booked) -> None:
        self.taken += 1

    @evolve(by="guest")
    def of_the_guest(self, event: Booked) -> None:
        self.has += 1


class Transfer(Saga, key="number"):
    @react(starts=True)
    def begin(self, event: Moved) -> Iterator[Any]:
        yield Undo(Refund(event.account, event.number, event.cents))
        yield After(Late(event.number), seconds=SOON)
        yield Fill(event.purse, event.number, event.cents)

    @react
    def late(self, event: Late) -> None:
        return None

    @react
    def filled(self, event: Filled) -> Any:
        return END

    @react
    def refused(self, reply: Refused) -> Any:
        return Compensate()

    @react
    def refunded(self, event: Refunded) -> Any:
        return END


class Statement(ReadModel, key="account"):
    count: int = 0
    cents: int = 0

    @evolve
    def changed(self, event: Paid | Refunded) -> None:
        self.count += 1
        self.cents += event.cents

    @evolve
    def moved(self, event: Moved) -> None:
        self.count += 1
        self.cents -= event.cents


def bank(store: str, channel: str, weather: Weather, batch: int) -> App:
    """Accounts, their transfers, two read models of them, and a reminder of each payment."""

    class Balance(ReadModel, key="account", inline=True):
        count: int = 0
        cents: int = 0

        @evolve
        def paid(self, event: Paid) -> None:
            self.count += 1
            self.cents += event.cents

        @evolve
        def refunded(self, event: Refunded) -> None:
            if weather.fails("balance", event.number, one_in=3):
                raise OSError("the balance cannot be told")
            self.count += 1
            self.cents += event.cents

        @evolve
        def moved(self, event: Moved) -> None:
            self.count += 1
            self.cents -= event.cents

    async def remind(event: Paid | Reminder) -> After | None:
        if isinstance(event, Reminder):
            return None
        return After(Reminder(event.number), seconds=SOON, name=str(event.number))

    app = App("bank", store=store, channel=channel, journal=True, retry=HASTY, batch=batch)
    app.add(Account, Booking, Transfer, Balance, Statement)
    app.on(Paid, Reminder)(remind)
    return app


def vault(store: str, channel: str, weather: Weather, batch: int, outside: Outside) -> App:
    """Purses, what they cause outside, and a copy of the bank's accounts."""

    async def notify(event: Filled, once: Once) -> None:
        async def call(key: str) -> bool:
            if weather.fails("notify", event.number):
                raise NotDone("the line is busy")
            outside.happen(event.number)
            if weather.fails("answer", event.number):
                raise TimeoutError("no answer")
            return True

        await once("notify", call)

    async def slip(event: Filled, transaction: Transaction) -> None:
        transaction.execute("CREATE TABLE IF NOT EXISTS slips (number INTEGER)")
        transaction.execute("INSERT INTO slips VALUES (?)", (event.number,))
        if weather.fails("slip", event.number):
            raise OSError("no paper")

    def seen(event: Paid | Moved) -> None:
        if weather.fails("seen", event.number):
            raise OSError("nothing to be seen")

    app = App("vault", store=store, channel=channel, journal=True, retry=HASTY, batch=batch)
    app.add(Purse, Statement)
    app.on(Filled)(notify)
    app.on(Filled)(slip)
    app.on(Paid, Moved)(seen)
    return app


@dataclass(frozen=True)
class Place:
    """The folder of a world."""

    folder: Path

    @property
    def ground(self) -> Ground:
        """Where the data are."""
        return ground(self.folder)

    @property
    def on_server(self) -> bool:
        """Whether they are on PostgreSQL."""
        return self.ground.on_server

    def store(self, service: str) -> str:
        """The URL of the database of a service."""
        return self.ground.url(service)

    @property
    def channel(self) -> str:
        """The URL of the channel; what is acknowledged is soon deleted."""
        return f"{self.ground.url('channel')}?retention={RETENTION}"

    @property
    def outside(self) -> Outside:
        """What was done outside."""
        return Outside(self.folder / "outside")

    def app(self, service: str, weather: Weather, batch: int) -> App:
        """A service on this ground."""
        store = self.store(service)
        if service == "bank":
            return bank(store, self.channel, weather, batch)
        return vault(store, self.channel, weather, batch, self.outside)
