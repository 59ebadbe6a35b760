"""Our subject: an app with one aggregate and one read model, and its log filled in bulk."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from headwater import Aggregate, App, Command, Event, Metadata, ReadModel, SystemClock, decide, evolve
from headwater.adapters.sqlite import SqliteDatabase
from headwater.database import Database, WriteSet, stands
from headwater.decider import decider_of, fold
from headwater.message import Draft, encode_metadata
from headwater.outbox import Outbox
from headwater.schema import Schema
from headwater.store import Append, CommandKey

from .sample import EVENTS_AN_ORDER, any_json, line, line_json, order_id

CATEGORY = "bench.Order"
CLOCK = SystemClock()
FULL = Metadata(
    "0192f3a1-7c1e-7d4b-9c2f-3f2b8a6d5e41",
    "0192f3a1-7c1e-7d4b-9c2f-3f2b8a6d5e42",
    "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01",
    "user-417",
)


class Placed(Event):
    order_id: str
    customer_id: str
    sku: str
    quantity: int
    cents: int
    note: str


class LineAdded(Event):
    order_id: str
    customer_id: str
    sku: str
    quantity: int
    cents: int
    note: str


class AddLine(Command):
    order_id: str
    customer_id: str
    sku: str
    quantity: int
    cents: int
    note: str


class Order(Aggregate, key="order_id"):
    lines: int = 0
    cents: int = 0

    @decide
    def add(self, command: AddLine) -> LineAdded:
        return LineAdded(
            command.order_id, command.customer_id, command.sku, command.quantity, command.cents, command.note
        )

    @evolve
    def placed(self, event: Placed) -> None:
        self.lines += 1
        self.cents += event.cents

    @evolve
    def added(self, event: LineAdded) -> None:
        self.lines += 1
        self.cents += event.cents


def order_app(path: Path, *, table: str = "") -> App:
    """The service over a file; with `table`, it has a read model of every order's total in it."""
    return service(f"sqlite:///{path}", table=table)


def service(store: str, *, table: str = "") -> App:
    """The same over the store that a URL names."""
    app = App("bench", store=store, channel="memory://")
    app.add(Order)
    if table:
        app.add(totals(table))
    return app


def totals(name: str) -> type[ReadModel]:
    """The read model, in a table of its own for each measurement."""

    class Total(ReadModel, key="order_id", table=name):
        cents: int = 0

        @evolve
        def counted(self, event: Placed | LineAdded) -> None:
            self.cents += event.cents

    return Total


def stream(number: int) -> str:
    """The stream of an order."""
    return f"{CATEGORY}/{order_id(number)}"


def draft(version: int, data: bytes, meta: bytes) -> Draft:
    """One event as it is stored."""
    return Draft("event", CLOCK.new_id(), event_name(version), 1, 0, CLOCK.now(), data, meta)


def event_name(version: int) -> str:
    """The stored type of the event with this number of an order."""
    return "bench.Placed" if version == 1 else "bench.LineAdded"


def new_order(number: int, events: int, meta: bytes | None = None, key: CommandKey | None = None) -> WriteSet:
    """An order as one write set, with the metadata of `app.send` unless other is given."""
    order = str(order_id(number))
    found = meta if meta is not None else encode_metadata(Metadata(CLOCK.new_id()))
    drafts = [draft(version, line_json(order, version), found) for version in range(1, events + 1)]
    return WriteSet(appends=[Append(stream(number), 0, drafts)], key=key)


def new_stream(number: int, events: int) -> WriteSet:
    """An order whose events were made and encoded before: the rows are those that the others store."""
    order = order_id(number)
    name = str(order)
    meta = b"A" + order.bytes  # packed: a correlation and nothing else
    drafts = [
        Draft("event", name, event_name(version), 1, 0, CLOCK.now(), any_json(version), meta)
        for version in range(1, events + 1)
    ]
    return WriteSet(appends=[Append(f"{CATEGORY}/{name}", 0, drafts)])


class Typed:
    """Makes orders as an aggregate does: events of their classes, applied and encoded, with ids, times and metadata."""

    def __init__(self) -> None:
        schema = Schema("bench")
        schema.add(Placed)
        schema.add(LineAdded)
        self._outbox = Outbox(schema, CLOCK, "bench")
        self._decider = decider_of(Order, "bench")

    def order(self, number: int, events: int) -> WriteSet:
        """One order as one write set."""
        name = str(order_id(number))
        made = [(Placed if version == 1 else LineAdded)(**line(name, version)) for version in range(1, events + 1)]
        fold(self._decider.evolve, self._decider.initial(), made)
        meta = encode_metadata(Metadata(CLOCK.new_id()))
        drafts = [self._outbox.draft(one, meta) for one in made]
        return WriteSet(appends=[Append(f"{CATEGORY}/{name}", 0, drafts)])


async def fill(database: Database, orders: Iterable[int], meta: bytes | None = None) -> None:
    """Store orders of 10 events."""
    chunk: list[WriteSet] = []
    for number in orders:
        chunk.append(new_order(number, EVENTS_AN_ORDER, meta))
        if len(chunk) == 100:
            await commit(database, chunk)
            chunk = []
    await commit(database, chunk)


async def commit(database: Database, writes: list[WriteSet]) -> None:
    """Commit, and see that each set stands."""
    for answer in await database.commit(writes):
        stands(answer)


async def opened(path: Path) -> SqliteDatabase:
    """The database of a file, open."""
    database = SqliteDatabase(path, CLOCK)
    await database.open()
    return database
