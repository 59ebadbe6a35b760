"""`headwater demo`: the example shop, from the wheel or from a checkout."""

from __future__ import annotations

import importlib
import importlib.util
import sys
from pathlib import Path
from typing import Any

import click

import headwater
from headwater.errors import NotFound


@click.command()
@click.option(
    "--orders", type=click.Path(path_type=Path), help="A file of order lines; by default a small real sample."
)
@click.option("--limit", type=click.IntRange(1), help="Only so many orders.")
@click.option(
    "--rate", type=click.FloatRange(0, min_open=True), help="So many orders a second; by default all at once."
)
@click.option(
    "--kill-every", type=click.FloatRange(0, min_open=True), metavar="SECONDS", help="Kill a service so often."
)
@click.option("--seed", type=int, help="Which orders fail, and what is killed; 1 by default.")
@click.option(
    "--dir", "directory", type=click.Path(path_type=Path), help="Where the databases are; go on if they are there."
)
@click.option("--store", default="", metavar="URL", help="A PostgreSQL server; each service gets a database there.")
@click.option("--channel", default="", metavar="URL", help="Another channel than the one beside the databases.")
@click.option("--json", "json", is_flag=True, help="Print the ledger as one JSON document, on the last line.")
def command(**options: Any) -> int:
    """Run a shop of four services on real orders, and check its ledger; exit code 0 only if it holds."""
    shop = find_shop()
    code: int = shop.run(shop.DemoOptions(**options))
    return code


def find_shop() -> Any:
    """The module of the demo."""
    if importlib.util.find_spec("headwater._shop") is not None:
        return importlib.import_module("headwater._shop.demo")
    root = Path(headwater.__file__).resolve().parents[2]
    if not (root / "examples" / "shop" / "demo.py").is_file():
        raise NotFound("the example shop is not part of this installation; install the wheel, or start in a checkout")
    if str(root) not in sys.path:
        sys.path.insert(0, str(root))
    return importlib.import_module("examples.shop.demo")
