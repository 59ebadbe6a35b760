"""What becomes of orders while a service is down: its work waits, a timer gives up on it, its late answer is settled."""

import asyncio
import os
import signal
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from examples.shop.demo import SAMPLE
from examples.shop.feeder import client, feed
from examples.shop.folder import Folder
from examples.shop.ledger import Ledger, ledger
from examples.shop.lines import read_orders
from examples.shop.progress import Progress, Snapshot
from examples.shop.services import Services

ORDERS = read_orders(SAMPLE, 120)


class Shop:
    """A shop that a test starts and stops by hand."""

    def __init__(self, path: Path, **environment: str) -> None:
        self.folder = Folder(path)
        self.folder.claim()
        self.services = Services(self.folder, {"SHOP_SEED": "1", **environment})
        self.progress = Progress(self.folder)

    def feed(self) -> None:
        async def main() -> None:
            where = self.folder.environment("orders")
            async with client(where["HEADWATER_STORE"], where["HEADWATER_CHANNEL"]).client() as app:
                await feed(app, ORDERS)

        asyncio.run(main())

    def wait(self, until: Callable[[Snapshot], bool]) -> Snapshot:
        end = time.monotonic() + 30
        while not until(now := self.progress.look()):
            assert time.monotonic() < end, now
            time.sleep(0.1)
        return now

    def finish(self) -> Ledger:
        """Wait until all is done, stop, and draw the ledger."""
        self.wait(lambda now: now.finished(len(ORDERS)))
        self.services.stop_all()
        return ledger(self.folder.path, ORDERS, 1)


@contextmanager
def shop(path: Path, **environment: str) -> Iterator[Shop]:
    found = Shop(path, **environment)
    try:
        found.services.start_all()
        yield found
    finally:
        found.progress.close()
        found.services.stop_all()
        found.folder.release()


def test_while_one_service_is_down_the_others_go_on_and_it_catches_up(tmp_path: Path) -> None:
    with shop(tmp_path) as one:
        one.services.hold("shipping")
        one.feed()
        paid = one.wait(lambda now: now.lag["shipping.commands"] > 100 and now.cancelled > 0)
        assert paid.shipped == 0
        assert paid.lag["payments.commands"] == 0
        one.services.start("shipping")
        found = one.finish()
    assert found.problems == []
    assert found.orders_shipped == 114
    assert found.timed_out == 0


def test_payments_that_are_not_answered_in_time_cancel_the_order_and_late_money_goes_back(tmp_path: Path) -> None:
    with shop(tmp_path, SHOP_PAYMENT_SECONDS="0.5") as one:
        one.services.hold("payments")
        one.feed()
        one.wait(lambda now: now.open == 0 and now.cancelled == len(ORDERS))
        one.services.start("payments")
        found = one.finish()
    assert found.problems == []
    assert found.orders_shipped == 0
    assert found.cents_refunded == found.cents_captured > 0
    assert found.timed_out == len(found.timed_out_orders) == len(ORDERS) - found.out_of_stock


def test_a_service_that_dies_by_itself_is_started_again(tmp_path: Path) -> None:
    with shop(tmp_path) as one:
        one.wait(lambda now: one.folder.database("payments").exists())
        os.kill(one.services.pids()["payments"], signal.SIGKILL)
        one.wait(lambda now: not one.services.up()["payments"])
        assert one.services.restart_fallen() == ["payments ended by itself with -9; started again"]
        assert one.services.kills == 0
        one.feed()
        assert one.finish().problems == []
