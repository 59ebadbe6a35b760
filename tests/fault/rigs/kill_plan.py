"""Which process of the `kill` rig dies at which fault points, in which order, and at which hit."""

from __future__ import annotations

import random
from collections.abc import Sequence
from typing import NamedTuple

from headwater import fault

SERVING = (
    "feed.",
    "consumer.",
    "retry.",
    "relay.",
    "timer.",
    "repair.",
    "projection.",
    "sqlite.",
    "postgres.",
    "lease.",
    "channel.",
)
BANK_ONLY = (
    "consumer.fell",
    "relay.holding",
    "relay.held",
    "relay.republished",
    "relay.released",
    "projection.folded_inline",
)
BANK_ONLY += ("repair.answering", "repair.answered", "repair.acknowledged", "timer.due", "timer.fired", "saga.reacted")
VAULT_ONLY = ("consumer.ran_inside", "consumer.wrote_inside", "feed.buried", "repair.asking", "repair.asked")
VAULT_ONLY += ("postgres.returned", "postgres.committed_loan")
DESK = (
    "deciding.",
    "handling.",
    "projection.folded_inline",
    "rebuild.",
    "operations.",
    "sqlite.",
    "postgres.committing",
    "migration.",
    "channel.publishing",
)
OFTEN = ("feed.fetched", "feed.settled", "feed.acknowledged", "consumer.ran", "consumer.committed", "saga.")
OFTEN += (
    "sqlite.begun",
    "sqlite.written",
    "sqlite.committed",
    "sqlite.unlocked",
    "postgres.committing",
    "postgres.committed",
    "relay.publish",
    "handling.",
    "deciding.",
)
"""Points that are hit many times a second: a process dies there at a later hit, too."""
HITS = (1, 2, 3, 5, 13, 34)
BEGINNING = ("migration.", "lease.tak", "channel.joining", "channel.tak", "relay.placed", "feed.noted", "feed.parted")
"""Points at the beginning of a life."""
FOLLOWING = {
    "retry.noted": "retry.charging",
    "retry.charging": "retry.charged",
    "relay.held": "relay.republished",
    "relay.republished": "relay.released",
}
"""Points that a process comes to if it died at another before."""
NARROW, WIDE = ("relay.holding", "relay.held"), ("relay.republished", "relay.released")
"""Points that a process comes to if its channel refuses large messages, or takes those that were refused before."""
AT_BIRTH = (*BEGINNING, *NARROW, *FOLLOWING.values())
LULL = 0.4
"""Seconds at most in which a process is left alone, so that there is work to die over."""
STOPPED = "lease.releasing"
"""A point that only a process that is told to stop comes to."""
MIGRATION = "migration."


def points_of(service: str) -> list[str]:
    """The points that a process of a service, or the desk, comes to."""
    if service == "desk":
        return [name for name in fault.POINTS if name.startswith(DESK)]
    others = BANK_ONLY if service == "vault" else VAULT_ONLY
    mine = (*SERVING, MIGRATION, "saga." if service == "bank" else "once.")
    return [name for name in fault.POINTS if name.startswith(mine) and name not in others]


class Aim(NamedTuple):
    """Where a process is to die: at the `hit`th time that it comes to a point from `after` seconds on."""

    name: str
    hit: int
    after: float


class Plan:
    """Each of some points, in a seeded order, at a process that comes to it; what is not reached in time comes again."""

    def __init__(self, chance: random.Random, points: Sequence[str]) -> None:
        self._chance = chance
        self._left = list(points)
        chance.shuffle(self._left)

    @property
    def done(self) -> bool:
        """Whether every point has had a process aimed at it."""
        return not self._left

    def first(self, service: str, died_at: str) -> Aim | None:
        """Where a process of this service, which is about to begin a life, is to die; None where no point is left for it."""
        following = FOLLOWING.get(died_at, "")
        return self._take([following] if following in self._left else self._open(service), born=True)

    def next(self, service: str) -> Aim | None:
        """Where a process that lives is to die; None where no point is left that it could come to in this life."""
        return self._take([one for one in self._open(service) if not one.startswith(AT_BIRTH)], born=False)

    def _take(self, names: Sequence[str], *, born: bool) -> Aim | None:
        if not names:
            return None
        name = names[0]
        self._left.remove(name)
        after = 0.0 if born and name.startswith(AT_BIRTH) else self._chance.uniform(0.0, LULL)
        return Aim(name, self._chance.choice(HITS if name.startswith(OFTEN) else (1,)), after)

    def waits(self, service: str) -> bool:
        """Whether there is a point left that only another life of a process of this service can come to."""
        return any(self._open(service))

    def missed(self, name: str) -> None:
        """A process did not come to a point in time: the next one tries."""
        again = [name, *(before for before, after in FOLLOWING.items() if after == name)]
        for one in again:
            if one not in self._left:
                self._left.insert(3, one)

    def _open(self, service: str) -> list[str]:
        mine = points_of(service)
        return [one for one in self._left if one in mine and one not in FOLLOWING.values()]
