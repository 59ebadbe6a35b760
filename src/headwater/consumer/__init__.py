"""Consumers: source -> marks -> handlers -> commit. Transaction 3.

A batch is fetched, what the marks have is dropped, what a held key waits for joins it, the rest runs by key; then one
transaction writes effects, marks and held messages together, and the batch is acknowledged whole: what is not done is held.
"""

from headwater.consumer.arrival import Arrival, Outcome, Worker, run_purely
from headwater.consumer.commands import CommandWorker
from headwater.consumer.consumer import Consumer, Limits, Options
from headwater.consumer.feed import Feed
from headwater.consumer.foreign import Listened
from headwater.consumer.handlers import Handler, HandlerWorker
from headwater.consumer.once import Once
from headwater.consumer.retrying import Retrying
from headwater.consumer.sources import ChannelSource, LogSource

__all__ = [
    "Arrival",
    "ChannelSource",
    "CommandWorker",
    "Consumer",
    "Feed",
    "Handler",
    "HandlerWorker",
    "Limits",
    "Listened",
    "LogSource",
    "Once",
    "Options",
    "Outcome",
    "Retrying",
    "Worker",
    "run_purely",
]
