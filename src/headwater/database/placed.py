"""The events that one judgement has placed so far, by tag and type: each set is looked at once, whoever asks how often."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence

from headwater.message import Recorded
from headwater.store import Item


class Placed:
    """Knows the events of a growing list of messages."""

    def __init__(self) -> None:
        self._known = 0
        self._types: set[str] = set()
        self._by_tag: defaultdict[str, set[tuple[str, tuple[str, ...]]]] = defaultdict(set)

    def learn(self, recorded: Sequence[Recorded], tags: Mapping[int, tuple[str, ...]]) -> None:
        """Look at the messages that are new in the list; `tags` by their places in it."""
        for place in range(self._known, len(recorded)):
            one = recorded[place]
            if one.kind == "event":
                self._types.add(one.type)
                for tag in tags.get(place, ()):
                    self._by_tag[tag].add((one.type, tags[place]))
        self._known = len(recorded)

    def meets(self, items: Iterable[Item]) -> bool:
        """Whether one of the items takes one of the events."""
        return any(self._has(item) for item in items)

    def _has(self, item: Item) -> bool:
        if not item.tags:
            return not self._types.isdisjoint(item.types)
        fewest = min((self._by_tag.get(tag, ()) for tag in item.tags), key=len)
        return any(item.takes(name, tags) for name, tags in fewest)
