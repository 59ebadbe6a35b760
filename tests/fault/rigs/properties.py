"""`properties`: whatever is done to SQLite, a database does as the model does, and a channel gives what it owes.

One seed is so many examples of one of the two machines; an example is a trial. What fails is made as short as it may be.
"""

from __future__ import annotations

from unittest import mock

from headwater.adapters.sqlite import channel_subscription
from headwater.testing.contracts.properties import ChannelProperties, DatabaseProperties
from tests.fault.rigs.trial import TrialResult
from tests.property.test_channel import TestSqliteChannel
from tests.property.test_database import TestSqliteDatabase

COUNT = 1_000
EXAMPLES = 25
STEPS = 50


def one_trial(seed: int) -> TrialResult:
    """Search with one machine."""
    case = (TestSqliteDatabase, TestSqliteChannel)[seed % 2]()
    case.examples, case.steps, case.seed = EXAMPLES, STEPS, seed
    try:
        search(case)
    except (AssertionError, ExceptionGroup) as error:
        return TrialResult(True, ["\n".join([str(error), *getattr(error, "__notes__", ())])], EXAMPLES)
    return TrialResult(True, trials=EXAMPLES)


def search(case: DatabaseProperties | ChannelProperties) -> None:
    """Run the examples of a case; members of a group look at every step who shares it."""
    if isinstance(case, DatabaseProperties):
        case.test_it_does_as_the_model_does()
        return
    with mock.patch.object(channel_subscription, "SHARE", 0.0):
        case.test_it_gives_what_it_owes()
