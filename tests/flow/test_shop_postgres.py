"""The shop with its logs on PostgreSQL: every order once, while services are killed and the server cuts them off."""

from __future__ import annotations

import asyncio
import random
import time
from pathlib import Path

import pytest

from examples.shop.demo import SAMPLE
from examples.shop.feeder import client, feed
from examples.shop.ledger import ledger
from examples.shop.lines import read_orders
from examples.shop.routes import SERVICES
from examples.shop.services import Services
from tests.flow.shop_postgres import PostgresFolder
from tests.servers.postgres import Databases

ORDERS = read_orders(SAMPLE, 300)
CUT_OFF = "SELECT count(pg_terminate_backend(pid)) FROM pg_stat_activity WHERE datname = ANY(%s) AND random() < 0.5"


@pytest.mark.parametrize("channel", ["sqlite", "postgres"])
def test_the_ledger_holds_through_kills_and_cuts(tmp_path: Path, postgres: Databases, channel: str) -> None:
    stores = {service: postgres.make() for service in SERVICES}
    folder = PostgresFolder(tmp_path / "shop", stores, postgres.make() if channel == "postgres" else "")
    folder.claim()
    services = Services(folder, {"SHOP_SEED": "1"})
    chance = random.Random(3)
    begun = asyncio.Event()

    async def main() -> None:
        where = folder.environment("orders")
        async with client(where["HEADWATER_STORE"], where["HEADWATER_CHANNEL"]).client() as app:
            begun.set()
            await feed(app, ORDERS, rate=100)

    async def harm() -> None:
        feeding = asyncio.create_task(main())
        while not (begun.is_set() or feeding.done()):
            await asyncio.sleep(0.05)
        while not feeding.done():
            await asyncio.sleep(0.4)
            service = chance.choice(SERVICES)
            services.kill(service)
            services.start(service)
            names = [url.rpartition("/")[2] for url in stores.values()]
            await asyncio.to_thread(postgres.run, CUT_OFF, names)
            services.restart_fallen()  # cut off while it started, more often than it tries
        await feeding

    try:
        services.start_all()
        time.sleep(1.0)
        asyncio.run(harm())
        time.sleep(1.0)
        services.restart_fallen()
        copy = folder.wait(len(ORDERS), 40)
    finally:
        services.stop_all()
        folder.release()
    found = ledger(copy, ORDERS, 1)
    assert found.problems == []
    assert services.kills > 3
