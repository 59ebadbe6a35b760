"""Commits in one trip: sets that only append, at versions they name, are written as if these stood, and the server checks it.

That saves the trip that reads the facts. Where one does not stand, nothing is written, and all are judged by what is stored.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from headwater.adapters.postgres.facts import columns
from headwater.adapters.postgres.statement import Statement
from headwater.database import Facts, WriteSet
from headwater.store import ANY

BACKEND: Final = Statement("SELECT pg_backend_pid()")
"""By what a connection is known to the server, whatever stands between."""
ALIVE: Final = "SELECT EXISTS (SELECT FROM pg_stat_activity WHERE pid = %s)"
STAND: Final = """
SELECT headwater.expect(count(*), %s) FROM unnest(%s::text[], %s::bigint[]) AS w (stream, version)
WHERE version = coalesce((SELECT max(e.version) FROM headwater.events e WHERE e.stream = w.stream), 0)
"""


def assumed(writes: Sequence[WriteSet]) -> Facts | None:
    """The facts on which all these sets rest; None where they need others, or say not on which."""
    streams: dict[str, int] = {}
    for write in writes:
        if write.after or write.conditions or write.fence or write.consumes or not write.appends:
            return None
        for append in write.appends:
            if append.expect == ANY or not append.drafts:
                return None
            streams.setdefault(append.stream, append.expect)
    return Facts(streams=streams)


def standing(streams: dict[str, int]) -> Statement:
    """Fails where one of these streams is not at its version."""
    return Statement(STAND, [len(streams), *columns(list(streams.items()))])
