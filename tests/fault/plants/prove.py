"""`./dev prove --plants [NAME …]`: plants bugs and tells which detector caught each, after how many trials."""

from __future__ import annotations

import json
import re
import sys
import time
from collections.abc import Callable, Iterable, Sequence
from contextlib import nullcontext
from dataclasses import dataclass, field
from functools import partial
from typing import Any

from benchmarks.machine import about
from benchmarks.scorecard import write_plants
from tests.fault.plants.apart import Lost, apart
from tests.fault.plants.detectors import Suite, warm_up
from tests.fault.plants.garden import growing, plants
from tests.fault.plants.plant import Detector, Plant, Promise
from tests.fault.rigs.on_server import serving

PATIENCE = 90.0
BROKEN = re.compile(r"\b(TypeError|AttributeError|NameError|ImportError|UnboundLocalError)\b")
"""What is told of a patch that does not fit the code: it catches nothing."""


@dataclass(frozen=True)
class Sight:
    """What a detector made of a plant: `words` of the violation, empty where it missed it, and `why` it is no catch."""

    detector: str
    trials: int
    seed: int
    words: str = ""
    why: str = ""


@dataclass
class Finding:
    """What became of a plant."""

    plant: Plant
    sights: list[Sight] = field(default_factory=list)
    seconds: float = 0.0

    @property
    def caught(self) -> bool:
        """Whether each detector that claims to see it does."""
        return bool(self.sights) and all(sight.words for sight in self.sights)

    def as_data(self) -> dict[str, Any]:
        """The one object that stands for a plant."""
        seen = [sight for sight in self.sights if sight.words]
        return {
            "plant": self.plant.name,
            "breaks": self.plant.breaks.value,
            "does": self.plant.what,
            "caught_by": ", ".join(sight.detector for sight in seen),
            "trials": sum(sight.trials for sight in self.sights),
            "seconds": round(self.seconds, 2),
            "seen": [f"{sight.detector}, seed {sight.seed}: {sight.words[:300]}" for sight in seen],
            "missed": [f"{sight.detector}: {sight.why}" for sight in self.sights if not sight.words],
        }

    def line(self) -> str:
        """The same for a person."""
        data = self.as_data()
        found = f"{self.plant.name:34} {data['breaks']:26} {data['caught_by'] or 'SURVIVES':60} "
        missed = "".join(f"\n    MISSED by {one}" for one in data["missed"])
        return f"{found} {data['trials']:>4} {data['seconds']:7.1f}{missed}"


class Prover:
    """Plants bugs one after the other, each trial in a process of its own."""

    def __init__(self) -> None:
        self._sound: set[tuple[Detector, int]] = set()

    def prove(self, plant: Plant, detectors: Iterable[Detector]) -> Finding:
        """Let detectors look for a plant."""
        finding, began = Finding(plant), time.monotonic()
        for detector in detectors:
            finding.sights.append(self._seek(plant, detector))
        finding.seconds = time.monotonic() - began
        return finding

    def _seek(self, plant: Plant, detector: Detector) -> Sight:
        trials = seed = 0
        try:
            for trials, seed in enumerate(detector.seeds, 1):
                found = apart(partial(_planted, plant, detector, seed), PATIENCE)
                if seen := next((one for one in found if re.search(detector.says, one)), ""):
                    why = self._unsound(detector, seed, seen)
                    return Sight(detector.name, trials, seed, "" if why else seen, why)
                if found:
                    return Sight(detector.name, trials, seed, why=f"it says something else: {found[0][:500]}")
        except Lost as error:
            return Sight(detector.name, trials, seed, why=str(error))
        return Sight(detector.name, trials, seed, why="it saw nothing")

    def _unsound(self, detector: Detector, seed: int, seen: str) -> str:
        """Why what was seen is no catch: it comes of a patch that is broken, or is there without the plant."""
        if BROKEN.search(seen):
            return f"the patch is broken: {seen}"
        if (detector, seed) not in self._sound:
            without = apart(partial(detector.attempt, seed), PATIENCE)
            if without:
                return f"it says so without the plant too: {without[0]}"
            self._sound.add((detector, seed))
        return ""


def _planted(plant: Plant, detector: Detector, seed: int) -> list[str]:
    with growing(plant):
        return detector.attempt(seed)


def prove(
    wanted: Sequence[str], say: Callable[[str], None], *, quick: bool = False, on_server: bool = False
) -> list[Finding]:
    """Prove the plants of these names, or all; with `quick`, each by its first detector that is soon done.

    With `on_server` the plants that are there on a server as well, each by the detectors that look there.
    """
    prover, known = Prover(), plants()
    findings = []
    chosen = [known[name] for name in wanted] or list(known.values())
    seeing = {plant.name: _on_server(plant) if on_server else plant.caught_by for plant in chosen}
    warm_up([one for detectors in seeing.values() for one in detectors if isinstance(one, Suite)])
    for plant in chosen:
        detectors = seeing[plant.name]
        detectors = [one for one in detectors if not one.slow][:1] if quick else detectors
        if detectors:
            findings.append(prover.prove(plant, detectors))
            say(findings[-1].line())
    return findings


def few(count: int) -> list[str]:
    """The names of so many plants of each promise, of those that a detector sees soon."""
    soon = [one for one in plants().values() if not all(detector.slow for detector in one.caught_by)]
    of_each = ([one.name for one in soon if one.breaks is promise] for promise in Promise)
    return [name for names in of_each for name in names[:count]]


def _on_server(plant: Plant) -> Sequence[Detector]:
    moved = [(one, one.on_server()) for one in plant.caught_by]
    return [there for one, there in moved if there is not None and (plant.everywhere or there is one)]


def names() -> list[str]:
    """All plants, by name."""
    return list(plants())


def main(wanted: Sequence[str], *, as_json: bool, keep: bool, store: str = "") -> int:
    """Prove plants and tell what caught them; 1 if one survives. `keep` puts the figures on the scorecard."""
    out = sys.stderr if as_json else sys.stdout
    with serving(store) if store else nullcontext():
        findings = prove(wanted, partial(print, file=out, flush=True), on_server=bool(store))
    survived = [one.plant.name for one in findings if not one.caught]
    print(f"{len(findings)} planted, {len(findings) - len(survived)} caught", *survived, file=out)
    on_server = " on a server" if store else ""
    if keep:
        write_plants(
            about(["./dev", "prove", *sys.argv[1:]]),
            [one.as_data() | {"plant": f"{one.plant.name}{on_server}"} for one in findings],
        )
    if as_json:
        for finding in findings:
            print(json.dumps(finding.as_data()))
    return 1 if survived else 0
