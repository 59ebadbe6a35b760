"""The event of all works: an order event of 6 fields, about 200 bytes of JSON; and orders of 10 of them."""

from __future__ import annotations

from functools import cache
from typing import Any
from uuid import UUID

import msgspec

NOTE = "leave it with the neighbour in flat 12 if nobody answers the door"
EVENTS_AN_ORDER = 10
CENTS = 1_499
SPACE = 0x0192_F3A1_0000_7000_8000_0000_0000_0000


def order_id(number: int) -> UUID:
    """The id of the order with this number."""
    return UUID(int=SPACE + number)


def line(order: str, number: int) -> dict[str, Any]:
    """The fields of the event with this number of an order."""
    return {
        "order_id": order,
        "customer_id": f"C{number % 100_000:06d}",
        "sku": "CD-0000417",
        "quantity": 1 + number % 3,
        "cents": CENTS,
        "note": NOTE,
    }


@cache
def any_json(number: int) -> bytes:
    """The JSON of an event with this number, made once: for works that measure storing alone."""
    return line_json(str(order_id(0)), number)


def line_json(order: str, number: int) -> bytes:
    """The same as JSON."""
    return msgspec.json.encode(line(order, number))
