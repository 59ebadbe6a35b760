"""The ledger in a few lines for a person."""

from __future__ import annotations

from .ledger import Ledger


def summary(found: Ledger, kills: int, seconds: float) -> str:
    """What came of the orders and of the money, and whether the ledger is exact."""
    causes = [
        (found.declined, "declined"),
        (found.out_of_stock, "out of stock"),
        (found.carrier_refused, "refused by the carrier"),
        (found.timed_out, "not paid in time"),
    ]
    why = ", ".join(f"{count:,} {cause}" for count, cause in causes if count)
    rows = [
        (
            "read",
            f"{found.orders_read:,} orders of {found.customers:,} customers, {found.cds:,} CDs, {money(found.cents_ordered)}",
        ),
        ("shipped", f"{found.orders_shipped:,} orders, {money(found.cents_shipped)}"),
        ("cancelled", f"{found.orders_cancelled:,} orders" + (f": {why}" if why else "")),
        ("money", f"{money(found.cents_captured)} captured - {money(found.cents_refunded)} refunded"),
        (
            "messages",
            f"{found.events:,} events, {found.messages_delivered:,} deliveries, {kills} kills, {seconds:.1f} s",
        ),
        ("faults", f"{found.lost} lost, {found.doubled} doubled, {found.out_of_order} out of order"),
        ("ledger", "exact" if found.exact else f"NOT exact: {len(found.problems)} problems, listed on stderr"),
    ]
    return "\n".join(f"{name:<10} {text}" for name, text in rows)


def money(cents: int) -> str:
    return f"${cents // 100:,}.{cents % 100:02}"
