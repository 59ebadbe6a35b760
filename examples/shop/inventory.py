"""Inventory: sets CDs aside for an order, and puts them back when it comes to nothing."""

from headwater import Aggregate, App, decide, evolve

from .messages import OutOfStock, ReleaseStock, ReserveStock, StockReleased, StockReserved
from .outcome import Outcome, outcome
from .settings import settings

SETTINGS = settings()


class Reservation(Aggregate, key="order_id"):
    cds: int = 0

    @decide
    def reserve(self, command: ReserveStock) -> StockReserved | OutOfStock:
        if outcome(SETTINGS.seed, command.order_id) is Outcome.OUT_OF_STOCK:
            return OutOfStock(command.order_id)
        return StockReserved(command.order_id, command.cds)

    @decide
    def release(self, command: ReleaseStock) -> StockReleased:
        return StockReleased(command.order_id, self.cds)

    @evolve
    def reserved(self, event: StockReserved) -> None:
        self.cds += event.cds

    @evolve
    def released(self, event: StockReleased) -> None:
        self.cds -= event.cds


app = App("inventory", journal=True, retry=SETTINGS.retry)
app.add(Reservation)
