"""`headwater demo`: runs the shop on real orders, and exits 0 only if the ledger holds.

headwater demo [--orders FILE] [--limit N] [--rate N] [--kill-every SECONDS] [--seed N] [--dir DIR]
               [--store URL] [--channel URL] [--json]
"""

from __future__ import annotations

import asyncio
import json
import secrets
import shutil
import signal
import tempfile
import time
from dataclasses import asdict, dataclass, replace
from pathlib import Path

from headwater import ConfigurationError, HeadwaterError

from .driver import Driver, Pace
from .folder import Folder, Run, digest
from .ledger import Ledger, ledger
from .lines import read_orders
from .services import Services
from .summary import summary
from .view import say, view

SAMPLE = Path(__file__).with_name("sample.txt")
SEED = 1
STOPPED = 130


@dataclass(frozen=True)
class DemoOptions:
    """`orders`: the file, by default a sample of about 2,000; `directory`: where to run, or to go on with an earlier run.

    `store`: a PostgreSQL server, on which each service and the channel get a database, or with `channel` the URL of another.
    `rate`: orders a second; `kill_every`: seconds between kills; `deadline`: seconds after which the run is given up.
    """

    orders: Path | None = None
    limit: int | None = None
    rate: float | None = None
    kill_every: float | None = None
    seed: int | None = None
    directory: Path | None = None
    json: bool = False
    deadline: float | None = None
    store: str = ""
    channel: str = ""


def run(options: DemoOptions) -> int:
    """Run the demo; 0 if the ledger holds, 1 if not, 130 if it was stopped. Raises HeadwaterError where it cannot run."""
    begun = time.monotonic()
    folder = Folder(options.directory) if options.directory else None
    if folder is not None:
        folder.claim()
    this = agreed(options, folder.earlier() if folder else None)
    orders = read_orders(Path(this.orders), this.limit)
    if folder is None:
        folder = Folder(Path(tempfile.mkdtemp(prefix="headwater-demo-")))
        folder.claim()
    folder.keep(this)
    services = Services(folder, {"SHOP_SEED": str(this.seed)})
    driver = Driver(folder, services, orders, _pace(options, this), view(live=not options.json))
    try:
        missing = _drive(driver)
        if missing:
            say(f"given up: {missing}")
        found = ledger(driver.progress.logs.books(), orders, this.seed)
    except (KeyboardInterrupt, asyncio.CancelledError):
        say(f"stopped; `headwater demo --dir {folder.path}` goes on where it was")
        return STOPPED
    except HeadwaterError:
        say(f"databases and logs are in {folder.path}")
        raise
    _report(options, found, missing, services.kills, time.monotonic() - begun)
    if found.exact and options.directory is None:
        driver.progress.logs.remove()
        shutil.rmtree(folder.path)
    else:
        say(f"databases and logs are in {folder.path}")
    return 0 if found.exact else 1


def agreed(options: DemoOptions, earlier: Run | None) -> Run:
    """What is run: as an earlier run in the folder was started, with which options that are given must agree."""
    orders = options.orders or (Path(earlier.orders) if earlier else SAMPLE)
    limit = options.limit if earlier is None or options.limit is not None else earlier.limit
    seed = options.seed if options.seed is not None else (earlier.seed if earlier else SEED)
    this = Run(str(orders.absolute()), digest(orders), limit, seed, options.store, options.channel)
    if earlier is None:
        return replace(this, name=f"shop_{secrets.token_hex(4)}")
    this = replace(
        this,
        store=this.store or earlier.store,
        channel=this.channel or earlier.channel,
        name=earlier.name,
    )
    for what, now, then in (
        ("other orders", this.digest, earlier.digest),
        ("another --limit", this.limit, earlier.limit),
        ("another --seed", this.seed, earlier.seed),
        ("another --store", this.store, earlier.store),
        ("another --channel", this.channel, earlier.channel),
    ):
        if now != then:
            raise ConfigurationError(
                f"the run in this folder has {what} ({earlier.orders}, --limit {earlier.limit}, --seed {earlier.seed}):"
                " go on with those, or choose another --dir"
            )
    return this


def _pace(options: DemoOptions, this: Run) -> Pace:
    return Pace(options.rate, options.kill_every, options.deadline, this.seed)


def _drive(driver: Driver) -> str:
    """Run the driver until it ends, or until SIGINT or SIGTERM cancel it."""

    async def main() -> str:
        task = asyncio.ensure_future(driver.run())
        for number in (signal.SIGINT, signal.SIGTERM):
            asyncio.get_running_loop().add_signal_handler(number, task.cancel)
        return await task

    return asyncio.run(main())


def _report(options: DemoOptions, found: Ledger, missing: str, kills: int, seconds: float) -> None:
    for problem in found.problems:
        say(problem)
    if found.dead_letters:
        say("`headwater dead-letters list --store URL` shows what waits for you; redrive it, and go on with --dir")
    if options.json:
        end = {"kills": kills, "seconds": round(seconds, 2), "exact": found.exact, "missing": missing}
        print(json.dumps({**asdict(found), **end}))
    else:
        print(summary(found, kills, seconds))
