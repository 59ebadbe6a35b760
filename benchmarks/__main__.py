"""`./dev bench [W1 …] [--store postgresql] [--channel kafka] [--quick] [--json FILE] [--scorecard]`: figures and ratios."""

from __future__ import annotations

import argparse
import logging
import shutil
import sys
import tempfile
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import ExitStack
from pathlib import Path
from typing import Any

from . import broker, postgres
from .broker.serving import served as broker_at
from .case import Case, Setting
from .durability import check
from .machine import BROKERS, STORES, about
from .postgres.durability import check_server
from .postgres.server import served
from .quiet import OTHERS, SYNC_MS, Watch
from .report import Row, as_data, show, write_json
from .rounds import measure
from .scorecard import write_benches
from .works import WORKS, broker_work, postgres_work, work

SQLITE = "sqlite"
POSTGRESQL = "postgresql"
KAFKA = "kafka"
RABBITMQ = "rabbitmq"
Cases = Callable[[Setting], Iterator[Case]]
Found = tuple[list[Row], dict[str, Any]]

ABOUT = """Measures Headwater beside eventsourcing, the raw driver and a raw group-commit loop; on PostgreSQL beside Emmett
too, where Node is there; with --channel, beside FastStream and the raw client. In one run, interleaved, medians of
5 rounds (3 with --quick). A ratio above 1 is better; of bytes, counts and growth it is the plain quotient."""


def main() -> int:
    options = _options()
    begun = time.monotonic()
    folder = Path(tempfile.mkdtemp(prefix="headwater-bench-", dir=options.dir))
    setting = Setting(options.quick, folder)
    try:
        if options.channel:
            rows, durability = _over_channel(options.channel, options.store, options.works or broker.WORKS, setting)
        elif options.store == SQLITE:
            rows, durability = _measured(setting, check, {name: work(name) for name in options.works or WORKS})
        else:
            rows, durability = _over_postgres(options.store, options.works or postgres.WORKS, setting)
    finally:
        shutil.rmtree(folder, ignore_errors=True)
    command = ["./dev", "bench", *_without_files(sys.argv[1:])]
    found = as_data(about(command, BROKERS if options.channel else STORES), rows, durability)
    if options.json:
        write_json(options.json, found)
    if options.scorecard:
        write_benches(found)
    print(f"{time.monotonic() - begun:.0f} s")
    return 0


def _over_postgres(store: str, names: Iterable[str], setting: Setting) -> Found:
    with served("" if store == POSTGRESQL else store) as server:
        setting.cpu = server.cpu
        works = {name: postgres_work(name, server) for name in names}
        return _measured(setting, lambda _: check_server(server), works)


def _over_channel(channel: str, store: str, names: Iterable[str], setting: Setting) -> Found:
    with ExitStack() as servers:
        there = servers.enter_context(broker_at(channel))
        databases = None
        if broker.WITH_DATABASE.intersection(names):
            databases = servers.enter_context(served(store if "://" in store else ""))
        setting.cpu = lambda: there.cpu() + (databases.cpu() if databases is not None else 0.0)
        works = {name: broker_work(name, there, databases) for name in names}
        logging.getLogger("headwater").setLevel(logging.CRITICAL)  # M4 has messages that fail
        return _measured(setting, lambda _: {there.name: there.facts()}, works)


def _measured(setting: Setting, check: Callable[[Setting], Any], works: Mapping[str, Cases]) -> Found:
    _say_machine(setting)
    durability = check(setting)
    for subject, found in durability.items():
        print(f"durable: {subject}: " + ", ".join(f"{name} {value}" for name, value in found.items()))
    rows: list[Row] = []
    for cases in works.values():
        done = [row for case in cases(setting) for row in measure(case, setting)]
        show(done)
        rows += done
    return rows, durability


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="./dev bench", description=ABOUT)
    parser.add_argument(
        "works",
        nargs="*",
        metavar="WORK",
        help=f"{', '.join(WORKS)}, M1 to M4 and SCALE; by default all that there are",
    )
    parser.add_argument(
        "--store", default=SQLITE, help="sqlite, or postgresql: a server of its own, or the one a superuser's URL names"
    )
    parser.add_argument(
        "--channel", default="", help="kafka or rabbitmq, for M1 to M4: a server of its own, or the one a URL names"
    )
    parser.add_argument("--quick", action="store_true", help="less data, shorter and fewer rounds: within 3 minutes")
    parser.add_argument("--json", type=Path, metavar="FILE", help="also write the rows, the machine and the versions")
    parser.add_argument("--scorecard", action="store_true", help="keep the figures in docs/reference/scorecard")
    parser.add_argument("--dir", type=Path, help="where the files lie meanwhile: another disk")
    options = parser.parse_args()
    if options.store not in (SQLITE, POSTGRESQL) and not options.store.startswith(f"{POSTGRESQL}://"):
        parser.error(f"the store is {SQLITE}, {POSTGRESQL} or the URL of a server")
    if options.channel and options.channel.partition("://")[0] not in (KAFKA, RABBITMQ):
        parser.error(f"the channel is {KAFKA}, {RABBITMQ} or the URL of one of them")
    there = broker.WORKS if options.channel else WORKS if options.store == SQLITE else postgres.WORKS
    if wrong := [name for name in options.works if name not in there]:
        where = options.channel.partition("://")[0] or options.store
        parser.error(f"there is no work {wrong[0]} over {where}; there are {', '.join(there)}")
    return options


def _say_machine(setting: Setting) -> None:
    watch = Watch(setting.folder, setting.cpu)
    time.sleep(0.3)
    noise = watch.stop()
    print(
        f"others use {noise.others:.2f} cores (quiet: < {OTHERS}), fdatasync p50 {noise.sync_ms:.2f} ms (< {SYNC_MS});"
        " what was not quiet is marked noisy"
    )


def _without_files(words: list[str]) -> list[str]:
    """The words of the command that say what was measured, not where its files went."""
    following = zip(["", *words], words, strict=False)
    return [word for before, word in following if not {before, word} & {"--json", "--dir"}]


if __name__ == "__main__":
    sys.exit(main())
