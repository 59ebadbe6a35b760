"""Reads order lines of the CDNOW file: customer id, date, number of CDs and dollars, between white space.

The first line is the header. The order in the line after it is order 1, and so on: an order's id is its place in the file.
"""

import re
from collections.abc import Iterator
from datetime import datetime
from functools import cache
from pathlib import Path

from headwater import ConfigurationError

from .messages import PlaceOrder

HEADER = ["customer_id", "date", "number_of_cds", "dollar_value"]
EXPECTED = "expected: customer id, date as YYYYMMDD, number of CDs, dollars as 12.34"

CUSTOMER = re.compile(r"[0-9]{1,12}\Z")
DATE = re.compile(r"[0-9]{8}\Z")
CDS = re.compile(r"[1-9][0-9]{0,5}\Z")
DOLLARS = re.compile(r"([0-9]{1,9})\.([0-9]{2})\Z")


class MalformedLine(ConfigurationError):
    """A line of the orders file is not an order: mend the line and start again."""


def read_orders(path: Path, limit: int | None = None) -> list[PlaceOrder]:
    """The first `limit` orders of a file, or all. Raises MalformedLine, and ConfigurationError if it cannot be read."""
    try:
        with path.open("rb") as file:
            return list(_orders(file, path.name, limit))
    except OSError as error:
        raise ConfigurationError(f"the orders file {path} cannot be read: {error.strerror}") from error


def _orders(lines: Iterator[bytes], name: str, limit: int | None) -> Iterator[PlaceOrder]:
    header = next(lines, b"").decode("ascii", "replace").split()
    if header != HEADER:
        raise MalformedLine(f"{name}, line 1: the header should be {' '.join(HEADER)!r}")
    for order_id, line in enumerate(lines, start=1):
        if limit is not None and order_id > limit:
            return
        try:
            yield parse(order_id, line.decode("ascii"))
        except ValueError as error:
            reason = "it is not plain text" if isinstance(error, UnicodeError) else str(error)
            raise MalformedLine(f"{name}, line {order_id + 1}: {reason}; {EXPECTED}") from None


def parse(order_id: int, line: str) -> PlaceOrder:
    """One order line as a command. Raises ValueError with what is wrong."""
    fields = line.split()
    if len(fields) != len(HEADER):
        raise ValueError(f"it has {len(fields)} fields, not {len(HEADER)}")
    customer_id, date, cds, dollars = fields
    if not CUSTOMER.match(customer_id):
        raise ValueError(f"{customer_id[:40]!r} is not a customer id")
    if not CDS.match(cds):
        raise ValueError(f"{cds[:40]!r} is not a number of CDs from 1 to 999999")
    return PlaceOrder(order_id, customer_id, day(date), int(cds), cents(dollars))


@cache
def day(text: str) -> str:
    """A date as it is written, if there was such a day."""
    try:
        if DATE.match(text):
            datetime.strptime(text, "%Y%m%d")  # noqa: DTZ007 - a day has no zone
            return text
    except ValueError:
        pass
    raise ValueError(f"{text[:40]!r} is not a date")


def cents(text: str) -> int:
    """An amount in dollars as whole cents, exactly."""
    found = DOLLARS.match(text)
    if found is None:
        raise ValueError(f"{text[:40]!r} is not an amount in dollars")
    return int(found[1]) * 100 + int(found[2])
