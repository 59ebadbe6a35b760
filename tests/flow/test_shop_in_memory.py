"""The four services in one process, in memory, under a virtual clock: the example needs neither files nor time."""

import asyncio

import pytest

from examples.shop import inventory, orders, payments, shipping
from examples.shop.messages import PlaceOrder
from examples.shop.orders import Customer, Order
from examples.shop.outcome import Outcome, outcome
from examples.shop.payments import Payment
from headwater import NotFound, Rejected
from headwater.testing.harness import Harness

STATUS = {
    Outcome.SHIPPED: "shipped",
    Outcome.DECLINED: "cancelled: payment declined",
    Outcome.OUT_OF_STOCK: "cancelled: out of stock",
    Outcome.CARRIER_REFUSED: "cancelled: refused by the carrier",
}


def order(order_id: int) -> PlaceOrder:
    return PlaceOrder(order_id, f"c{order_id % 7}", "19970101", 1 + order_id % 3, 100 * order_id)


def test_every_order_ends_as_its_outcome_says() -> None:
    async def main() -> None:
        async with Harness(orders.app, inventory.app, payments.app, shipping.app) as world:
            for order_id in range(1, 201):
                await orders.app.send(order(order_id), key=f"line-{order_id}")
            await world.settle()
            for order_id in range(1, 201):
                assert (await orders.app.load(Order, str(order_id))).status == STATUS[outcome(1, order_id)]
            customer = await orders.app.get(Customer, "c3")
            assert customer is not None
            assert sorted(customer.orders) == list(range(3, 201, 7))
            assert customer.cents == sum(100 * one for one in range(3, 201, 7))
            assert await world.held(orders.app) == []
            assert (await payments.app.load(Payment, "48")).cents == 0, "refused by the carrier: it was refunded"

    asyncio.run(main())


def test_a_payment_that_is_not_answered_cancels_the_order_after_fifteen_minutes() -> None:
    async def main() -> None:
        async with Harness(orders.app, inventory.app, shipping.app) as world:
            await orders.app.send(order(1))
            await world.advance(minutes=14.9)
            assert (await orders.app.load(Order, "1")).status == "placed"
            await world.advance(minutes=0.2)
            assert (await orders.app.load(Order, "1")).status == "cancelled: payment overdue"
            assert (await inventory.app.load(inventory.Reservation, "1")).cds == 0, "put back"
            with pytest.raises(NotFound):
                await shipping.app.load(shipping.Parcel, "1")

    asyncio.run(main())


def test_an_order_of_no_cds_is_refused() -> None:
    async def main() -> None:
        async with Harness(orders.app):
            with pytest.raises(Rejected, match="an order is for one CD or more"):
                await orders.app.send(PlaceOrder(1, "c1", "19970101", 0, 0))

    asyncio.run(main())
