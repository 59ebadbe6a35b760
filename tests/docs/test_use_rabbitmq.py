"""The commands of the page on RabbitMQ, on a real server: two services, and what the first states is heard by the second."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from headwater.adapters.rabbitmq.url import ChannelOptions
from tests.docs.desk import Desk, commands
from tests.docs.page import ROOT
from tests.servers.rabbitmq import Vhosts

PAGE = "docs/how-to/use-rabbitmq.md"
TEXT = (ROOT / PAGE).read_text(encoding="utf-8")


def test_the_commands_of_the_page_do_what_it_says(rabbitmq: Vhosts, tmp_path: Path) -> None:
    desk = Desk(tmp_path, PAGE, rabbitmq.make())
    plan, apply_bank, apply_audit, run_bank, run_audit, consumers = commands(PAGE)
    assert "missing" in desk.done(plan, code=7)
    assert "made bank.Account" in desk.done(apply_bank)
    assert "made bank.Account/audit/3-of-4" in desk.done(apply_audit)
    assert "nothing is missing" in desk.done(plan)
    assert "nothing was missing" in desk.done(apply_audit)
    assert desk.hears_of_a_withdrawal(run_bank, run_audit) == "a1: 120\n"
    desk.until(consumers, 0, 0.0)
    with desk.running(run_bank):
        desk.withdraw(7)
        desk.until(consumers, 1, None)


def test_the_table_of_options_is_whole() -> None:
    rows = re.search(r"\| option \|.*?\n\n", TEXT, re.DOTALL)
    assert rows is not None
    named = set(re.findall(r"`(\w+)(?:=[\w.]+)?`", "\n".join(re.findall(r"^\| (`[^|]+) \|", rows[0], re.MULTILINE))))
    assert named == set(ChannelOptions.__struct_fields__)


@pytest.mark.parametrize("option", ["partitions", "prefetch", "timeout", "heartbeat"])
def test_the_defaults_it_says_are_those_there_are(option: str) -> None:
    [default] = re.findall(rf"^\| `{option}=[^|]*\|[^|]*\| (\d+) \|$", TEXT, re.MULTILINE)
    assert float(default) == (getattr(ChannelOptions(), option) or 4)
