"""In what order messages are given to librdkafka, by where their keys went before."""

from __future__ import annotations

from itertools import groupby

import pytest
from hypothesis import given
from hypothesis import strategies as st

from headwater.adapters.kafka import places as module
from headwater.adapters.kafka.places import Places
from headwater.channel import Publication

KEYS = st.sampled_from("abcdefgh")
SEEN = st.dictionaries(KEYS, st.tuples(st.sampled_from(["orders", "mail"]), st.integers(0, 2)))


def publications(keys: list[str]) -> list[Publication]:
    return [Publication("orders", key, {}, b"") for key in keys]


@given(SEEN, st.lists(KEYS))
def test_those_of_a_place_are_given_together_and_those_of_a_key_as_they_are(
    seen: dict[str, tuple[str, int]], keys: list[str]
) -> None:
    places = Places()
    for key, (topic, partition) in seen.items():
        places.learn(key, topic, partition)
    order = places.order(publications(keys))
    assert sorted(order) == list(range(len(keys)))
    for key in set(keys):
        assert (of_key := [index for index in order if keys[index] == key]) == sorted(of_key)
    runs = [place for place, _ in groupby(seen.get(keys[index]) for index in order)]
    assert len(runs) == len(set(runs))


def test_a_key_that_has_moved_is_with_those_of_its_new_place() -> None:
    places = Places()
    for key, partition in (("a", 0), ("b", 1), ("c", 0), ("a", 1)):
        places.learn(key, "orders", partition)
    assert places.order(publications(["a", "c", "b"])) == [1, 0, 2]


def test_no_more_keys_are_remembered_than_are_said(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "KNOWN", 3)
    places = Places()
    for key in "abcd":
        places.learn(key, "orders", 0)
    assert list(places.known) == ["d"]
