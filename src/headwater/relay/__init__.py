"""The relay: log -> channel, in log order, with a tally of it now and then. Hand-off 1."""

from headwater.relay.leaving import Leaving
from headwater.relay.relay import Relay
from headwater.relay.tallying import Tallying

__all__ = ["Leaving", "Relay", "Tallying"]
