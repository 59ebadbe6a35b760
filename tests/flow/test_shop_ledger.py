"""The ledger must see what is wrong: each test plants one fault in the databases of a run that was exact."""

import asyncio
import shutil
from contextlib import closing
from pathlib import Path

import apsw
import pytest

from examples.shop.demo import SAMPLE
from examples.shop.driver import Driver, Pace
from examples.shop.folder import Folder
from examples.shop.ledger import Ledger, ledger
from examples.shop.lines import read_orders
from examples.shop.services import Services
from examples.shop.view import view

SEED = 2
ORDERS = read_orders(SAMPLE, 150)


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The databases of an exact run."""
    folder = Folder(tmp_path_factory.mktemp("run"))
    folder.claim()
    driver = Driver(folder, Services(folder, {"SHOP_SEED": str(SEED)}), ORDERS, Pace(), view(live=False))
    assert asyncio.run(driver.run()) == ""
    folder.release()
    return folder.path


@pytest.fixture
def copy(run: Path, tmp_path: Path) -> Path:
    return shutil.copytree(run, tmp_path / "copy")


def plant(folder: Path, service: str, *statements: str) -> Ledger:
    """The ledger after a fault was planted in a service's database."""
    with closing(apsw.Connection(str(folder / f"{service}.db"))) as database:
        for statement in statements:
            database.execute(statement)
            assert database.changes() > 0, statement
    return ledger(folder, ORDERS, SEED)


def test_an_exact_run_has_no_problems(run: Path) -> None:
    found = ledger(run, ORDERS, SEED)
    assert found.problems == []
    assert found.orders_shipped + found.orders_cancelled == found.orders_read == 150
    assert min(found.declined, found.out_of_stock, found.carrier_refused) > 0, "choose a seed where all kinds happen"


ONE = "sequence = (SELECT min(sequence) FROM journal WHERE consumer LIKE '%.commands')"


def test_a_delivery_without_effect_is_lost(copy: Path) -> None:
    found = plant(copy, "payments", f"DELETE FROM journal WHERE {ONE}")
    assert (found.lost, found.doubled, found.out_of_order) == (1, 0, 0)
    assert len(found.problems) == 1


def test_an_effect_that_happened_twice_is_doubled(copy: Path) -> None:
    again = f"INSERT INTO journal (consumer, stream, version) SELECT consumer, stream, version FROM journal WHERE {ONE}"
    found = plant(copy, "shipping", again)
    assert (found.lost, found.doubled, found.out_of_order) == (0, 1, 0)
    assert len(found.problems) == 1


def test_a_stream_that_was_taken_backwards_is_out_of_order(copy: Path) -> None:
    reserved_and_released = "stream = (SELECT stream FROM journal WHERE version = 2 LIMIT 1)"
    found = plant(copy, "inventory", f"UPDATE journal SET version = 3 - version WHERE {reserved_and_released}")
    assert (found.lost, found.doubled, found.out_of_order) == (0, 0, 1)
    assert len(found.problems) == 1


def test_a_journal_of_what_was_never_logged_is_seen(copy: Path) -> None:
    found = plant(
        copy, "payments", "INSERT INTO journal (consumer, stream, version) VALUES ('payments.commands', 'x>y/1', 1)"
    )
    assert found.problems == ["taken, but in no log payments.commands x>y/1 1"]


AGAIN = """
INSERT INTO events SELECT NULL, stream, 9, kind, id, type, type_version, codec, time, previous, data, meta
FROM events WHERE position = (SELECT min(position) FROM events WHERE type = '{0}')
"""


@pytest.mark.parametrize(
    ("service", "of_type", "said"),
    [
        ("payments", "payments.PaymentCaptured", "has 2 PaymentCaptured"),
        ("payments", "payments.PaymentRefunded", "has 2 PaymentRefunded"),
        ("inventory", "inventory.StockReleased", "has 2 StockReleased"),
        ("shipping", "shipping.ParcelShipped", "has 2 ParcelShipped"),
        ("orders", "orders.OrderShipped", "has 2 OrderShipped"),
    ],
)
def test_what_happened_twice_to_an_order_is_seen(copy: Path, service: str, of_type: str, said: str) -> None:
    found = plant(copy, service, AGAIN.format(of_type))
    assert any(said in problem for problem in found.problems)


@pytest.mark.parametrize(
    ("service", "of_type", "said"),
    [
        ("payments", "payments.PaymentRefunded", "should have PaymentRefunded"),
        ("inventory", "inventory.StockReleased", "should have StockReleased"),
        ("shipping", "shipping.ParcelShipped", "should have ParcelShipped"),
        ("orders", "orders.OrderCancelled", "should have OrderCancelled"),
    ],
)
def test_what_did_not_happen_to_an_order_is_seen(copy: Path, service: str, of_type: str, said: str) -> None:
    first = f"position = (SELECT min(position) FROM events WHERE type = '{of_type}')"
    found = plant(copy, service, f"DELETE FROM events WHERE {first}")
    assert any(said in problem for problem in found.problems)


def test_a_wrong_amount_is_seen(copy: Path) -> None:
    first = "position = (SELECT min(position) FROM events WHERE type = 'payments.PaymentRefunded')"
    found = plant(copy, "payments", f"UPDATE events SET data = json_set(data, '$.cents', 1) WHERE {first}")
    assert found.cents_captured - found.cents_refunded != found.cents_shipped
    assert any("captured" in problem for problem in found.problems)
    assert any("has 1 PaymentRefunded 1 cents" in problem for problem in found.problems)


def test_an_order_that_was_not_placed_as_it_was_read_is_seen(copy: Path) -> None:
    first = "position = (SELECT min(position) FROM events WHERE type = 'orders.OrderPlaced')"
    found = plant(copy, "orders", f"UPDATE events SET data = json_set(data, '$.customer_id', '99999') WHERE {first}")
    assert [problem.split(" 1 ")[0] for problem in found.problems] == [
        "missing in orders as they were placed",
        "unexpected in orders as they were placed",
    ]


@pytest.mark.parametrize(
    "change",
    [
        "cents = cents + 1",
        "count = count + 1",
        "cds = cds - 1",
        "orders = '[1]'",
        "orders = json_insert(orders, '$[#]', 1)",
        "orders = json_insert(orders, '$[#]', orders -> 0)",
    ],
)
def test_a_read_model_that_is_wrong_is_seen(copy: Path, change: str) -> None:
    found = plant(copy, "orders", f"UPDATE customers SET {change} WHERE customer_id = '00005'")
    assert len(found.problems) >= 1


def test_an_order_that_was_cancelled_for_another_reason_is_seen(copy: Path) -> None:
    first = "position = (SELECT min(position) FROM events WHERE type = 'orders.OrderCancelled')"
    found = plant(
        copy, "orders", f"UPDATE events SET data = json_set(data, '$.reason', 'payment overdue') WHERE {first}"
    )
    assert found.timed_out == 1
    assert found.timed_out_orders == [], "no timer fired for it"
    assert any("has 1 OrderCancelled: payment overdue" in problem for problem in found.problems)


def test_what_is_left_over_is_seen(copy: Path) -> None:
    found = plant(copy, "orders", "UPDATE sagas SET ended = 0 WHERE key = '7'")
    assert found.problems == ["saga not ended 7"]


def test_a_database_that_is_missing_makes_a_ledger_all_the_same(copy: Path) -> None:
    (copy / "shipping.db").unlink()
    found = ledger(copy, ORDERS, SEED)
    assert found.lost > 0
    assert found.cents_shipped == 0
    assert not found.exact
