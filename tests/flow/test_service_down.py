"""A service that is down: the others go on, its lag shows from outside, and it catches up by itself."""

from __future__ import annotations

import asyncio
from pathlib import Path

from headwater import Aggregate, App, Command, Event, decide
from headwater.adapters.sqlite import SqliteChannel, SqliteDatabase
from headwater.clock import SystemClock
from headwater.operations import list_consumers

ORDERS = 200


class Place(Command):
    order_id: int


class Placed(Event, service="orders", category="Order"):
    order_id: int


class Order(Aggregate, key="order_id"):
    @decide
    def place(self, command: Place) -> Placed:
        return Placed(command.order_id)


def service(name: str, folder: Path) -> App:
    return App(name, store=f"sqlite:///{folder}/{name}.db", channel=f"sqlite:///{folder}/channel.db")


async def behind(folder: Path) -> tuple[int, float]:
    """What `headwater consumers` says of the service that ships."""
    clock = SystemClock()
    database = SqliteDatabase.from_url(f"sqlite:///{folder}/shipping.db", clock)
    channel = SqliteChannel.from_url(f"sqlite:///{folder}/channel.db", clock)
    await database.open()
    await channel.open()
    try:
        states = await list_consumers(database, channel, clock.now())
        [label] = [one for one in states if one.name == "shipping.label"]
        return label.behind or 0, label.seconds or 0.0
    finally:
        await channel.close()
        await database.close()


def test_a_service_that_was_down_catches_up_and_its_lag_rises_and_falls(tmp_path: Path) -> None:
    labels: list[int] = []

    async def until(count: int) -> None:
        while len(labels) < count:
            await asyncio.sleep(0.01)

    async def test() -> None:
        orders, shipping = service("orders", tmp_path), service("shipping", tmp_path)
        orders.add(Order)

        @shipping.on(Placed)
        def label(event: Placed) -> None:
            labels.append(event.order_id)

        async with orders:
            async with shipping:
                await orders.send(Place(0))
                await until(1)
            await asyncio.gather(*(orders.send(Place(number)) for number in range(1, ORDERS)))
            while (await behind(tmp_path))[0] < ORDERS - 1:
                await asyncio.sleep(0.05)
            assert (await behind(tmp_path))[1] > 0
            async with shipping:
                await until(ORDERS)
                while await behind(tmp_path) != (0, 0.0):
                    await asyncio.sleep(0.05)
        assert sorted(labels) == list(range(ORDERS))

    asyncio.run(asyncio.wait_for(test(), 50))
