"""How far the shop is, seen from outside: what the logs have, and what the journals have got of it."""

from __future__ import annotations

from dataclasses import dataclass

from .folder import Folder
from .logs import Counts, Kind, logs_of
from .routes import CONSUMERS, ROUTES, Route


@dataclass(frozen=True)
class Snapshot:
    """One look: orders by state, messages logged, how far each consumer is behind, and what is held for which reason."""

    placed: int
    shipped: int
    cancelled: int
    messages: int
    taken: int
    lag: dict[str, int]
    held: dict[str, int]

    @property
    def open(self) -> int:
        return self.placed - self.shipped - self.cancelled

    def finished(self, orders: int) -> bool:
        """Whether nothing is left to do: journals were read before logs, so that no message hides between the two."""
        return self.placed == orders and self.open == 0 and not any(self.lag.values()) and not self.held

    def stuck(self) -> bool:
        """Whether some orders wait for a person, and nothing for a retry."""
        return bool(self.held.get("dead") or self.held.get("uncertain")) and not self.held.get("retry")


class Progress:
    """Looks at the logs of a run."""

    def __init__(self, folder: Folder) -> None:
        self.logs = logs_of(folder)

    def look(self) -> Snapshot:
        now = self.logs.count()
        return Snapshot(
            placed=_orders(now, "OrderPlaced"),
            shipped=_orders(now, "OrderShipped"),
            cancelled=_orders(now, "OrderCancelled"),
            messages=now.logged.total(),
            taken=now.taken.total(),
            lag=_lag(now),
            held=dict(now.held),
        )

    def placed(self) -> set[int]:
        """The ids of the orders that are in the log."""
        return self.logs.placed()

    def close(self) -> None:
        self.logs.close()


def _orders(counts: Counts, name: str) -> int:
    return counts.logged["orders", "event", "orders.Order", f"orders.{name}"]


def _lag(counts: Counts) -> dict[str, int]:
    lag = dict.fromkeys(CONSUMERS, 0)
    for route in ROUTES:
        lag[route.consumer] += sum(count for kind, count in counts.logged.items() if takes(route, kind))
    return {consumer: expected - counts.taken[consumer] for consumer, expected in lag.items()}


def takes(route: Route, kind: Kind) -> bool:
    """Whether a consumer takes messages of a kind by a route."""
    source, of_kind, category, of_type = kind
    return (route.source, route.kind, route.category) == (source, of_kind, category) and (
        not route.types or of_type in route.types
    )
