"""Rounds: all subjects of a case one after the other, again and again; noisy rounds are marked and repeated, to a bound."""

from __future__ import annotations

import gc
from statistics import median

from .case import Case, Setting
from .load import Figures
from .quiet import Noise, Watch
from .report import Row

Round = dict[str, Figures]


def measure(case: Case, setting: Setting) -> list[Row]:
    """The rows of a case."""
    wanted = case.rounds or setting.rounds
    quiet: list[Round] = []
    noisy: list[Round] = []
    while len(quiet) < wanted and len(quiet) + len(noisy) < _bound(wanted, setting):
        found, noise = _round(case, setting, len(quiet) + len(noisy))
        (quiet if noise.quiet else noisy).append(found)
    few = len(quiet) < wanted
    return _rows(case, quiet + noisy if few else quiet, noisy=few)


def _bound(wanted: int, setting: Setting) -> int:
    return wanted if setting.late else wanted + (1 if setting.quick else wanted)


def _round(case: Case, setting: Setting, turn: int) -> tuple[Round, Noise]:
    names = list(case.subjects)
    first = turn % len(names)
    found: Round = {}
    watch = Watch(setting.folder, setting.cpu)
    for name in names[first:] + names[:first]:
        gc.collect()
        gc.freeze()  # what the bench itself holds is not ours to look through again and again
        found[name] = case.subjects[name]()
    return found, watch.stop()


def _rows(case: Case, rounds: list[Round], *, noisy: bool) -> list[Row]:
    rows = []
    for subject in case.subjects:
        for unit in dict.fromkeys(unit for one in rounds for unit in one[subject]):
            value = median(one[subject][unit] for one in rounds if unit in one[subject])
            peer = _ratio(rounds, subject, case.peer, unit)
            limit = _ratio(rounds, subject, case.limit, unit)
            rows.append(Row(case.work, case.name, subject, value, unit, peer, limit, noisy))
        times = _ratio(rounds, subject, case.beside, next(iter(rounds[0][subject])))
        if times is not None:
            rows.append(Row(case.work, case.name, subject, times, f"x {case.beside}", noisy=noisy))
    return rows


def _ratio(rounds: list[Round], subject: str, other: str, unit: str) -> float | None:
    """How many times better than another in the same round, at the median; of what is no rate or time, the quotient."""
    if subject == other:
        return None
    ratios = []
    for one in rounds:
        ours, theirs = one[subject].get(unit), one.get(other, {}).get(unit)
        if ours and theirs:
            ratios.append(theirs / ours if is_time(unit) else ours / theirs)
    return median(ratios) if ratios else None


def is_time(unit: str) -> bool:
    """Whether less is better, and a ratio is turned round so that more is better again."""
    return unit.startswith(("ms", "µs"))
