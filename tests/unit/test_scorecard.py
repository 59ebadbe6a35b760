"""The scorecard keeps the last figures of each part, and its page shows all of them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from benchmarks.machine import about
from benchmarks.scorecard import PLACE, page, write_benches, write_plants, write_rigs
from tests.fault.rigs.runner import Report
from tests.fault.rigs.trial import TrialResult

ABOUT = about(["./dev", "prove", "kill", "--count", "3"])


def report(rig: str, *, violations: int = 0) -> dict[str, Any]:
    found = Report(rig)
    for seed in (7, 8, 9):
        found.add(seed, TrialResult(True, ["a promise broke"] * violations, facts={"points": 30}))
    return found.as_data()


def row(subject: str, value: float, vs_peer: float | None = None) -> dict[str, Any]:
    return {
        "work": "W1", "case": "64 writers", "subject": subject, "value": value, "unit": "commits/s",
        "vs_peer": vs_peer, "vs_limit": None, "noisy": False,
    }  # fmt: skip


def card(place: Path) -> Any:
    return json.loads((place / "scorecard.json").read_text())


def test_a_run_replaces_what_it_has_measured_and_leaves_the_rest(tmp_path: Path) -> None:
    write_rigs(ABOUT, [report("kill"), report("power")], tmp_path)
    write_rigs(ABOUT, [report("kill", violations=1)], tmp_path)
    rigs = card(tmp_path)["rigs"]
    assert {name: one["violations"] for name, one in rigs.items()} == {"kill": 3, "power": 0}


def test_the_page_names_trials_seeds_facts_and_the_command(tmp_path: Path) -> None:
    write_rigs(ABOUT, [report("kill")], tmp_path)
    text = (tmp_path / "scorecard.md").read_text()
    assert "| kill | 0 | 3 | 7 to 9 |" in text
    assert "points 30" in text
    assert "`./dev prove kill --count 3`" in text


def test_a_benchmark_stands_beside_its_peer_and_the_raw_loop(tmp_path: Path) -> None:
    rows = [row("headwater", 60_000, 12.0), row("eventsourcing", 5_000), row("raw group commit", 90_000)]
    write_benches({"about": ABOUT, "rows": rows}, tmp_path)
    assert "| 64 writers | commits/s | 60,000 | 5,000 | 90,000 | 12.0 |" in (tmp_path / "scorecard.md").read_text()


def test_a_work_over_a_broker_stands_beside_its_own_peer(tmp_path: Path) -> None:
    rows = [row("headwater", 60_000, 20.0), row("FastStream", 3_000), row("raw client", 120_000)]
    write_benches({"about": ABOUT, "rows": rows}, tmp_path)
    assert "| 64 writers | commits/s | 60,000 | 3,000 | 120,000 | 20.0 |" in (tmp_path / "scorecard.md").read_text()


def test_a_work_of_which_all_subjects_are_ours_shows_each(tmp_path: Path) -> None:
    write_benches({"about": ABOUT, "rows": [row("unconditional", 20_000), row("conditional", 14_000, 0.7)]}, tmp_path)
    text = (tmp_path / "scorecard.md").read_text()
    assert "| 64 writers, unconditional | commits/s | 20,000 |" in text
    assert "| 64 writers, conditional | commits/s | 14,000 |  |  | 0.70 |" in text


def test_a_planted_bug_that_survives_stands_out(tmp_path: Path) -> None:
    caught = {"plant": "no inbox", "breaks": "effect once", "caught_by": "kill", "trials": 4, "seconds": 2.0}
    write_plants(ABOUT, [caught, caught | {"plant": "naive cursor", "caught_by": ""}], tmp_path)
    text = (tmp_path / "scorecard.md").read_text()
    assert "| no inbox | effect once | kill | 4 |" in text
    assert "| naive cursor | effect once | **survives** |" in text


def test_the_page_in_the_docs_is_that_of_the_figures_beside_it() -> None:
    assert (PLACE / "scorecard.md").read_text() == page(json.loads((PLACE / "scorecard.json").read_text()))
