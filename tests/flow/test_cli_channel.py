"""`headwater channel` and `headwater republish`, on a real broker and on files."""

from __future__ import annotations

import asyncio
import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from headwater.app import open_channel
from headwater.cli import main
from headwater.clock import SystemClock
from tests.servers.rabbitmq import Vhosts

pytestmark = pytest.mark.timeout(120)

BANK = """
from headwater import Aggregate, App, Command, Event, decide

class Open(Command):
    key: str

class Opened(Event):
    key: str

class Account(Aggregate, key="key"):
    @decide
    def open(self, command: Open) -> Opened:
        return Opened(command.key)

app = App("bank")
app.add(Account)
"""


@pytest.fixture(autouse=True)
def bank(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """An app in the working folder, and nothing else."""
    (tmp_path / "bank_to_plan.py").write_text(BANK)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HEADWATER_APP", "bank_to_plan:app")
    monkeypatch.syspath_prepend(tmp_path)
    yield
    sys.modules.pop("bank_to_plan", None)


def said(capsys: pytest.CaptureFixture[str], *words: str) -> tuple[int, str, str]:
    code = main(words)
    found = capsys.readouterr()
    return code, found.out, found.err


def test_what_is_missing_is_planned_and_made_and_an_app_starts_only_then(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, rabbitmq: Vhosts
) -> None:
    monkeypatch.setenv("HEADWATER_CHANNEL", rabbitmq.make())
    code, out, _ = said(capsys, "channel", "plan")
    assert code == 7
    assert "bank.commands  bank" in out
    assert "missing" in out
    assert "make what is missing: headwater channel apply" in out
    words = [sys.executable, "-m", "headwater", "run", "bank_to_plan:app"]  # its log stays its own
    ended = subprocess.run(words, capture_output=True, text=True, check=False, timeout=60)
    assert ended.returncode == 3
    assert "headwater channel apply" in ended.stderr
    code, out, _ = said(capsys, "channel", "apply")
    assert code == 0
    assert out.startswith("made ")
    assert said(capsys, "channel", "apply")[:2] == (0, "nothing was missing\n")
    code, out, _ = said(capsys, "channel", "plan", "--json")
    assert (code, json.loads(out)["findings"]) == (0, [])
    assert [route["topic"] for route in json.loads(out)["routes"]] == ["bank.Account", "bank.commands", "bank.control"]


def test_a_file_needs_nothing(capsys: pytest.CaptureFixture[str]) -> None:
    code, out, _ = said(capsys, "channel", "plan")
    assert code == 0
    assert out.endswith("nothing is missing\n")


# --- republish ---


def fill(count: int) -> None:
    """So many accounts, published."""
    from bank_to_plan import Open, app  # type: ignore[import-not-found]

    async def work() -> None:
        async with app:
            for number in range(count):
                await app.send(Open(f"k{number}"))
            while await app.wiring.channel.producer_position("bank") != count:
                await asyncio.sleep(0.02)

    asyncio.run(work())


def taken(group: str, count: int) -> list[str]:
    """The keys of so many accounts that a group is given, and that no more come."""

    async def work() -> list[str]:
        channel = open_channel("sqlite:///channel.db", SystemClock())
        await channel.open()
        member = await channel.subscribe(group, ["bank.Account"], "m1", "now")
        found: list[str] = []
        for _ in range(40):
            batch = await member.fetch(100)
            await member.acknowledge(batch)
            found += [one.key for one in batch if "kind" not in one.headers]
            await member.wait(0.02)
            if len(found) > count:
                break
        await channel.close()
        return found

    return asyncio.run(work())


def test_a_group_that_came_late_gets_what_was_published_before(capsys: pytest.CaptureFixture[str]) -> None:
    fill(5)
    assert taken("late", 0) == taken("other", 0) == []
    assert said(capsys, "republish", "--from", "3", "--for", "late")[:2] == (
        0,
        "published 3 messages again for late, positions 3 to 5\n",
    )
    assert taken("late", 3) == [f"bank.Account/k{number}" for number in (2, 3, 4)]
    assert taken("other", 0) == []


def test_all_of_a_topic_goes_to_all_and_another_topic_is_refused(capsys: pytest.CaptureFixture[str]) -> None:
    fill(2)
    assert taken("one", 0) == taken("two", 0) == []
    code, out, _ = said(capsys, "republish", "--from", "1", "--topic", "bank.Account", "--json")
    assert (code, json.loads(out)) == (0, {"messages": 2, "first": 1, "last": 2})
    assert len(taken("one", 2)) == len(taken("two", 2)) == 2
    code, _, err = said(capsys, "republish", "--from", "1", "--topic", "bank.Elsewhere")
    assert code == 5
    assert "it has published on bank.Account" in err
    assert said(capsys, "republish", "--from", "99")[:2] == (0, "published 0 messages again\n")


def test_a_place_before_the_log_is_refused(capsys: pytest.CaptureFixture[str]) -> None:
    assert said(capsys, "republish", "--from", "0")[0] == 2
