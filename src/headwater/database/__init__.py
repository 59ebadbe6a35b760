"""The database contract: writes are data, and one call commits them.

Flows build `WriteSet`s; `commit` decides which of them stand, writes those together in one transaction, and answers each.
"""

from headwater.database.contract import Capabilities, Database, InlineFold, Transaction
from headwater.database.judge import Facts, Judgement, Needs, judge, needs
from headwater.database.writes import Answer, Collision, Failed, WriteSet, stands

__all__ = [
    "Answer",
    "Capabilities",
    "Collision",
    "Database",
    "Facts",
    "Failed",
    "InlineFold",
    "Judgement",
    "Needs",
    "Transaction",
    "WriteSet",
    "judge",
    "needs",
    "stands",
]
