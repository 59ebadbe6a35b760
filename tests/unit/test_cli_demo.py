"""`headwater demo` passes its options to the shop, and ends as the shop's ledger says."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path

import pytest

from examples.shop.demo import DemoOptions
from headwater.cli import demo, main


def test_options_are_those_of_the_shop(monkeypatch: pytest.MonkeyPatch) -> None:
    given: list[DemoOptions] = []

    class Shop:
        @staticmethod
        def run(options: DemoOptions) -> int:
            given.append(options)
            return 1

    Shop.DemoOptions = DemoOptions  # type: ignore[attr-defined]
    monkeypatch.setattr(demo, "find_shop", lambda: Shop)
    assert main(["demo"]) == 1
    words = "--orders o.txt --limit 5 --rate 2.5 --kill-every 1 --seed 7 --dir d --json"
    assert main(["demo", *words.split()]) == 1
    plain, full = given
    assert plain == DemoOptions()
    assert asdict(full) == asdict(DemoOptions(Path("o.txt"), 5, 2.5, 1.0, 7, Path("d"), json=True))


def test_the_shop_of_a_checkout_is_found() -> None:
    assert demo.find_shop().DemoOptions is DemoOptions


def test_without_the_shop_it_says_how_to_get_it(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("headwater.__file__", str(tmp_path / "a" / "b" / "c.py"))
    assert main(["demo"]) == 5
    assert "install the wheel" in capsys.readouterr().err


def test_an_orders_file_that_is_not_there(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["demo", "--orders", "/nowhere/orders.txt", "--json"]) == 3
    shown = capsys.readouterr()
    assert (shown.out, shown.err.count("\n")) == ("", 1)
    assert shown.err.startswith("error: the orders file /nowhere/orders.txt cannot be read")
