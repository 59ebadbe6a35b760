"""What a case's rounds come to: medians, and how the subjects stand to one another in the same round."""

from __future__ import annotations

import time
from pathlib import Path

import pytest

from benchmarks.case import Case, Setting
from benchmarks.load import Figures
from benchmarks.report import Row
from benchmarks.rounds import measure


@pytest.fixture
def setting(tmp_path: Path) -> Setting:
    """One whose time for repeating noisy rounds is over."""
    return Setting(quick=True, folder=tmp_path, begun=time.monotonic() - 3_600)


def steady(rate: float, ms: float) -> Figures:
    return {"commits/s": rate, "ms p50": ms}


def rows_of(setting: Setting, **subjects: Figures) -> dict[tuple[str, str], Row]:
    measured = {name: lambda figures=figures: figures for name, figures in subjects.items()}
    case = Case("W1", "64 writers", measured, peer="peer", limit="raw", beside="Other")
    return {(row.subject, row.unit): row for row in measure(case, setting)}


def test_ratios_are_to_the_peer_and_the_limit(setting: Setting) -> None:
    rows = rows_of(setting, ours=steady(600, 2), peer=steady(100, 8), raw=steady(800, 1))
    rate, ms = rows["ours", "commits/s"], rows["ours", "ms p50"]
    assert (rate.value, rate.vs_peer, rate.vs_limit) == (600, 6, 0.75)
    assert (ms.value, ms.vs_peer, ms.vs_limit) == (2, 4, 0.5)


def test_another_peer_that_is_there_gives_a_figure_of_its_own(setting: Setting) -> None:
    rows = rows_of(setting, ours=steady(600, 2), peer=steady(100, 8), Other=steady(50, 9))
    assert rows["ours", "x Other"].value == 12
    assert rows["peer", "x Other"].value == 2
    assert rows["Other", "commits/s"].vs_peer == 0.5
    assert ("Other", "x Other") not in rows


def test_another_peer_that_is_missing_gives_none(setting: Setting) -> None:
    rows = rows_of(setting, ours=steady(600, 2), peer=steady(100, 8))
    assert {unit for _, unit in rows} == {"commits/s", "ms p50"}
