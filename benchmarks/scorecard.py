"""The scorecard: the last figures of every rig, planted bug and benchmark, kept as JSON and shown as a page."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from .names import CLIENT, FASTSTREAM, GROUP, OURS, PEER, RAW
from .report import figure, ratio

PLACE = Path(__file__).parents[1] / "docs" / "reference"
INTRODUCTION = """# Scorecard

The last figures of every rig, planted bug and benchmark. The page is written by `./dev prove --scorecard` and `./dev bench --scorecard`,
each of which replaces what it has measured; `scorecard.json` beside it has the same as data. Zero violations in so many trials is what
was seen, not a proof that there is none. [How the rigs work](../how-to/prove.md).
"""
PEERS = (PEER, FASTSTREAM)
RAWS = (GROUP, RAW, CLIENT)
Figures = dict[str, Any]


def write_rigs(about: Figures, reports: Iterable[Figures], place: Path = PLACE) -> None:
    """Keep what rigs reported, each under its name."""
    _keep(place, "rigs", {one["rig"]: {**one, "about": about} for one in reports})


def write_plants(about: Figures, plants: Iterable[Figures], place: Path = PLACE) -> None:
    """Keep which planted bug was caught by what."""
    _keep(place, "plants", {one["plant"]: {**one, "about": about} for one in plants})


def write_benches(found: Figures, place: Path = PLACE) -> None:
    """Keep the rows of a run of the benchmarks, each work as a whole."""
    works: dict[str, Figures] = {}
    for row in found["rows"]:
        works.setdefault(row["work"], {"about": found["about"], "rows": []})["rows"].append(row)
    _keep(place, "benches", works)


def _keep(place: Path, part: str, figures: Mapping[str, Figures]) -> None:
    place.mkdir(parents=True, exist_ok=True)
    data = place / "scorecard.json"
    card: dict[str, dict[str, Figures]] = json.loads(data.read_text()) if data.exists() else {}
    card[part] = dict(sorted((card.get(part, {}) | figures).items()))
    data.write_text(json.dumps(card, indent=1, ensure_ascii=False) + "\n")
    (place / "scorecard.md").write_text(page(card))


def page(card: Mapping[str, Mapping[str, Figures]]) -> str:
    """The scorecard as Markdown."""
    parts = [INTRODUCTION]
    if rigs := card.get("rigs"):
        parts += [
            "## Rigs\n",
            _table(("rig", "violations", "trials", "seeds", "seconds", "also"), map(_rig, rigs.values())),
        ]
        parts += [_commands(rigs)]
    if plants := card.get("plants"):
        rows = [
            (one["plant"], one["breaks"], _caught(one), one["trials"], figure(one["seconds"]))
            for one in plants.values()
        ]
        parts += ["## Planted bugs\n", _table(("planted bug", "breaks", "caught by", "trials", "seconds"), rows)]
        parts += [_commands(plants)]
    if benches := card.get("benches"):
        parts += [
            "## Benchmarks\n\nMedians; a ratio above 1 is better (of bytes, counts and growth it is the plain quotient).\n"
        ]
        for name, work in benches.items():
            columns = ("case", "figure", "Headwater", "peer", "raw", "x peer", "x raw")
            parts += [f"### {name}\n", _table(columns, _bench(work["rows"]))]
        parts += [_commands(benches)]
    return "\n".join(parts)


def _rig(report: Figures) -> Sequence[object]:
    facts = ", ".join(f"{name} {value:g}" for name, value in sorted(report.get("facts", {}).items()))
    seeds = "{} to {}".format(*report["tried"])
    return report["rig"], report["violations"], f"{report['trials']:,}", seeds, figure(report["seconds"]), facts


def _caught(plant: Figures) -> str:
    return plant["caught_by"] or "**survives**"


def _bench(rows: Sequence[Figures]) -> list[Sequence[object]]:
    """A line for each figure of ours, with theirs beside it; for each subject, where all are ours."""
    if not any(row["subject"] == OURS for row in rows):
        rows = [{**row, "case": f"{row['case']}, {row['subject']}", "subject": OURS} for row in rows]
    theirs = {(row["case"], row["unit"], row["subject"]): row["value"] for row in rows}
    found: list[Sequence[object]] = []
    for row in rows:
        if row["subject"] == OURS:
            case, unit = row["case"], row["unit"]
            beside = [_first(theirs, case, unit, names) for names in (PEERS, RAWS)]
            values = ["" if one is None else figure(one) for one in (row["value"], *beside)]
            noisy = " (noisy)" if row["noisy"] else ""
            found.append((case, unit + noisy, *values, ratio(row["vs_peer"]), ratio(row["vs_limit"])))
    return found


def _first(theirs: Mapping[tuple[str, str, str], float], case: str, unit: str, subjects: Iterable[str]) -> float | None:
    return next((theirs[case, unit, one] for one in subjects if (case, unit, one) in theirs), None)


def _table(columns: Sequence[str], rows: Iterable[Sequence[object]]) -> str:
    lines = [columns, ["---"] * len(columns), *rows]
    return "".join("| " + " | ".join(str(one).replace("|", "\\|") for one in line) + " |\n" for line in lines)


def _commands(figures: Mapping[str, Figures]) -> str:
    """By which commands, when, from which commit, on what: a line for each run."""
    runs: dict[str, list[str]] = {}
    for name, one in figures.items():
        runs.setdefault(_run(one["about"]), []).append(name)
    return "".join(f"- {', '.join(names)}: {run}\n" for run, names in runs.items())


def _run(about: Figures) -> str:
    machine, versions = about["machine"], about["versions"]
    parts = ", ".join(f"{name} {number}" for name, number in versions.items())
    return (
        f"`{' '.join(about['command'])}`, {about['time'][:10]}, commit {about['commit']},"
        f" {machine['cpu']}, {machine['system']}, Python {machine['python']}, {parts}"
    )
