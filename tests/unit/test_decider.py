"""Decide, evolve and fold; aggregates as sugar over them."""

from __future__ import annotations

import functools
from dataclasses import dataclass
from typing import Annotated, Any, ClassVar

import pytest

from headwater.decider import (
    Aggregate,
    argument_types,
    as_messages,
    decide,
    decider_of,
    evolve,
    field_types,
    fold,
)
from headwater.errors import DeclarationError, Rejected
from headwater.message import Command, Event


class Open(Command):
    account_id: str
    owner: str


class Withdraw(Command):
    account_id: str
    cents: int


class WithdrawAll(Withdraw):
    reason: str = ""


class Opened(Event):
    owner: str


class Withdrawn(Event):
    cents: int


class Noted(Event):
    text: str


class Account(Aggregate, key="account_id"):
    owner: str = ""
    cents: int = 100
    notes: list[str] = []
    LIMIT: ClassVar[int] = 50
    _hidden: int = 0

    @decide
    def open(self, command: Open) -> Opened:
        return Opened(command.owner)

    @decide
    def withdraw(self, command: Withdraw | WithdrawAll) -> list[Withdrawn]:
        if command.cents > self.cents:
            raise Rejected("not enough money", available=self.cents)
        return [Withdrawn(command.cents)]

    @evolve
    def opened(self, event: Opened) -> None:
        self.owner = event.owner

    @evolve
    def changed(self, event: Withdrawn | Noted) -> None:
        if isinstance(event, Noted):
            self.notes.append(event.text)
        else:
            self.cents -= event.cents


# --- fold and what a decision returns ---


def test_fold_applies_events_in_order_and_passes_over_others():
    steps = {Opened: lambda state, event: f"{state}{event.owner}"}
    assert fold(steps, "", [Opened("a"), Withdrawn(1), Opened("b")]) == "ab"


def test_an_evolve_function_may_change_its_state_or_return_a_new_one():
    steps = {Noted: lambda state, event: state.append(event.text), Opened: lambda state, event: [event.owner]}
    assert fold(steps, [], [Noted("x"), Noted("y")]) == ["x", "y"]
    assert fold(steps, [], [Noted("x"), Opened("new"), Noted("y")]) == ["new", "y"]


@pytest.mark.parametrize("many", [list, tuple, iter, lambda some: (one for one in some)])
def test_a_decision_may_return_several_messages(many):
    assert as_messages(many([Opened("a"), Withdrawn(1)])) == (Opened("a"), Withdrawn(1))
    assert as_messages(many([])) == ()


def test_a_decision_may_return_one_message_or_none():
    assert as_messages(None) == ()
    assert as_messages(Opened("a")) == (Opened("a"),)


# --- folded state ---


def test_state_starts_with_its_defaults_and_shares_none_of_them():
    one, other = Account(), Account()
    one.notes.append("mine")
    assert (one.notes, other.notes, Account().notes) == (["mine"], [], [])
    assert (other.owner, other.cents) == ("", 100)


def test_state_takes_fields_by_name_and_is_compared_by_value():
    assert Account(owner="a", cents=5) == Account(cents=5, owner="a") != Account(owner="b", cents=5)
    assert Account() != vars(Account())
    assert repr(Account(owner="a")) == "Account(owner='a', cents=100, notes=[])"
    with pytest.raises(TypeError):
        hash(Account())


def test_a_constant_of_the_class_is_no_state():
    assert "LIMIT" not in vars(Account())
    assert list(field_types(Account)) == ["owner", "cents", "notes"]
    assert field_types(Account)["notes"] == list[str]


def test_a_subclass_inherits_fields_and_may_change_their_defaults():
    class Rich(Account, key="account_id"):
        cents: int = 10_000
        tier: str = "gold"

    assert (Rich().owner, Rich().cents, Rich().tier) == ("", 10_000, "gold")
    assert list(field_types(Rich)) == ["owner", "cents", "notes", "tier"]


def test_a_field_without_a_default_is_refused():
    class Bare(Aggregate, key="account_id"):
        owner: str

    with pytest.raises(DeclarationError, match=r"Bare\.owner needs a default"):
        decider_of(Bare, "bank")


def test_a_field_of_an_unknown_type_is_refused():
    class Lost(Aggregate, key="account_id"):
        owner: Nowhere = None  # type: ignore[name-defined] # noqa: F821

    with pytest.raises(DeclarationError, match="Nowhere"):
        decider_of(Lost, "bank")


# --- the decider of an aggregate ---


def test_an_aggregate_decides_and_evolves_by_message_class():
    decider = decider_of(Account, "bank")
    assert decider.decide.keys() == {Open, Withdraw, WithdrawAll}
    assert decider.evolve.keys() == {Opened, Withdrawn, Noted}
    state = fold(decider.evolve, decider.initial(), [Opened("ada"), Withdrawn(30), Noted("x")])
    assert state == Account(owner="ada", cents=70, notes=["x"])
    assert as_messages(decider.decide[Withdraw](state, Withdraw("a", 70))) == (Withdrawn(70),)
    with pytest.raises(Rejected, match="not enough money") as caught:
        decider.decide[Withdraw](state, Withdraw("a", 71))
    assert caught.value.details == {"available": 70}


@pytest.mark.parametrize(
    ("category", "full"), [("", "bank.Named"), ("Konto", "bank.Konto"), ("bank.Konto", "bank.Konto")]
)
def test_the_category_is_explicit_or_of_the_service_and_class(category, full):
    class Named(Aggregate, key="account_id", category=category):
        pass

    decider = decider_of(Named, "bank")
    assert (decider.category, decider.key) == (full, "account_id")


def test_an_aggregate_without_a_key_is_refused():
    class Keyless(Aggregate):
        pass

    with pytest.raises(DeclarationError, match="key="):
        decider_of(Keyless, "bank")


def test_a_command_without_the_key_is_refused():
    class Odd(Aggregate, key="order_id"):
        @decide
        def open(self, command: Open) -> None: ...

    with pytest.raises(DeclarationError, match="Open has no field 'order_id'"):
        decider_of(Odd, "bank")


@dataclass
class Placed:
    order_id: str


@dataclass
class PlacedTwice(Placed):
    again: str


def test_the_key_of_an_adopted_command_may_be_inherited():
    class Order(Aggregate, key="order_id"):
        @decide
        def place(self, command: PlacedTwice) -> None: ...

    assert decider_of(Order, "shop").decide.keys() == {PlacedTwice}


def test_two_methods_for_one_message_are_refused():
    class Twice(Aggregate, key="account_id"):
        @decide
        def one(self, command: Open) -> None: ...

        @decide
        def two(self, command: Open | Withdraw) -> None: ...

    with pytest.raises(DeclarationError, match="two methods for Open: one and two"):
        decider_of(Twice, "bank")


def test_a_method_is_overridden_by_that_of_a_subclass():
    class Strict(Account, key="account_id"):
        @decide
        def withdraw(self, command: Withdraw) -> None:
            raise Rejected("closed")

    assert decider_of(Strict, "bank").decide.keys() == {Open, Withdraw}


# --- annotations ---


def test_a_functions_message_is_its_annotation_or_each_of_a_union():
    def one(event: Opened, other: int) -> None: ...
    def union(event: Opened | Withdrawn) -> None: ...
    def annotated(event: Annotated[Opened, "x"]) -> None: ...

    assert argument_types(one) == (Opened,)
    assert argument_types(union) == (Opened, Withdrawn)
    assert argument_types(annotated) == (Opened,)


def nothing() -> None: ...
def bare(event) -> None: ...  # type: ignore[no-untyped-def]
def unknown(event: Nowhere) -> None: ...  # type: ignore[name-defined] # noqa: F821
def generic(event: list[Opened]) -> None: ...
def free(event: Any) -> None: ...
def optional(event: Opened | None) -> None: ...


@pytest.mark.parametrize(
    ("function", "what"),
    [
        (nothing, "must take a message"),
        (bare, "annotate event"),
        (unknown, "cannot be resolved"),
        (generic, "not a message class"),
        (free, "not a message class"),
        (optional, "not a message class"),
    ],
    ids=lambda value: getattr(value, "__name__", ""),
)
def test_a_function_whose_message_cannot_be_told_is_refused(function, what):
    with pytest.raises(DeclarationError, match=what) as caught:
        argument_types(function)
    assert function.__name__ in str(caught.value)


# --- what a class statement makes of its fields, at the time it is run ---


def test_the_state_is_the_annotated_fields_with_their_defaults():
    class Order(Aggregate, key="order"):
        owner: str = "ada"
        cents: int = 5
        LIMIT: ClassVar[int] = 50
        _hidden: int = 7

    class Gift(Order):
        note: str = ""

    assert repr(Order()) == "Order(owner='ada', cents=5)"
    assert repr(Gift(note="hi")) == "Gift(owner='ada', cents=5, note='hi')"
    assert Order() == Order(owner="ada", cents=5) != Gift()


def test_states_share_nothing_that_can_change():
    class Order(Aggregate, key="order"):
        lines: dict[str, list[int]] = {"a": []}
        seen: set[str] = set()

    first, second = Order(), Order()
    first.lines["a"].append(1)
    first.seen.add("x")
    assert (second.lines, second.seen) == ({"a": []}, set())
    assert (Order().lines, Order().seen) == ({"a": []}, set())


def test_an_aggregate_is_stored_under_its_class_name_unless_it_says_otherwise():
    class Order(Aggregate, key="order"):
        pass

    class Basket(Aggregate, key="order", category="shop.Cart"):
        pass

    assert [decider_of(one, "shop").category for one in (Order, Basket)] == ["shop.Order", "shop.Cart"]


class Ship(Command):
    number: int

    @property
    def order(self) -> str:
        return f"order-{self.number}"


def test_the_key_of_a_command_may_be_a_property():
    class Order(Aggregate, key="order"):
        @decide
        def ship(self, command: Ship) -> None:
            return None

    assert list(decider_of(Order, "shop").decide) == [Ship]


def test_a_function_that_takes_no_message_is_named_in_the_error():
    def nothing() -> None: ...

    with pytest.raises(DeclarationError, match=r"^test_.*nothing must take a message"):
        argument_types(nothing)
    partial = functools.partial(nothing)
    with pytest.raises(DeclarationError, match=r"^functools\.partial\(.*nothing.* must take a message"):
        argument_types(partial)
