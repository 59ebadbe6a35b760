"""Every message of the shop, once. A command belongs to the service that decides it, an event to the one that states it."""

from headwater import Command, Event

# --- orders ---


class PlaceOrder(Command, service="orders"):
    order_id: int
    customer_id: str
    date: str
    cds: int
    cents: int


class MarkShipped(Command, service="orders"):
    order_id: int


class CancelOrder(Command, service="orders"):
    order_id: int
    reason: str


class OrderPlaced(Event, service="orders", category="Order"):
    order_id: int
    customer_id: str
    date: str
    cds: int
    cents: int


class OrderShipped(Event, service="orders", category="Order"):
    order_id: int


class OrderCancelled(Event, service="orders", category="Order"):
    order_id: int
    reason: str


class PaymentOverdue(Event, service="orders"):
    """What the saga's timer says when a payment was not answered in time."""

    order_id: int


# --- inventory ---


class ReserveStock(Command, service="inventory"):
    order_id: int
    cds: int


class ReleaseStock(Command, service="inventory"):
    order_id: int


class StockReserved(Event, service="inventory", category="Reservation"):
    order_id: int
    cds: int


class OutOfStock(Event, service="inventory", category="Reservation"):
    order_id: int


class StockReleased(Event, service="inventory", category="Reservation"):
    order_id: int
    cds: int


# --- payments ---


class TakePayment(Command, service="payments"):
    order_id: int
    customer_id: str
    cents: int


class RefundPayment(Command, service="payments"):
    order_id: int
    cents: int


class PaymentCaptured(Event, service="payments", category="Payment"):
    order_id: int
    cents: int


class PaymentDeclined(Event, service="payments", category="Payment"):
    order_id: int


class PaymentRefunded(Event, service="payments", category="Payment"):
    order_id: int
    cents: int


# --- shipping ---


class ShipOrder(Command, service="shipping"):
    order_id: int
    cds: int


class ParcelShipped(Event, service="shipping", category="Parcel"):
    order_id: int
    cds: int


class CarrierRefused(Event, service="shipping", category="Parcel"):
    order_id: int
