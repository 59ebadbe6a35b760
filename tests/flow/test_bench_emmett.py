"""Emmett in the benchmarks of PostgreSQL: it does the same work on the same events, and what it is said to have done is there."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from benchmarks.case import Case, Setting
from benchmarks.names import EMMETT, OURS
from benchmarks.postgres import append, command, durability
from benchmarks.postgres import emmett as bench
from benchmarks.postgres.emmett import Emmett
from benchmarks.postgres.server import Server, ask
from benchmarks.rounds import measure
from benchmarks.sample import CENTS, EVENTS_AN_ORDER, line, order_id
from tests.servers.postgres import Databases

pytestmark = pytest.mark.timeout(200)  # Node starts in each round

ORDERS = 20
STORED = "SELECT count(*) FROM emt_messages"
VERSION = "SELECT stream_position FROM emt_streams WHERE stream_id = %s"


@pytest.fixture
def server(postgres: Databases) -> Iterator[Server]:
    found = Server(postgres)
    yield found
    for url in found.logs.values():
        found.drop(url)


@pytest.fixture
def setting(tmp_path: Path) -> Setting:
    """One whose time for repeating noisy rounds is over."""
    return Setting(quick=True, folder=tmp_path, begun=time.monotonic() - 3_600)


def with_these(case: Case, *subjects: str) -> Case:
    """One round of these subjects of a case."""
    return replace(case, subjects={name: case.subjects[name] for name in subjects}, rounds=1)


def test_it_stands_beside_us_in_the_same_rounds(setting: Setting, server: Server, emmett: Emmett) -> None:
    case = with_these(next(append.new_streams(setting, server)), OURS, EMMETT)
    rows = measure(case, setting)
    rates = {row.subject: row.value for row in rows if row.unit == "commits/s"}
    assert set(rates) == {OURS, EMMETT}
    assert {row.unit for row in rows if row.subject == EMMETT} >= {"ms p50", "ms p99", "µs CPU a commit"}
    [times] = [row.value for row in rows if row.subject == OURS and row.unit == f"x {EMMETT}"]
    assert times > 0


def test_each_append_that_it_counts_is_stored_as_we_store_it(postgres: Databases, emmett: Emmett) -> None:
    url = postgres.make()
    done = emmett.load("append", url, 4, 0.2)
    assert ask(url, STORED) == [(done["all"],)]
    assert 0 < len(done["took"]) < done["all"]  # what was before the measured time is not counted
    assert ask(url, "SELECT DISTINCT message_data FROM emt_messages") == [(line(str(order_id(0)), 1),)]


def test_each_command_that_it_counts_is_one_version_more(postgres: Databases, emmett: Emmett) -> None:
    url = postgres.make()
    emmett.fill(url, ORDERS)
    assert ask(url, STORED) == [(ORDERS * EVENTS_AN_ORDER,)]
    done = emmett.load("command", url, 4, 0.2, first=ORDERS - 1, orders=1)
    assert ask(url, VERSION, f"Order-{order_id(ORDERS - 1)}") == [(EVENTS_AN_ORDER + done["all"],)]
    assert done["conflicts"] > 0


def test_the_commands_of_the_bench_take_its_own_log(
    setting: Setting, server: Server, emmett: Emmett, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(command, "EVENTS", ORDERS * EVENTS_AN_ORDER)
    [case] = [one for one in command.commands(setting, server) if one.name == "16 writers, once"]
    assert case.subjects[EMMETT]()["commands/s"] > 0
    assert set(server.logs) == {(EMMETT, ORDERS * EVENTS_AN_ORDER)}


def test_its_projection_holds_what_it_has_read(postgres: Databases, emmett: Emmett) -> None:
    url = postgres.make()
    emmett.fill(url, ORDERS)
    wanted = (ORDERS - 1) * EVENTS_AN_ORDER
    assert emmett.run("catchUp", url, writers=4, events=wanted, batch=50)["done"] == wanted
    rows = ask(url, "SELECT order_id, cents FROM totals ORDER BY order_id")
    assert rows == [(str(order_id(number)), EVENTS_AN_ORDER * CENTS) for number in range(ORDERS - 1)]


def test_it_is_as_durable_as_the_others(postgres: Databases, emmett: Emmett) -> None:
    url = postgres.make()
    assert durability._emmett(emmett, url) == ("on", "on", "on")
    assert ask(url, STORED) == [(durability.COMMITS,)]


def test_other_events_than_ours_are_refused(postgres: Databases, emmett: Emmett) -> None:
    other = json.dumps({**line(str(order_id(1)), 1), "note": "none"}, separators=(",", ":"))
    with pytest.raises(SystemExit, match="where the others store"):
        emmett.run("append", postgres.make(), samples=[(1, other)])


def test_without_node_it_is_left_out_and_a_line_says_so(
    setting: Setting, postgres: Databases, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("PATH", "/nowhere")
    bench.found.cache_clear()
    try:
        cases = list(append.new_streams(setting, Server(postgres)))
    finally:
        bench.found.cache_clear()
    assert all(EMMETT not in case.subjects for case in cases)
    said = (
        "Emmett is left out: node and npm are not both on PATH; install Node 20 or newer to have it beside the others\n"
    )
    assert capsys.readouterr().out == said


def test_where_it_cannot_be_installed_a_line_says_why_and_nothing_half_made_stays(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    for name, does in (("node", "exit 0"), ("npm", "echo 'npm error: no\nregistry' >&2; exit 1")):
        (tmp_path / name).write_text(f"#!/bin/sh\n{does}\n")
        (tmp_path / name).chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    bench.found.cache_clear()
    try:
        assert bench.found() is None
    finally:
        bench.found.cache_clear()
    assert capsys.readouterr().out == "Emmett is left out: `npm ci` failed: npm error: no registry\n"
    assert list((tmp_path / "cache" / "headwater-bench").iterdir()) == []
