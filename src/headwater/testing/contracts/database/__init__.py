"""The promises of a `Database`: subclass `DatabaseContract` with the two hooks, and run it with pytest.

    class TestMyDatabase(DatabaseContract):
        async def make(self, tmp_path, clock): ...      # fresh, opened
        async def reopen(self, database): ...           # a new handle on the data of one that died

Each test runs in an event loop of its own, over a fresh database and a `VirtualClock`.
"""

# ruff: noqa: E402 - pytest must know the modules before they are imported, to say what an assertion saw

import pytest

pytest.register_assert_rewrite(
    *(
        f"{__name__}.{part}"
        for part in (
            "concurrency",
            "conditions",
            "inbox",
            "sets",
            "store",
            "tables",
            "timers",
            "transactions",
            "values",
        )
    )
)

from headwater.testing.contracts.database.case import DatabaseCase
from headwater.testing.contracts.database.concurrency import ChangedPromises, ConcurrencyPromises, LeasePromises
from headwater.testing.contracts.database.conditions import ConditionPromises, RacePromises, RelevantPromises
from headwater.testing.contracts.database.inbox import HeldPromises, MarkPromises, NotePromises, TurnPromises
from headwater.testing.contracts.database.sets import CommandKeyPromises, ExpectPromises, FencePromises, SetPromises
from headwater.testing.contracts.database.store import ReadPromises, StorePromises
from headwater.testing.contracts.database.tables import InlinePromises, SwapPromises, TablePromises
from headwater.testing.contracts.database.timers import CheckpointPromises, SagaPromises, TimerPromises
from headwater.testing.contracts.database.transactions import TransactionPromises

__all__ = ["DatabaseCase", "DatabaseContract"]


class DatabaseContract(
    StorePromises,
    ReadPromises,
    ExpectPromises,
    SetPromises,
    CommandKeyPromises,
    FencePromises,
    MarkPromises,
    HeldPromises,
    TurnPromises,
    NotePromises,
    TimerPromises,
    SagaPromises,
    CheckpointPromises,
    TablePromises,
    SwapPromises,
    InlinePromises,
    TransactionPromises,
    RelevantPromises,
    ConditionPromises,
    RacePromises,
    ConcurrencyPromises,
    ChangedPromises,
    LeasePromises,
):
    """All that a database promises."""
