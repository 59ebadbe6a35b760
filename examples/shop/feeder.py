"""Feeds orders to the shop, many side by side; a command key makes a repetition harmless."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Sequence

from headwater import App, Committed, HeadwaterError, Rejected, Unknown

from .messages import PlaceOrder
from .orders import Order

TOGETHER = 500
TICK = 0.05


def client(store: str, channel: str) -> App:
    """The orders service as one who only sends to it sees it."""
    app = App("orders", store=store, channel=channel)
    app.add(Order)
    return app


async def feed(app: App, orders: Sequence[PlaceOrder], rate: float | None = None) -> None:
    """Place orders in the order they are given, `rate` a second if it is given. Raises Rejected if one is refused."""
    begun = time.monotonic()
    done = 0
    while done < len(orders):
        due = len(orders) if rate is None else int((time.monotonic() - begun) * rate)
        chunk = orders[done : min(due, done + TOGETHER)]
        if chunk:
            await asyncio.gather(*(place(app, order) for order in chunk))
            done += len(chunk)
        else:
            await asyncio.sleep(TICK)


async def place(app: App, order: PlaceOrder) -> Committed:
    """Place one order, for sure: whose answer was lost, or whose database is away, is sent again, under the same key."""
    while True:
        try:
            answer = await app.attempt(order, key=f"line-{order.order_id}")
        except HeadwaterError as error:
            if not error.retryable:
                raise
            await asyncio.sleep(TICK)
            continue
        match answer:
            case Committed():
                return answer
            case Rejected():
                raise Rejected(f"order {order.order_id} was refused: {answer.reason}")
            case Unknown():
                continue
