"""The shop as `headwater demo` runs it: four processes, real orders, and a ledger that is drawn from outside."""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

import apsw
import pytest

from examples.shop.folder import Folder, url
from examples.shop.outcome import Outcome, outcome
from examples.shop.progress import Progress

DEMO = [sys.executable, "-m", "headwater", "demo"]
FIELDS = [
    *("orders_read", "orders_shipped", "orders_cancelled", "declined", "out_of_stock", "carrier_refused", "timed_out"),
    *("customers", "cds", "cents_ordered", "cents_captured", "cents_refunded", "cents_shipped"),
    *("events", "messages_delivered", "kills", "lost", "doubled", "out_of_order", "seconds"),
]


def demo(*arguments: object, **environment: str) -> tuple[int, dict[str, Any], str]:
    """Run a demo to its end: its exit code, its ledger and what it said on stderr."""
    run = subprocess.run(
        [*DEMO, "--json", *map(str, arguments)],
        capture_output=True,
        text=True,
        check=False,
        env={**os.environ, **environment},
    )
    ledger = json.loads(run.stdout.splitlines()[-1]) if run.stdout else {}
    return run.returncode, ledger, run.stderr


@contextmanager
def running(*arguments: object) -> Iterator[subprocess.Popen[bytes]]:
    """A demo that is running."""
    with subprocess.Popen(
        [*DEMO, "--json", *map(str, arguments)], stdout=subprocess.PIPE, stderr=subprocess.PIPE
    ) as run:
        try:
            yield run
        finally:
            run.kill()


def wait_for_orders(directory: Path, count: int) -> None:
    progress = Progress(Folder(directory))
    while progress.look().shipped < count:
        time.sleep(0.05)
    progress.close()


def services_of(directory: Path) -> list[str]:
    """The processes of a folder's services."""
    listed = subprocess.run(["ps", "-ww", "-eo", "args="], capture_output=True, text=True, check=True).stdout
    return [line for line in listed.splitlines() if "shop.service" in line and str(directory) in line]


def wait_for_nobody(directory: Path) -> None:
    end = time.monotonic() + 5
    while services_of(directory) and time.monotonic() < end:
        time.sleep(0.05)
    assert services_of(directory) == []


def test_the_ledger_of_a_run_is_exact(tmp_path: Path) -> None:
    code, ledger, said = demo("--limit", 300, "--dir", tmp_path / "run", "--seed", 3)
    assert code == 0, said
    assert set(FIELDS) <= set(ledger)
    expected = [outcome(3, order_id) for order_id in range(1, 301)]
    assert ledger["orders_read"] == 300
    assert ledger["orders_shipped"] == expected.count(Outcome.SHIPPED)
    assert ledger["declined"] == expected.count(Outcome.DECLINED)
    assert ledger["out_of_stock"] == expected.count(Outcome.OUT_OF_STOCK)
    assert ledger["carrier_refused"] == expected.count(Outcome.CARRIER_REFUSED)
    assert ledger["timed_out"] == ledger["lost"] == ledger["doubled"] == ledger["out_of_order"] == 0
    assert ledger["cents_captured"] - ledger["cents_refunded"] == ledger["cents_shipped"]
    assert services_of(tmp_path) == []


def test_a_run_in_a_folder_of_its_own_leaves_nothing(tmp_path: Path) -> None:
    code, ledger, said = demo("--limit", 20, TMPDIR=str(tmp_path))
    assert (code, ledger["orders_read"], said) == (0, 20, "")
    assert list(tmp_path.glob("headwater-demo-*")) == []


def test_services_may_be_killed_at_any_moment(tmp_path: Path) -> None:
    code, ledger, said = demo("--limit", 1500, "--rate", 250, "--kill-every", 0.7, "--dir", tmp_path / "run")
    assert code == 0, said
    assert ledger["kills"] >= 5
    assert ledger["lost"] == ledger["doubled"] == ledger["out_of_order"] == ledger["dead_letters"] == 0


def test_a_run_that_was_killed_as_a_whole_goes_on_where_it_was(tmp_path: Path) -> None:
    with running("--limit", 1500, "--rate", 400, "--dir", tmp_path) as run:
        wait_for_orders(tmp_path, 50)
        run.kill()
        run.wait()
    wait_for_nobody(tmp_path)
    code, ledger, said = demo("--dir", tmp_path)
    assert code == 0, said
    assert ledger["orders_read"] == 1500


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_run_that_is_stopped_stops_all_of_it_and_can_go_on(tmp_path: Path, number: signal.Signals) -> None:
    with running("--limit", 600, "--rate", 300, "--dir", tmp_path) as run:
        wait_for_orders(tmp_path, 20)
        run.send_signal(number)
        out, said = run.communicate()
    assert (run.returncode, out) == (130, b"")
    assert said.decode() == f"shop: stopped; `headwater demo --dir {tmp_path}` goes on where it was\n"
    assert services_of(tmp_path) == []
    code, _, complaints = demo("--dir", tmp_path)
    assert code == 0, complaints


def test_one_customer_that_always_fails_stops_nobody_else_and_is_mended_by_a_redrive(tmp_path: Path) -> None:
    bad = "00003"  # six orders
    code, ledger, said = demo("--limit", 200, "--dir", tmp_path, SHOP_FAIL_CUSTOMER=bad, SHOP_RETRY_ATTEMPTS="2")
    assert code == 1
    assert ledger["dead_letters"] == 6
    assert ledger["orders_shipped"] + ledger["orders_cancelled"] == 194
    assert ledger["lost"] == ledger["doubled"] == ledger["out_of_order"] == 0
    assert "held payments.commands dead 6 orders.fulfilment>payments/4 RuntimeError: card terminal broken" in said
    store = url(tmp_path / "payments.db")
    redrive = [sys.executable, "-m", "headwater", "dead-letters", "redrive", "--consumer", "payments.commands", "--yes"]
    subprocess.run([*redrive, "--store", store], check=True, capture_output=True)
    code, ledger, said = demo("--dir", tmp_path)
    assert code == 0, said
    assert (ledger["dead_letters"], ledger["orders_read"]) == (0, 200)


def test_a_folder_keeps_to_what_its_run_was_started_with(tmp_path: Path) -> None:
    code, _, said = demo("--limit", 5, "--dir", tmp_path)
    assert code == 0, said
    for other in (["--limit", "6"], ["--seed", "9"], ["--orders", str(_other_orders(tmp_path))]):
        code, _, said = demo("--dir", tmp_path, *other)
        assert code == 3
        assert "go on with those, or choose another --dir" in said
        assert len(said.splitlines()) == 1


def _other_orders(folder: Path) -> Path:
    path = folder / "other.txt"
    path.write_text("customer_id date number_of_cds dollar_value\n 00009 19970101 1 1.00\n")
    return path


def test_two_demos_do_not_share_a_folder(tmp_path: Path) -> None:
    with running("--limit", 3000, "--rate", 300, "--dir", tmp_path):
        wait_for_orders(tmp_path, 1)
        code, _, said = demo("--dir", tmp_path)
    assert code == 3
    assert said == f"error: another demo is running in {tmp_path}: stop it, or choose another --dir\n"


def test_a_malformed_line_is_refused_before_anything_starts(tmp_path: Path) -> None:
    path = tmp_path / "orders.txt"
    path.write_text("customer_id date number_of_cds dollar_value\n 00001 19970101 1 11.77\n 00001 19970101 one 1.00\n")
    code, _, said = demo("--orders", path, TMPDIR=str(tmp_path))
    assert code == 3
    assert said.startswith("error: orders.txt, line 3: 'one' is not a number of CDs")
    assert len(said.splitlines()) == 1
    assert list(tmp_path.iterdir()) == [path]


def test_a_service_that_cannot_run_is_given_up_with_its_own_words(tmp_path: Path) -> None:
    code, _, _ = demo("--limit", 5, "--dir", tmp_path, SHOP_FAIL_CUSTOMER="00001", SHOP_RETRY_ATTEMPTS="1")
    assert code == 1  # one order is left to do
    with closing(apsw.Connection(str(tmp_path / "payments.db"))) as database:
        database.execute("UPDATE headwater_schema SET version = version + 98")
    code, _, said = demo("--dir", tmp_path)
    assert code == 1
    assert "error: payments cannot run, it ended with 3 3 times: " in said
    assert f"{tmp_path / 'payments.db'}" in said
    assert services_of(tmp_path) == []


def test_a_wrong_setting_is_said_in_one_line() -> None:
    code, _, said = demo(SHOP_PAYMENT_SECONDS="soon")
    assert (code, said) == (3, "error: SHOP_PAYMENT_SECONDS is 'soon', which is not a number\n")
