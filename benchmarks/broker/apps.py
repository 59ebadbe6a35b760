"""Our apps on a broker and PostgreSQL: `shop` states the event, and others keep something of it, in each of the ways there are."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from benchmarks.sample import line, order_id
from benchmarks.works.consume import LineAdded
from headwater import Aggregate, App, Command, ReadModel, Transaction, decide, evolve
from headwater.app import Wiring

from .client import Handle
from .server import Place

LINES = "CREATE TABLE lines (order_id text NOT NULL, cents bigint NOT NULL)"
FAILING = "FAILS"
"""The article of the events that fail."""
INSERT = "INSERT INTO lines VALUES ($1, $2)"


class AddLine(Command):
    order_id: str
    customer_id: str
    sku: str
    quantity: int
    cents: int
    note: str


class Order(Aggregate, key="order_id"):
    cents: int = 0

    @decide
    def add(self, command: AddLine) -> LineAdded:
        return LineAdded(
            command.order_id, command.customer_id, command.sku, command.quantity, command.cents, command.note
        )

    @evolve
    def added(self, event: LineAdded) -> None:
        self.cents += event.cents


class Total(ReadModel, key="order_id", table="totals"):
    cents: int = 0

    @evolve
    def added(self, event: LineAdded) -> None:
        self.cents += event.cents


def adding(number: int) -> AddLine:
    """The command that adds a line to an order of its own."""
    return AddLine(**line(str(order_id(number)), 1) | {"cents": number})


def shop(store: str, place: Place) -> App:
    """The service whose events they are."""
    app = App("shop", store=store, channel=place.url)
    app.add(Order)
    return app


def mail(store: str, place: Place, handle: Handle) -> App:
    """A service with a handler that stores nothing."""
    app = App(place.group, store=store, channel=place.url)

    @app.on(LineAdded, name="mail")
    async def take(event: LineAdded) -> None:
        handle(event)

    return app


def totals(store: str, place: Place) -> App:
    """A service with a read model: the total of each order."""
    app = App(place.group, store=store, channel=place.url)
    app.add(Total)
    return app


def lines(store: str, place: Place, *, failing: bool = False) -> App:
    """A service whose handler runs a statement of its own in the transaction; after it some may be `failing`."""
    app = App(place.group, store=store, channel=place.url)

    @app.on(LineAdded, name="lines")
    def keep(event: LineAdded, transaction: Transaction) -> None:
        transaction.execute(INSERT, (event.order_id, event.cents))
        if failing and event.sku == FAILING:
            raise RuntimeError("this one fails")

    return app


@asynccontextmanager
async def connected(app: App) -> AsyncIterator[Wiring]:
    """An app with all that it needs on its channel, of which nothing runs yet."""
    wiring = await app.connect()
    try:
        await wiring.channel.open()
        await wiring.channel.establish(app.routes())
        yield wiring
        await wiring.leave()
    finally:
        await wiring.channel.close()
        await app.stop()


@asynccontextmanager
async def running(app: App) -> AsyncIterator[App]:
    """An app that runs whole."""
    wiring = await app.connect()
    await wiring.channel.open()
    await wiring.channel.establish(app.routes())
    async with app:
        yield app
