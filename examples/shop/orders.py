"""Orders: takes them, sees each through the other services, and knows what every customer ordered."""

from collections.abc import Iterator

from headwater import (
    END,
    After,
    Aggregate,
    App,
    CancelTimer,
    Compensate,
    ReadModel,
    Rejected,
    Saga,
    Undo,
    decide,
    evolve,
    react,
)

from .messages import (
    CancelOrder,
    CarrierRefused,
    MarkShipped,
    OrderCancelled,
    OrderPlaced,
    OrderShipped,
    OutOfStock,
    ParcelShipped,
    PaymentCaptured,
    PaymentDeclined,
    PaymentOverdue,
    PlaceOrder,
    RefundPayment,
    ReleaseStock,
    ReserveStock,
    ShipOrder,
    StockReserved,
    TakePayment,
)
from .settings import settings

SETTINGS = settings()

Steps = Iterator[object]


class Order(Aggregate, key="order_id"):
    status: str = "new"

    @decide
    def place(self, command: PlaceOrder) -> OrderPlaced:
        if command.cds < 1:
            raise Rejected("an order is for one CD or more", cds=command.cds)
        return OrderPlaced(command.order_id, command.customer_id, command.date, command.cds, command.cents)

    @decide
    def ship(self, command: MarkShipped) -> OrderShipped:
        return OrderShipped(command.order_id)

    @decide
    def cancel(self, command: CancelOrder) -> OrderCancelled:
        return OrderCancelled(command.order_id, command.reason)

    @evolve
    def placed(self, event: OrderPlaced) -> None:
        self.status = "placed"

    @evolve
    def shipped(self, event: OrderShipped) -> None:
        self.status = "shipped"

    @evolve
    def cancelled(self, event: OrderCancelled) -> None:
        self.status = f"cancelled: {event.reason}"


class Fulfilment(Saga, key="order_id"):
    """Reserve, take payment, ship; where a step fails, undo what was done, the last first, and cancel.

    The bank may answer after we gave up on it. So an overdue saga lives on until the answer is there: money that was
    captured too late goes back.
    """

    customer_id: str = ""
    cds: int = 0
    cents: int = 0
    answered: bool = False
    overdue: bool = False

    # What it remembers.

    @evolve
    def remember(self, event: OrderPlaced) -> None:
        self.customer_id, self.cds, self.cents = event.customer_id, event.cds, event.cents

    @evolve
    def bank_answered(self, event: PaymentCaptured | PaymentDeclined) -> None:
        self.answered = True

    @evolve
    def time_is_up(self, event: PaymentOverdue) -> None:
        self.overdue = not self.answered  # the answer may have come while the timer was on its way

    # What it does next.

    @react(starts=True)
    def placed(self, event: OrderPlaced) -> Steps:
        yield ReserveStock(event.order_id, event.cds)

    @react
    def reserved(self, event: StockReserved) -> Steps:
        yield Undo(ReleaseStock(event.order_id))
        yield TakePayment(event.order_id, self.customer_id, self.cents)
        yield After(PaymentOverdue(event.order_id), seconds=SETTINGS.payment_seconds)

    @react
    def captured(self, event: PaymentCaptured) -> Steps:
        if self.overdue:
            yield RefundPayment(event.order_id, event.cents)
            yield END
        else:
            yield CancelTimer(PaymentOverdue)
            yield Undo(RefundPayment(event.order_id, event.cents))
            yield ShipOrder(event.order_id, self.cds)

    @react
    def shipped(self, event: ParcelShipped) -> Steps:
        yield MarkShipped(event.order_id)
        yield END

    # What can go wrong.

    @react
    def out_of_stock(self, event: OutOfStock) -> Steps:
        yield CancelOrder(event.order_id, "out of stock")
        yield END

    @react
    def declined(self, event: PaymentDeclined) -> Steps:
        if not self.overdue:
            yield CancelTimer(PaymentOverdue)
            yield Compensate()
            yield CancelOrder(event.order_id, "payment declined")
        yield END

    @react
    def gave_up(self, event: PaymentOverdue) -> Steps:
        if self.overdue:
            yield Compensate()
            yield CancelOrder(event.order_id, "payment overdue")

    @react
    def refused(self, event: CarrierRefused) -> Steps:
        yield Compensate()
        yield CancelOrder(event.order_id, "refused by the carrier")
        yield END


class Customer(ReadModel, key="customer_id", table="customers"):
    """Every customer's orders: which, how many, and what they come to."""

    orders: list[int] = []
    count: int = 0
    cds: int = 0
    cents: int = 0

    @evolve
    def placed(self, event: OrderPlaced) -> None:
        self.orders.append(event.order_id)
        self.count += 1
        self.cds += event.cds
        self.cents += event.cents


app = App("orders", journal=True, retry=SETTINGS.retry)
app.add(Order, Fulfilment, Customer)
