"""Shipping: hands the parcel to the carrier, who may refuse it."""

from headwater import Aggregate, App, decide, evolve

from .messages import CarrierRefused, ParcelShipped, ShipOrder
from .outcome import Outcome, outcome
from .settings import settings

SETTINGS = settings()


class Parcel(Aggregate, key="order_id"):
    shipped: bool = False

    @decide
    def ship(self, command: ShipOrder) -> ParcelShipped | CarrierRefused:
        if outcome(SETTINGS.seed, command.order_id) is Outcome.CARRIER_REFUSED:
            return CarrierRefused(command.order_id)
        return ParcelShipped(command.order_id, command.cds)

    @evolve
    def left(self, event: ParcelShipped) -> None:
        self.shipped = True


app = App("shipping", journal=True, retry=SETTINGS.retry)
app.add(Parcel)
