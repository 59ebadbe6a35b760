"""How publications become batches for SNS, and what is made of its answers."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any, cast

import pytest

from headwater.adapters.aws.document import write
from headwater.adapters.aws.names import Names
from headwater.adapters.aws.publishing import MOST_BYTES, Publisher
from headwater.adapters.aws.services import Services
from headwater.channel import Publication
from headwater.clock import SystemClock
from headwater.errors import ChannelError
from headwater.testing.contracts.channel.scene import messages

Entry = dict[str, Any]


class Script:
    """Answers as SNS's API says it does; `fate` gives the code with which an entry fails, or nothing."""

    def __init__(self, fate: Callable[[Entry, int], str] = lambda entry, call: "") -> None:
        self.calls: list[list[Entry]] = []
        self.taken: list[Entry] = []
        self._fate = fate

    def topic_arn(self, name: str) -> str:
        return name

    async def ask(self, service: str, operation: str, **given: Any) -> dict[str, Any]:
        entries: list[Entry] = given["PublishBatchRequestEntries"]
        self.calls.append(entries)
        codes = [(one, self._fate(one, len(self.calls))) for one in entries]
        self.taken += [one for one, code in codes if not code]
        return {
            "Successful": [{"Id": one["Id"]} for one, code in codes if not code],
            "Failed": [
                {"Id": one["Id"], "Code": code, "SenderFault": code == "InvalidParameter"}
                for one, code in codes
                if code
            ],
        }


def publish(script: Script, given: list[Publication], *, again: bool = False) -> dict[int, str]:
    publisher = Publisher(cast(Services, script), Names("", fifo=True), SystemClock(), fifo=True)
    return asyncio.run(publisher.publish(given, again=again))


@pytest.fixture(autouse=True)
def _at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("headwater.adapters.aws.publishing.PAUSE", 0.0001)


def test_a_batch_has_ten_messages_of_one_topic_and_each_key_once() -> None:
    script = Script()
    publish(script, [*messages("orders", range(60), keys=25), *messages("mail", range(3), keys=1)])
    assert all(len(call) <= 10 for call in script.calls)
    assert all(len({one["MessageGroupId"] for one in call}) == len(call) for call in script.calls)
    assert len(script.taken) == 63
    assert len(script.calls) == 3 + 3 + 1 + 3  # of 25, 25 and 10 messages, and of mail's one key


def test_a_batch_is_no_larger_than_sns_takes() -> None:
    script = Script()
    publish(script, [Publication("orders", f"k{n}", {}, bytes(60_000)) for n in range(7)])
    assert [len(call) for call in script.calls] == [3, 3, 1]


def test_a_message_as_large_as_it_may_be_goes_and_one_byte_more_is_refused_alone() -> None:
    head = len(write(Publication("orders", "k", {}, b"1"))) + len("content-typeStringapplication/cloudevents+json") - 1
    fits, over = [Publication("orders", "k", {}, b"1" * (MOST_BYTES - head + more)) for more in (0, 1)]
    script = Script()
    assert list(publish(script, [over, fits])) == [0]
    assert len(script.taken) == 1
    assert list(publish(script, [Publication("orders", "k", {}, b"1", delay=5)])) == [0]


def test_each_result_of_a_batch_is_read() -> None:
    """The third message is not taken twice, and nothing of its key goes before it."""
    script = Script(lambda entry, call: "InternalError" if entry["Id"] == "2" and call <= 2 else "")
    assert publish(script, messages("orders", range(10), keys=5)) == {}
    assert sorted(int(one["Id"]) for one in script.taken) == list(range(10))
    of_key = [int(one["Id"]) for one in script.taken if one["MessageGroupId"] == "k2"]
    assert of_key == [2, 7]
    assert len({one["MessageDeduplicationId"] for call in script.calls for one in call if one["Id"] == "2"}) == 1


def test_what_is_not_taken_for_long_is_an_error_and_stops_its_key() -> None:
    script = Script(lambda entry, call: "Throttled" if entry["Id"] == "2" else "")
    with pytest.raises(ChannelError, match="1 of 5 messages of orders"):
        publish(script, messages("orders", range(10), keys=5))
    assert "7" not in {one["Id"] for one in script.taken}


def test_only_what_is_wrong_with_a_message_itself_refuses_it() -> None:
    fates = {"1": "InvalidParameter", "2": "KMSAccessDenied"}
    script = Script(lambda entry, call: fates.get(entry["Id"], "") if call == 1 else "")
    assert list(publish(script, messages("orders", range(4), keys=4))) == [1]
    assert sorted(one["Id"] for one in script.taken) == ["0", "2", "3"]


def test_a_relay_that_publishes_again_is_taken_once_and_a_repair_gets_through() -> None:
    def ids(again: bool, group: str = "") -> list[str]:
        script = Script()
        publish(script, messages("orders", range(3), group=group), again=again)
        return [one["MessageDeduplicationId"] for one in script.taken]

    assert ids(again=True) == ids(again=True)
    assert set(ids(again=False)).isdisjoint(ids(again=False))
    assert set(ids(again=True)).isdisjoint(ids(again=True, group="books"))
    assert all(len(one) <= 128 for one in ids(again=False))
