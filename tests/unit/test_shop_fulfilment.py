"""The saga alone: events in, steps out, as its worker runs it: first what it remembers, then what it does."""

from typing import Any

import pytest

from examples.shop.messages import (
    CancelOrder,
    CarrierRefused,
    MarkShipped,
    OrderPlaced,
    OutOfStock,
    ParcelShipped,
    PaymentCaptured,
    PaymentDeclined,
    PaymentOverdue,
    RefundPayment,
    ReleaseStock,
    ReserveStock,
    ShipOrder,
    StockReserved,
    TakePayment,
)
from examples.shop.orders import Fulfilment
from headwater import END, After, CancelTimer, Compensate, Undo
from headwater.saga.declare import reactions_of

PLACED = OrderPlaced(17, "00042", "19970101", 2, 2500)
RESERVED = StockReserved(17, 2)
CAPTURED = PaymentCaptured(17, 2500)
DECLINED = PaymentDeclined(17)
OVERDUE = PaymentOverdue(17)


class Saga:
    """One instance, and what it compensates with."""

    def __init__(self) -> None:
        self.state: Any = Fulfilment()
        self.reactions = reactions_of(Fulfilment)
        self.undo: list[object] = []

    def meet(self, event: object) -> list[object]:
        evolve = self.reactions.evolve.get(type(event))
        if evolve is not None:
            evolve(self.state, event)
        steps: list[object] = []
        for step in self.reactions.react[type(event)](self.state, event):
            if isinstance(step, Undo):
                self.undo.append(step.command)
            elif isinstance(step, Compensate):
                steps += reversed(self.undo)
                self.undo = []
            else:
                steps.append(step)
        return steps

    def after(self, *events: object) -> "Saga":
        for event in events:
            self.meet(event)
        return self


def test_the_straight_way() -> None:
    saga = Saga()
    assert saga.meet(PLACED) == [ReserveStock(17, 2)]
    payment, timer = saga.meet(RESERVED)
    assert payment == TakePayment(17, "00042", 2500)
    assert isinstance(timer, After)
    assert (timer.message, timer.microseconds) == (OVERDUE, 15 * 60 * 1_000_000)
    assert saga.meet(CAPTURED) == [CancelTimer(PaymentOverdue), ShipOrder(17, 2)]
    assert saga.meet(ParcelShipped(17, 2)) == [MarkShipped(17), END]


def test_nothing_is_undone_where_nothing_was_done() -> None:
    assert Saga().after(PLACED).meet(OutOfStock(17)) == [CancelOrder(17, "out of stock"), END]


def test_a_declined_payment_releases_the_stock() -> None:
    assert Saga().after(PLACED, RESERVED).meet(DECLINED) == [
        CancelTimer(PaymentOverdue),
        ReleaseStock(17),
        CancelOrder(17, "payment declined"),
        END,
    ]


def test_a_refused_parcel_refunds_first_and_releases_then() -> None:
    assert Saga().after(PLACED, RESERVED, CAPTURED).meet(CarrierRefused(17)) == [
        RefundPayment(17, 2500),
        ReleaseStock(17),
        CancelOrder(17, "refused by the carrier"),
        END,
    ]


def test_an_overdue_payment_cancels_and_the_saga_lives_on() -> None:
    assert Saga().after(PLACED, RESERVED).meet(OVERDUE) == [ReleaseStock(17), CancelOrder(17, "payment overdue")]


def test_a_capture_that_comes_late_goes_back_and_stock_is_not_released_again() -> None:
    assert Saga().after(PLACED, RESERVED, OVERDUE).meet(CAPTURED) == [RefundPayment(17, 2500), END]


def test_a_late_refusal_ends_it() -> None:
    assert Saga().after(PLACED, RESERVED, OVERDUE).meet(DECLINED) == [END]


def test_a_timer_that_was_on_its_way_when_the_answer_came_says_nothing() -> None:
    assert Saga().after(PLACED, RESERVED, CAPTURED).meet(OVERDUE) == []


@pytest.mark.parametrize("last", [ParcelShipped(17, 2), CarrierRefused(17)])
def test_after_such_a_timer_all_goes_on(last: object) -> None:
    plain = Saga().after(PLACED, RESERVED, CAPTURED).meet(last)
    assert Saga().after(PLACED, RESERVED, CAPTURED, OVERDUE).meet(last) == plain
