"""All that an operator may do: inspect, send, redrive, discard, rebuild. Plain functions; their faces are the CLI and the console."""

from headwater.operations.aggregates import AggregateState, Change, aggregate_state
from headwater.operations.commands import find_command, read_command, send_command
from headwater.operations.consumers import ConsumerState, list_consumers
from headwater.operations.dead_letters import HeldDetail, HeldLine, find_held, id_of, list_held, place_of, show_held
from headwater.operations.events import EventDetail, EventLine, Filter, find_event, list_events, tail_events
from headwater.operations.projections import ProjectionState, find_projection, list_projections, rebuild_projection
from headwater.operations.redrive import Effect, Outcome, discard, discard_all, redrive, redrive_all
from headwater.operations.refusal import NotPossible
from headwater.operations.republish import Republished, republish
from headwater.operations.upkeep import Upkeep, upkeep_of

__all__ = [
    "AggregateState",
    "Change",
    "ConsumerState",
    "Effect",
    "EventDetail",
    "EventLine",
    "Filter",
    "HeldDetail",
    "HeldLine",
    "NotPossible",
    "Outcome",
    "ProjectionState",
    "Republished",
    "Upkeep",
    "aggregate_state",
    "discard",
    "discard_all",
    "find_command",
    "find_event",
    "find_held",
    "find_projection",
    "id_of",
    "list_consumers",
    "list_events",
    "list_held",
    "list_projections",
    "place_of",
    "read_command",
    "rebuild_projection",
    "redrive",
    "redrive_all",
    "republish",
    "send_command",
    "show_held",
    "tail_events",
    "upkeep_of",
]
