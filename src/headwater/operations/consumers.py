"""Consumers from outside: how far each has come, how far behind it is in messages and seconds, and what it holds."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from msgspec import Struct

from headwater.channel import Channel, GroupLag, Route
from headwater.checkpoint import Consuming
from headwater.database import Database
from headwater.inbox import Reason
from headwater.outbox import topic_of

PAGE: Final = 1000
SCAN: Final = 20_000
"""Messages read at most to count those that the relay still has to publish; beyond, positions are counted."""

COUNTED: Final = 1000
"""Dead letters are counted up to this number."""


class ConsumerState(Struct, frozen=True):
    """A consumer on one of its sources.

    `position` is its place in the log (None: its source is a channel). `behind` messages and `seconds` (the age of the
    oldest of them) are None where they are not known. `dead` and `uncertain` are counted up to 1000.
    """

    name: str
    kind: str
    source: str
    position: int | None
    behind: int | None
    seconds: float | None
    held: int
    dead: int
    uncertain: int


async def list_consumers(database: Database, channel: Channel | None, now: int) -> list[ConsumerState]:
    """The consumers that the service wrote down at its last start, with their lag at `now` (microseconds).

    Both must be open; without a channel, the lag of what it feeds is not known. Messages that could not be decoded are
    held by the channel's feed, which is listed if it holds any.
    """
    known = await database.registered()
    states = []
    for consuming in known:
        place = await _lag(consuming, database, channel, now)
        states.append(await _state(consuming.name, consuming.kind, consuming.source, place, database))
    for service in sorted({one.name.partition(".")[0] for one in known}):
        feed = await _state(f"{service}.channel", "undecodable", "channel", (None, None, None), database)
        if feed.held:
            states.append(feed)
    return states


Lag = tuple[int | None, int | None, float | None]


async def _state(name: str, kind: str, source: str, place: Lag, database: Database) -> ConsumerState:
    held, _ = await database.held_count(name)
    dead = uncertain = 0
    if held:
        dead = len(await database.held_list(name, [Reason.DEAD], COUNTED))
        uncertain = len(await database.held_list(name, [Reason.UNCERTAIN], COUNTED))
    return ConsumerState(name, kind, source, *place, held, dead, uncertain)


async def _lag(consuming: Consuming, database: Database, channel: Channel | None, now: int) -> Lag:
    if consuming.kind == "relay":
        return await _relay_lag(consuming, database, channel, now)
    if consuming.source == "channel":
        return await _channel_lag(consuming, channel, now)
    position = await database.checkpoint(consuming.name)
    behind = await database.head() - position
    return position, behind, await _age(database, position, now) if behind else 0.0


async def _age(database: Database, position: int, now: int) -> float:
    """How long the next message after a position has been waiting."""
    page = await database.read(position, 1)
    return seconds(page[0].time, now) if page else 0.0


def seconds(since: int, now: int) -> float:
    """The time between two moments in microseconds, in seconds to the millisecond, never below 0."""
    return round(max(now - since, 0) / 1_000_000, 3)


async def _channel_lag(consuming: Consuming, channel: Channel | None, now: int) -> Lag:
    if channel is None:
        return None, None, None
    group = consuming.name.partition(".")[0]
    await channel.examine([Route(topic, (group,)) for topic in consuming.topics])  # not each keeps a list of its groups
    return (None, *sum_lags(await channel.lag(group), consuming.topics, now))


def sum_lags(lags: Sequence[GroupLag], topics: Sequence[str], now: int) -> tuple[int, float | None]:
    """The messages that wait on some topics, and the age of the oldest in seconds, if that is known."""
    mine = [lag for lag in lags if lag.topic in topics and lag.messages]
    oldest = min((lag.oldest for lag in mine if lag.oldest is not None), default=None)
    age = 0.0 if not mine else None
    return sum(lag.messages for lag in mine), age if oldest is None else seconds(oldest, now)


async def _relay_lag(consuming: Consuming, database: Database, channel: Channel | None, now: int) -> Lag:
    """Only what leaves the service counts: the relay does not move for the rest."""
    service = consuming.name.removesuffix(".relay")
    kept = await channel.producer_position(service) if channel is not None else None
    position = await database.checkpoint(consuming.name) if kept is None else kept
    if channel is None and not position:
        return None, None, None
    waiting, oldest, place = 0, None, position
    while place - position < SCAN and (page := await database.read(place, PAGE)):
        leaving = [one for one in page if topic_of(one, service)]
        waiting += len(leaving)
        oldest = oldest or (leaving[0].time if leaving else None)
        place = page[-1].position
    waiting += max(await database.head() - place, 0) if place - position >= SCAN else 0
    return position, waiting, 0.0 if oldest is None else seconds(oldest, now)
