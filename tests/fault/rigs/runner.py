"""Runs rigs: counts their trials, names the seed of each violation, and replays one."""

from __future__ import annotations

import argparse
import importlib
import json
import pkgutil
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

from benchmarks.machine import about
from benchmarks.scorecard import write_rigs
from headwater.config import scheme_of
from tests.fault.rigs.on_broker import OURS, channel_at
from tests.fault.rigs.trial import TrialResult, fell

PACKAGE = "tests.fault.rigs"
FUTILE = 25
SHOWN = 20
TOLD_EVERY = 5.0
STOPPED = 130


class Rig(Protocol):
    """A module of this package that is a rig; `LASTING` and `MINUTES` stand in those whose trial lasts as long as asked.

    `STORES` stands in those whose `one_trial(seed, store)` takes the URL of a server, where it makes databases of its own,
    or `postgresql`: one is started. `CHANNELS` stands in those whose `one_trial(seed, channel)` takes the URL of a channel.

    One that can tell a trial step by step has `replay(seed, say)`, which answers as `one_trial(seed)` does.
    """

    COUNT: int
    one_trial: Callable[..., TrialResult]


@dataclass(frozen=True)
class Wanted:
    """`count`: trials that must take effect; `seed`: the first; `seconds`: at most so long; `store` and `channel`: URLs."""

    count: int | None = None
    seed: int | None = None
    seconds: float | None = None
    store: str = ""
    channel: str = ""

    @property
    def alone(self) -> bool:
        """Whether one seed is replayed."""
        return self.seed is not None and self.count is None and self.seconds is None


@dataclass
class Report:
    """What a rig did so far."""

    rig: str
    trials: int = 0
    violations: int = 0
    seeds: list[int] = field(default_factory=list)
    seconds: float = 0.0
    futile: int = 0
    told: list[str] = field(default_factory=list)
    facts: dict[str, float] = field(default_factory=dict)
    points: Counter[str] = field(default_factory=Counter)
    tried: list[int] = field(default_factory=list)
    stopped: bool = False

    @property
    def sound(self) -> bool:
        """Whether faults took effect, and no promise broke."""
        return not self.violations and (self.trials > 0 or self.stopped)

    def add(self, seed: int, result: TrialResult) -> None:
        """Count the trials of one seed."""
        self.tried = [*self.tried[:1], seed]
        if not result.effective and not result.violations:
            self.futile += 1
            return
        self.trials += result.trials
        self.violations += len(result.violations)
        if result.violations:
            self.seeds.append(seed)
        for one in result.violations[:SHOWN]:
            self.told.append(f"{self.rig} --seed {seed}: {one}")
        for name, value in result.facts.items():
            self.facts[name] = max(value, self.facts.get(name, value))
        if result.points:
            self.points.update(result.points)
            self.facts["points"] = sum(1 for times in self.points.values() if times)
            self.facts["least at a point"] = min(self.points.values())

    def as_data(self) -> dict[str, Any]:
        """The one object that stands for a rig: `seeds` of violations, `tried` the first seed and the last."""
        return {
            "rig": self.rig,
            "trials": self.trials,
            "violations": self.violations,
            "seeds": self.seeds,
            "seconds": round(self.seconds, 2),
            "tried": [self.tried[0], self.tried[-1]] if self.tried else [],
            "facts": self.facts,
        }

    def line(self) -> str:
        """The same for a person."""
        facts = "".join(f", {name} {value:g}" for name, value in sorted(self.facts.items()))
        futile = f", {self.futile} without effect" if self.futile else ""
        stopped = " (stopped)" if self.stopped else ""
        return (
            f"{self.rig}: {self.violations} violations in {self.trials:,} trials{futile},"
            f" {self.seconds:.1f} s{facts}{stopped}"
        )


def names() -> list[str]:
    """All rigs, by module name."""
    return [one for one in _modules() if is_rig(one)]


def _modules() -> Iterator[str]:
    package = importlib.import_module(PACKAGE)
    for one in pkgutil.iter_modules(package.__path__):
        if not one.name.startswith("_"):
            yield one.name


def is_rig(name: str) -> bool:
    """Whether a module of the package is a rig."""
    return name in _modules() and hasattr(importlib.import_module(f"{PACKAGE}.{name}"), "one_trial")


def takes_store(name: str) -> bool:
    """Whether the trials of a rig run on a server as well."""
    return is_rig(name) and getattr(rig(name), "STORES", False)


def takes_channel(name: str) -> bool:
    """Whether the trials of a rig run on any channel."""
    return is_rig(name) and getattr(rig(name), "CHANNELS", False)


def rig(name: str) -> Rig:
    """The rig of that name."""
    return importlib.import_module(f"{PACKAGE}.{name}")


def run(
    name: str,
    wanted: Wanted,
    say: Callable[[str], None] = lambda _: None,
    tell: Callable[[str], None] | None = None,
) -> Report:
    """Run one rig; Ctrl-C ends it early, and what was done is reported. `tell` takes the steps of a seed that is replayed."""
    on_channel = f" on {scheme_of(wanted.channel)}" if wanted.channel else ""
    report, module = Report(f"{name} on a server" if wanted.store else f"{name}{on_channel}"), rig(name)
    began = told_at = time.monotonic()
    try:
        for seed in _seeds(wanted, module, report, began):
            report.add(seed, _one(module, seed, wanted, tell if wanted.alone else None))
            report.seconds = time.monotonic() - began
            if time.monotonic() - told_at > TOLD_EVERY:
                told_at = time.monotonic()
                say(report.line())
    except KeyboardInterrupt:
        report.stopped = True
    report.seconds = time.monotonic() - began
    return report


def _seeds(wanted: Wanted, module: Rig, report: Report, began: float) -> Iterator[int]:
    """Seeds until enough trials took effect, the time is over, or nothing takes effect at all."""
    first = 1 if wanted.seed is None else wanted.seed
    if wanted.alone:
        yield first
        return
    lasting = getattr(module, "LASTING", False)
    timed = wanted.seconds is not None and not lasting
    count = wanted.count or (None if timed else module.COUNT)
    seed = first
    while count is None or report.trials < count:
        if timed and time.monotonic() - began >= (wanted.seconds or 0):
            return
        if report.futile >= FUTILE + 10 * report.trials:
            return
        yield seed
        seed += 1


def _one(module: Rig, seed: int, wanted: Wanted, tell: Callable[[str], None] | None) -> TrialResult:
    try:
        if tell is not None and not wanted.store and hasattr(module, "replay"):
            found: TrialResult = module.replay(seed, tell)
            return found
        given = {"store": wanted.store, "channel": wanted.channel}
        asked: dict[str, Any] = {what: url for what, url in given.items() if url}
        if getattr(module, "LASTING", False) and wanted.seconds:
            asked["seconds"] = wanted.seconds
        return module.one_trial(seed, **asked)
    except Exception:  # noqa: BLE001 - what falls out of a trial is a violation
        return fell()


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the rigs that are named, or all; 1 if a promise broke or no fault took effect, 130 after Ctrl-C."""
    options = _parse(arguments)
    if options.plants:
        return plants().main(options.rigs, as_json=options.json, keep=options.scorecard, store=options.store)
    seconds = options.minutes * 60 if options.minutes else None
    reports: list[Report] = []
    out = sys.stderr if options.json else sys.stdout
    with channel_at(options.channel) as channel:
        wanted = Wanted(options.count, options.seed, seconds, options.store, channel)
        for name in options.rigs or names():
            reports.append(run(name, wanted, _whisper, lambda line: print(line, file=out)))
            _tell(reports[-1], out.write)
            if reports[-1].stopped:
                break
    if options.scorecard:
        write_rigs(
            about(["./dev", "prove", *sys.argv[1:]]), [one.as_data() for one in reports if one.sound or one.violations]
        )
    if options.json:
        for report in reports:
            print(json.dumps(report.as_data()))
    if any(not report.sound for report in reports):
        return 1
    return STOPPED if any(report.stopped for report in reports) else 0


def _whisper(line: str) -> None:
    if sys.stderr.isatty():
        print(f"  … {line}", file=sys.stderr)


def _tell(report: Report, write: Callable[[str], object]) -> None:
    for line in report.told:
        write(f"VIOLATION {line}\n")
    write(f"{report.line()}\n")
    if not report.sound and not report.violations:
        write(f"{report.rig}: no fault took effect, so nothing was shown\n")


def _parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="dev prove", description="Prove the promises: harm the system, by seed.")
    parser.add_argument("rigs", nargs="*", metavar="RIG", help="which, by default all: " + ", ".join(names()))
    parser.add_argument("--count", type=_positive, help="trials of each rig that must take effect")
    parser.add_argument("--seed", type=int, help="replay this one; with --count or --minutes, the first")
    parser.add_argument("--minutes", type=float, help="how long each rig may take, or `soak` lasts")
    parser.add_argument(
        "--store",
        default="",
        help="postgresql: on a server that is started, or its URL: on that one; for rigs that take one",
    )
    parser.add_argument(
        "--channel",
        default="",
        help=f"{' or '.join(OURS)}: on a broker that is started, or the URL of any channel; for rigs that take one",
    )
    parser.add_argument("--json", action="store_true", help="end in one JSON object for each rig")
    parser.add_argument("--scorecard", action="store_true", help="keep the figures in docs/reference/scorecard")
    parser.add_argument(
        "--plants", action="store_true", help="plant the bugs of these names, or all: each must be caught"
    )
    options = parser.parse_args(arguments)
    what, known = ("plant", plants().names()) if options.plants else ("rig", names())
    for name in options.rigs:
        if name not in known:
            parser.error(f"there is no {what} {name!r}; there are: {', '.join(known)}")
    for what, takes in (("store", takes_store), ("channel", takes_channel)):
        asked = getattr(options, what) and not options.plants
        if asked and (unfit := [one for one in options.rigs or known if not takes(one)]):
            parser.error(f"{unfit[0]} takes no {what}: name those that do")
    return options


def plants() -> Any:
    """What plants bugs, which in turn needs the rigs."""
    return importlib.import_module("tests.fault.plants.prove")


def _positive(text: str) -> int:
    number = int(text)
    if number < 1:
        raise ValueError(text)
    return number
