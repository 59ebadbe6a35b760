"""The commands of the page on SNS and SQS, on moto's server: two services, and what the first states is heard by the second."""

from __future__ import annotations

import asyncio
import re
from pathlib import Path
from typing import Any

import pytest
from aiobotocore.session import AioSession

from headwater.adapters.aws import AwsChannel
from headwater.adapters.aws.options import AwsOptions
from headwater.adapters.aws.services import Services
from headwater.channel import Publication, Route
from headwater.clock import SystemClock
from tests.docs.desk import Desk, commands
from tests.docs.page import ROOT
from tests.servers.aws import REGION, Endpoint

PAGE = "docs/how-to/use-aws.md"
TEXT = (ROOT / PAGE).read_text(encoding="utf-8")
RIGHTS = {f"sns:{name}" for name in re.findall(r'"sns:(\w+)"', TEXT)} | {
    f"sqs:{name}" for name in re.findall(r'"sqs:(\w+)"', TEXT)
}
OF_ANOTHER_NAME = {"sns:PublishBatch": "sns:Publish"}
"""What AWS asks another right for than one of the call's own name; it asks for no right to act on a batch."""


def purge(aws: Endpoint) -> None:
    async def run() -> None:
        async with AioSession().create_client("sqs", region_name=REGION, endpoint_url=aws.url) as sqs:
            found = await sqs.get_queue_url(QueueName=f"{aws.prefix}audit--bank_Account.fifo")
            await sqs.purge_queue(QueueUrl=found["QueueUrl"])

    asyncio.run(run())


def test_the_commands_of_the_page_do_what_it_says(aws: Endpoint, tmp_path: Path) -> None:
    desk = Desk(tmp_path, PAGE, aws.channel(poll=1))
    plan, apply_bank, apply_audit, run_bank, run_audit, consumers, republish = commands(PAGE)
    assert "missing" in desk.done(plan, code=7)
    assert f"made topic {aws.prefix}bank_Account.fifo" in desk.done(apply_bank)
    assert f"made queue {aws.prefix}audit--bank_Account.fifo" in desk.done(apply_audit)
    assert "nothing is missing" in desk.done(plan)
    assert "nothing was missing" in desk.done(apply_audit)
    assert desk.hears_of_a_withdrawal(run_bank, run_audit) == "a1: 120\n"
    desk.until(consumers, 0)
    with desk.running(run_bank):
        desk.withdraw(7)
        desk.until(consumers, 1)
    purge(aws)
    desk.done(republish)
    with desk.running(run_audit) as audit:
        assert audit.stdout is not None
        assert audit.stdout.readline() == "a1: 7\n"


def test_every_right_that_is_used_is_listed_and_no_other(aws: Endpoint, monkeypatch: pytest.MonkeyPatch) -> None:
    used: set[str] = {"sqs:TagQueue", "sqs:SetQueueAttributes"}  # tags come with the call that makes a queue
    ask = Services.ask

    async def asking(self: Services, service: str, operation: str, **given: Any) -> Any:
        call = f"{service}:{operation.title().replace('_', '')}"
        used.add(OF_ANOTHER_NAME.get(call, call.removesuffix("Batch")))
        return await ask(self, service, operation, **given)

    monkeypatch.setattr(Services, "ask", asking)

    async def run() -> None:
        channel = AwsChannel.from_url(aws.channel(poll=1), SystemClock())
        await channel.open()
        routes = [Route("orders", ("g",))]
        await channel.establish(routes)
        await channel.examine(routes)
        member = await channel.subscribe("g", ["orders"], "m")
        await channel.publish([Publication("orders", "a", {}, b"1"), Publication("orders", "b", {}, b"2")])
        await channel.lag()
        await member.acknowledge(await member.fetch(1))
        await member.fetch(1)
        await channel.close()

    asyncio.run(run())
    assert used == RIGHTS


def test_the_table_of_options_is_whole() -> None:
    rows = re.search(r"\| option \|.*?\n\n", TEXT, re.DOTALL)
    assert rows is not None
    named = re.findall(r"^\| `(\w+)=", rows[0], re.MULTILINE)
    assert sorted(named) == sorted(AwsOptions.__struct_fields__)


@pytest.mark.parametrize("option", ["prefix", "visibility", "poll", "standard", "plaintext"])
def test_the_defaults_it_says_are_those_there_are(option: str) -> None:
    [default] = re.findall(rf"^\| `{option}=[^|]*\|[^|]*\| `?([\w-]+)`? \|$", TEXT, re.MULTILINE)
    value = getattr(AwsOptions(), option)
    assert default == ({True: "yes", False: "no"}[value] if isinstance(value, bool) else str(value))
