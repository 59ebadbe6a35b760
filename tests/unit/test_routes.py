"""The routes of an app: what its channel must have before it starts."""

from __future__ import annotations

import pytest

from examples.shop import inventory, orders
from headwater import Aggregate, App, Command, DeclarationError, Event, ReadModel, decide, evolve
from headwater.app.routes import refuse
from headwater.channel import Finding, Route
from headwater.errors import ConfigurationError


class SendReceipt(Command, service="mail"):
    key: str


class Open(Command):
    key: str


class Opened(Event):
    key: str


class Account(Aggregate, key="key"):
    @decide
    def open(self, command: Open) -> Opened:
        return Opened(command.key)


class Paid(Event, service="payments", category="Payment"):
    key: str


class Received(Event):
    key: str


class Inline(ReadModel, key="key", inline=True):
    @evolve
    def opened(self, event: Opened) -> None: ...


def groups_of(app: App) -> dict[str, tuple[str, ...]]:
    return {route.topic: route.groups for route in app.routes()}


def test_a_service_has_its_facts_its_commands_and_its_control_topic() -> None:
    app = App("bank")
    app.add(Account)
    assert groups_of(app) == {"bank.Account": (), "bank.commands": ("bank",), "bank.control": ("bank.control",)}


def test_what_it_takes_from_others_has_its_group_and_where_to_ask_for_repairs() -> None:
    app = App("bank")

    @app.on(Paid)
    async def note(event: Paid) -> Received:
        return Received(event.key)

    assert groups_of(app) == {
        "bank.control": ("bank.control",),
        "bank.note": (),
        "bank.replies": (),
        "payments.Payment": ("bank",),
        "payments.control": ("payments.control",),
    }


def test_who_is_sent_commands_has_a_group_that_keeps_them_before_it_starts() -> None:
    app = App("bank")

    @app.on(Paid)
    async def receipt(event: Paid) -> SendReceipt:
        return SendReceipt(event.key)

    found = groups_of(app)
    assert found["mail.commands"] == ("mail",)
    assert "bank.receipt" not in found, "it states no facts"


def test_an_inline_read_model_takes_nothing_from_the_channel() -> None:
    app = App("bank")
    app.add(Account, Inline)
    assert set(groups_of(app)) == {"bank.Account", "bank.commands", "bank.control"}


def test_an_event_of_nobody_knows_where_is_refused() -> None:
    class Lost(Event, service="elsewhere"):
        key: str

    app = App("bank")

    @app.on(Lost)
    async def note(event: Lost) -> None: ...

    with pytest.raises(DeclarationError, match="say whose fact it is"):
        app.routes()


def test_services_that_work_together_agree_on_their_routes() -> None:
    theirs, ours = groups_of(inventory.app), groups_of(orders.app)
    assert theirs["inventory.Reservation"] == ()
    assert ours["inventory.Reservation"] == ("orders",)


def test_a_channel_that_is_not_ready_is_told_of_with_what_to_do() -> None:
    unsafe = Finding("unsafe", "topic a", "one copy")
    refuse([unsafe], "bank")
    with pytest.raises(ConfigurationError, match=r"topic b: there is none.*headwater channel apply") as raised:
        refuse([unsafe, *(Finding("missing", f"topic {one}", "there is none") for one in "bcdefgh")], "bank")
    assert "and 2 more" in str(raised.value)
    assert "topic a" not in str(raised.value)
    assert Route("a").groups == ()
