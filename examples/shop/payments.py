"""Payments: takes the money for an order, and gives it back."""

from headwater import Aggregate, App, decide, evolve

from .messages import PaymentCaptured, PaymentDeclined, PaymentRefunded, RefundPayment, TakePayment
from .outcome import Outcome, outcome
from .settings import settings

SETTINGS = settings()


class Payment(Aggregate, key="order_id"):
    cents: int = 0

    @decide
    def take(self, command: TakePayment) -> PaymentCaptured | PaymentDeclined:
        if command.customer_id == SETTINGS.fail_customer:
            raise RuntimeError("card terminal broken")
        if outcome(SETTINGS.seed, command.order_id) is Outcome.DECLINED:
            return PaymentDeclined(command.order_id)
        return PaymentCaptured(command.order_id, command.cents)

    @decide
    def refund(self, command: RefundPayment) -> PaymentRefunded:
        return PaymentRefunded(command.order_id, command.cents)

    @evolve
    def captured(self, event: PaymentCaptured) -> None:
        self.cents += event.cents

    @evolve
    def refunded(self, event: PaymentRefunded) -> None:
        self.cents -= event.cents


app = App("payments", journal=True, retry=SETTINGS.retry)
app.add(Payment)
