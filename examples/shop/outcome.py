"""What becomes of an order: a pure function of (seed, order id), so that it can be checked afterwards, order by order."""

from enum import StrEnum
from hashlib import blake2b


class Outcome(StrEnum):
    SHIPPED = "shipped"
    DECLINED = "declined"
    OUT_OF_STOCK = "out of stock"
    CARRIER_REFUSED = "carrier refused"


def outcome(seed: int, order_id: int) -> Outcome:
    """Of a hundred orders, 3 are declined, 2 are out of stock, and 1 is refused by the carrier after it was paid."""
    digest = blake2b(f"{seed}/{order_id}".encode(), digest_size=8).digest()
    percent = int.from_bytes(digest, "big") % 100
    if percent < 3:
        return Outcome.DECLINED
    if percent < 5:
        return Outcome.OUT_OF_STOCK
    if percent < 6:
        return Outcome.CARRIER_REFUSED
    return Outcome.SHIPPED
