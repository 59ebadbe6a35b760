"""The oracle of races: it sees what no order explains, and nothing else."""

from __future__ import annotations

import pytest

from headwater.store import Item
from headwater.testing.contracts.race import Entry, wrong

ASKED = (Item(("A",), ("t",)),)


def entry(name: str, at: float, saw: str = "", *, asked: tuple[Item, ...] = ASKED, took: float = 0.5) -> Entry:
    """A commit of one event of type A with the tag t, named as its event, submitted at a time."""
    return Entry(name, ((name, "A", ("t",)),), at, at + took, asked, frozenset(saw))


def test_decisions_that_see_all_before_them_are_right() -> None:
    entries = [entry("a", 0), entry("b", 1, "a"), entry("c", 2, "ab"), entry("d", 3, asked=())]
    assert wrong(entries) == []
    assert wrong(entries, {"a": 1, "b": 2, "c": 3, "d": 4}) == []


def test_two_at_a_time_may_stand_in_either_order() -> None:
    assert wrong([entry("a", 0, took=5), entry("b", 0, "a", took=5)]) == []
    assert wrong([entry("a", 0, "b", took=5), entry("b", 0, took=5)]) == []


def test_two_that_do_not_see_each_other_are_wrong() -> None:
    [words] = wrong([entry("a", 0, took=5), entry("b", 0, took=5)])
    assert words.startswith("no order explains what was seen: ")


def test_what_was_answered_before_a_decision_was_submitted_must_have_been_seen() -> None:
    [words] = wrong([entry("a", 0, asked=()), entry("b", 1)])
    assert words == "b did not see a, which was answered before it was submitted"
    assert wrong([entry("a", 0, asked=(), took=2), entry("b", 1)]) == []


def test_the_order_of_commits_tells_what_the_clock_does_not() -> None:
    entries = [entry("a", 0, asked=(), took=2), entry("b", 1)]
    assert wrong(entries, {"b": 1, "a": 2}) == []
    assert wrong(entries, {"a": 1, "b": 2}) == ["b did not see a, against the order of commits"]
    seen = [entry("a", 0, asked=(), took=2), entry("b", 1, "a")]
    assert wrong(seen, {"b": 1, "a": 2}) == ["b saw a, against the order of commits"]


def test_a_circle_through_time_is_wrong() -> None:
    """`a` stands before `b`, which saw it; `b` was answered before `c` was submitted; and `c` stands before `d`, which saw it,
    and which `a` did see as well."""
    a = Entry("a", (("a", "A", ("x",)),), 0, 9, (Item((), ("z",)),), frozenset("d"))
    b = Entry("b", (("b", "B", ()),), 0, 1, (Item((), ("x",)),), frozenset("a"))
    c = Entry("c", (("c", "C", ("y",)),), 2, 9)
    d = Entry("d", (("d", "D", ("z",)),), 0, 9, (Item((), ("y",)),), frozenset("c"))
    [words] = wrong([a, b, c, d])
    assert words.startswith("no order explains what was seen: ")
    assert set(words.rpartition(": ")[2].split(" before ")) == set("abcd")
    for fewer in ([b, c, d], [a, b, d], [a, c, d]):
        known = {one.name for one in fewer}
        assert [one for one in wrong(fewer) if "explains" in one] == [], known


@pytest.mark.parametrize(
    ("saw", "words"),
    [("z", "b saw z, which does not stand"), ("o", "b saw o, which it had not asked for"), ("p", "b saw a part of pq")],
)
def test_what_cannot_have_been_seen(saw: str, words: str) -> None:
    entries = [
        Entry("o", (("o", "A", ("other",)),), 0, 9),
        Entry("pq", (("p", "A", ("t",)), ("q", "A", ("t", "u"))), 0, 9),
        Entry("b", (("b", "A", ("t",)),), 0, 9, ASKED, frozenset({saw})),
    ]
    assert words in wrong(entries)


def test_items_are_joined_by_or_and_their_tags_by_and() -> None:
    other = Entry("a", (("a", "A", ("t",)), ("b", "B", ("u", "t"))), 0, 1)
    for items, asked in [
        ((Item(("A",)),), "a"),
        ((Item(("A", "B")),), "ab"),
        ((Item((), ("t",)),), "ab"),
        ((Item((), ("t", "u")),), "b"),
        ((Item(("A",), ("u",)),), ""),
        ((Item(("A",), ("u",)), Item(("B",), ("u",))), "b"),
    ]:
        assert Entry("d", (), 0, 1, items).asked_for(other) == set(asked)
