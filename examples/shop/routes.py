"""Who takes what, said once more, for those who look at the shop from outside: the ledger and the view."""

from dataclasses import dataclass

SERVICES = ("orders", "inventory", "payments", "shipping")


@dataclass(frozen=True)
class Route:
    """The messages of one category of one service's log that a consumer takes; of all types where none is given."""

    consumer: str
    source: str
    kind: str
    category: str
    types: tuple[str, ...] = ()

    @property
    def home(self) -> str:
        """The service whose consumer it is, and in whose database it keeps its journal."""
        return self.consumer.partition(".")[0]


def _commands(service: str) -> Route:
    return Route(f"{service}.commands", "orders", "command", f"orders.fulfilment>{service}")


ROUTES = (
    *(_commands(service) for service in SERVICES),
    Route("orders.fulfilment", "orders", "event", "orders.Order", ("orders.OrderPlaced",)),
    Route("orders.fulfilment", "orders", "timer", "orders.fulfilment>orders", ("orders.PaymentOverdue",)),
    Route(
        "orders.fulfilment",
        "inventory",
        "event",
        "inventory.Reservation",
        ("inventory.StockReserved", "inventory.OutOfStock"),
    ),
    Route(
        "orders.fulfilment",
        "payments",
        "event",
        "payments.Payment",
        ("payments.PaymentCaptured", "payments.PaymentDeclined"),
    ),
    Route(
        "orders.fulfilment",
        "shipping",
        "event",
        "shipping.Parcel",
        ("shipping.ParcelShipped", "shipping.CarrierRefused"),
    ),
    Route("orders.customers", "orders", "event", "orders.Order", ("orders.OrderPlaced",)),
)

CONSUMERS = tuple(dict.fromkeys(route.consumer for route in ROUTES))
