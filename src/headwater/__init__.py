"""Headwater: event-driven architecture for Python, whole.

The way of one message: three transactions joined by two at-least-once hand-offs.

    command -> handling -> [ events · command key · outgoing commands · inline read models ]     transaction 1
                  the log is the outbox; the service's own consumers are fed by it
               relay -> channel                                                                  hand-off 1
               consumer -> [ marks · held messages · effects · new messages · saga states ]      transaction 3
                  acknowledge                                                                    hand-off 2
"""

from headwater.app import App
from headwater.clock import Clock, SystemClock
from headwater.consumer import Once
from headwater.database import Transaction
from headwater.decider import Aggregate, Decider, decide, evolve
from headwater.decision import Boundary, Decision, Part
from headwater.errors import (
    ChannelError,
    ConfigurationError,
    Conflict,
    DatabaseError,
    DeclarationError,
    HeadwaterError,
    KeyReused,
    NotDone,
    NotFound,
    Rejected,
    SchemaError,
    Stale,
    Uncertain,
    Unknown,
)
from headwater.message import Command, Event, Message, Metadata, Recorded, Refused
from headwater.projection import DELETE, ReadModel
from headwater.retry import Retry
from headwater.saga import END, After, CancelTimer, Compensate, Saga, Undo, react
from headwater.store import Committed

__version__ = "0.1.0"

__all__ = [
    "DELETE",
    "END",
    "After",
    "Aggregate",
    "App",
    "Boundary",
    "CancelTimer",
    "ChannelError",
    "Clock",
    "Command",
    "Committed",
    "Compensate",
    "ConfigurationError",
    "Conflict",
    "DatabaseError",
    "Decider",
    "Decision",
    "DeclarationError",
    "Event",
    "HeadwaterError",
    "KeyReused",
    "Message",
    "Metadata",
    "NotDone",
    "NotFound",
    "Once",
    "Part",
    "ReadModel",
    "Recorded",
    "Refused",
    "Rejected",
    "Retry",
    "Saga",
    "SchemaError",
    "Stale",
    "SystemClock",
    "Transaction",
    "Uncertain",
    "Undo",
    "Unknown",
    "__version__",
    "decide",
    "evolve",
    "react",
]
