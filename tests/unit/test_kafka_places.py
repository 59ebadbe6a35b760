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
TOPICS = st.sampled_from(["orders", "mail"])


@given(st.dictionaries(KEYS, st.integers(0, 2)), st.lists(st.tuples(TOPICS, KEYS)))
def test_those_of_a_place_are_given_together_and_those_of_a_key_as_they_are(
    partitions: dict[str, int], addressed: list[tuple[str, str]]
) -> None:
    places = Places()
    places.partitions.update(partitions)
    order = places.order([Publication(topic, key, {}, b"") for topic, key in addressed])
    assert sorted(order) == list(range(len(addressed)))
    for one in set(addressed):
        assert (of_key := [index for index in order if addressed[index] == one]) == sorted(of_key)
    runs = [place for place, _ in groupby((addressed[at][0], partitions.get(addressed[at][1])) for at in order)]
    assert len(runs) == len(set(runs))


def test_no_more_keys_are_remembered_than_are_said(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "KNOWN", 3)
    places = Places()
    places.partitions.update(dict.fromkeys("abcd", 0))
    places.order([])
    assert places.partitions == {}
