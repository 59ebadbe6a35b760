"""The ledger: compares the orders file with the four databases, order by order, from outside and by its own SQL.

It trusts no counter of a service. What happened is read from the logs; what was delivered, from the journal that each
service writes in the transaction of the effect: (sequence, consumer, stream, version).
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any
from urllib.parse import quote

import apsw

from . import ledger_sql as sql
from .files import unreadable
from .messages import PlaceOrder
from .outcome import outcome
from .routes import ROUTES, SERVICES

SHOWN = 5


@dataclass(frozen=True)
class Ledger:
    """What was found; it is exact when there are no `problems`."""

    orders_read: int
    orders_shipped: int
    orders_cancelled: int
    declined: int
    out_of_stock: int
    carrier_refused: int
    timed_out: int
    customers: int
    cds: int
    cents_ordered: int
    cents_captured: int
    cents_refunded: int
    cents_shipped: int
    events: int
    messages_delivered: int
    lost: int
    doubled: int
    out_of_order: int
    timed_out_orders: list[int]
    dead_letters: int
    problems: list[str]

    @property
    def exact(self) -> bool:
        return not self.problems


def ledger(folder: Path, orders: Sequence[PlaceOrder], seed: int) -> Ledger:
    """Compare the orders that were read with the databases in a folder. Raises DatabaseError where one cannot be read."""
    try:
        books = Books(folder)
        books.enter(orders, seed)
        return books.close()
    except apsw.Error as error:
        raise unreadable(folder, error) from error


class Books:
    """A database in memory beside the four of the services, which are only read."""

    def __init__(self, folder: Path) -> None:
        self._connection = apsw.Connection(":memory:", flags=apsw.SQLITE_OPEN_READWRITE | apsw.SQLITE_OPEN_URI)
        for service in SERVICES:
            self._attach(service, folder / f"{service}.db")
        self._connection.execute(sql.TABLES)

    def _attach(self, service: str, path: Path) -> None:
        if path.exists():
            self._connection.execute(f"ATTACH 'file:{quote(str(path))}?mode=ro' AS {service}")
            if self._one(f"SELECT count(*) FROM {service}.sqlite_schema WHERE name = 'journal'"):
                return
            self._connection.execute(f"DETACH {service}")
        self._connection.execute(sql.MISSING.format(service))

    def enter(self, orders: Sequence[PlaceOrder], seed: int) -> None:
        """Enter what should have happened, and what did."""
        with self._connection:
            self._fill(
                "input",
                ((o.order_id, o.customer_id, o.date, o.cds, o.cents, str(outcome(seed, o.order_id))) for o in orders),
            )
            self._fill("paths", _steps())
            self._fill("routes", _routes())
            for service in SERVICES:
                for statement in (sql.FACTS, sql.LOGGED, sql.TAKEN, sql.KEPT):
                    self._connection.execute(statement.format(service))
            self._connection.execute(sql.LATE)
            self._connection.execute(sql.EXPECTED)

    def close(self) -> Ledger:
        """Draw the line."""
        found = self._ledger()
        self._connection.close()
        return found

    def _ledger(self) -> Ledger:
        lost = self._all(sql.LOST)
        found = Ledger(
            orders_read=self._one("SELECT count(*) FROM input"),
            orders_shipped=self._sum("OrderShipped", "times"),
            orders_cancelled=self._sum("OrderCancelled", "times"),
            declined=self._one(sql.CANCELLED, "payment declined"),
            out_of_stock=self._one(sql.CANCELLED, "out of stock"),
            carrier_refused=self._one(sql.CANCELLED, "refused by the carrier"),
            timed_out=self._one(sql.CANCELLED, sql.OVERDUE),
            customers=self._one("SELECT count(*) FROM orders.customers"),
            cds=self._sum("OrderPlaced", "cds"),
            cents_ordered=self._sum("OrderPlaced", "cents"),
            cents_captured=self._sum("PaymentCaptured", "cents"),
            cents_refunded=self._sum("PaymentRefunded", "cents"),
            cents_shipped=self._one(sql.SHIPPED_CENTS),
            events=self._one("SELECT coalesce(sum(times), 0) FROM facts"),
            messages_delivered=self._one("SELECT count(*) FROM taken"),
            lost=len(lost),
            doubled=self._one(sql.DOUBLED),
            out_of_order=self._one(sql.OUT_OF_ORDER),
            timed_out_orders=[order_id for (order_id,) in self._all("SELECT order_id FROM late")],
            dead_letters=sum(self._one(sql.DEAD.format(service)) for service in SERVICES),
            problems=[],
        )
        return replace(found, problems=[*self._different(), *_some("lost", lost), *_faults(found), *self._left()])

    def _different(self) -> Iterator[str]:
        """Where orders and customers are not as they should be."""
        yield from _some("order", self._all(sql.DIFFERENT))
        yield from self._both_ways(
            "orders as they were placed", "SELECT order_id, customer_id, date, cds, cents FROM input", sql.PLACED
        )
        yield from self._both_ways("customers", sql.CUSTOMERS_WANTED, sql.CUSTOMERS_FOUND)
        yield from self._both_ways("orders of customers", sql.ORDERS_WANTED, sql.ORDERS_FOUND)
        yield from _some("taken, but in no log", self._all(sql.STRAY))

    def _both_ways(self, what: str, wanted: str, found: str) -> Iterator[str]:
        yield from _some(f"missing in {what}", self._all(f"{wanted} EXCEPT {found}"))
        yield from _some(f"unexpected in {what}", self._all(f"{found} EXCEPT {wanted}"))

    def _left(self) -> Iterator[str]:
        """What should be empty at the end."""
        for service in SERVICES:
            yield from _some("held", self._all(sql.HELD.format(service)))
            yield from _some("timer still set", self._all(sql.TIMERS.format(service)))
        yield from _some("saga not ended", self._all(sql.OPEN_SAGAS))

    def _fill(self, table: str, rows: Iterator[tuple[Any, ...]]) -> None:
        first = next(rows, None)
        if first is not None:
            insert = f"INSERT INTO {table} VALUES ({', '.join('?' * len(first))})"
            self._connection.execute(insert, first)
            self._connection.executemany(insert, rows)

    def _sum(self, event: str, column: str) -> int:
        return int(self._one(sql.SUM.format(event, column)))

    def _all(self, statement: str, *parameters: object) -> list[tuple[Any, ...]]:
        return self._connection.execute(statement, parameters).fetchall()

    def _one(self, statement: str, *parameters: object) -> int:
        return int(self._all(statement, *parameters)[0][0])


def _faults(found: Ledger) -> Iterator[str]:
    """What the sums say."""
    if found.doubled:
        yield f"{found.doubled} messages were taken twice"
    if found.out_of_order:
        yield f"{found.out_of_order} messages were taken out of order"
    kept = found.cents_captured - found.cents_refunded
    if kept != found.cents_shipped:
        yield f"{kept} cents were captured and not refunded, but {found.cents_shipped} shipped"


def _steps() -> Iterator[tuple[Any, ...]]:
    for path, steps in sql.PATHS.items():
        for step in steps.split():
            reason = sql.REASONS.get(path) if step == "OrderCancelled" else None
            yield str(path), step, step in sql.WITH_CDS, step in sql.WITH_CENTS, reason


def _routes() -> Iterator[tuple[Any, ...]]:
    for route in ROUTES:
        for of_type in route.types or (None,):
            yield route.consumer, route.source, route.kind, route.category, of_type


def _some(what: str, rows: Sequence[tuple[Any, ...]]) -> Iterator[str]:
    """A line for each of the first rows, and one for how many more there are."""
    for row in rows[:SHOWN]:
        yield f"{what} {' '.join(map(str, row))}"
    if len(rows) > SHOWN:
        yield f"{what}: and {len(rows) - SHOWN:,} more"
