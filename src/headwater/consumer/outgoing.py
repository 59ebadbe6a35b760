"""What a consumer's functions returned, as drafts, timers and cancellations."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

import msgspec
from msgspec import Struct

from headwater.consumer.arrival import Arrival, Outcome
from headwater.errors import DeclarationError
from headwater.message import Draft, Kind, Recorded, Refused, caused_by, stream_of
from headwater.outbox import After, Appends, CancelTimer, Outbox, sender
from headwater.timer import Cancel, Timer

refused = msgspec.json.Decoder(Refused)


def addressed(message: Recorded, consumer: str) -> bool:
    """Whether a reply or timer is for this consumer; events are for all, and a reply that nobody can read is."""
    if message.kind == "timer":
        return sender(message.stream) == consumer
    if message.kind == "reply":
        try:
            return sender(refused.decode(message.data).stream) == consumer
        except msgspec.MsgspecError:
            return True
    return message.kind == "event"


def instance_of(key: str, tenant: str) -> str:
    """What tells an instance from those of other tenants with the same key."""
    return f"{tenant}:/{key}" if tenant else key


class Encoded(Struct, frozen=True):
    """A command that was encoded before: it needs its class no more."""

    type: str
    version: int
    service: str
    data: bytes


class Leaving(Struct, frozen=True):
    """What leaves after one message: drafts by stream, timers set and timers cancelled."""

    drafts: Sequence[tuple[str, Draft]] = ()
    timers: Sequence[Timer | Cancel] = ()


class Outgoing:
    """Makes what the functions of a consumer returned into what leaves it; `takes` are the stored names of its types."""

    def __init__(self, outbox: Outbox, consumer: str, takes: frozenset[str]) -> None:
        self.outbox = outbox
        self.consumer = consumer
        self.takes = takes

    def leaving(self, results: Sequence[Any], arrival: Arrival, key: str) -> Leaving:
        """What leaves after a message, caused by it. Raises where one part cannot be sent."""
        if not results:
            return Leaving()
        meta = caused_by(arrival.message, arrival.metadata)
        tenant = arrival.metadata.tenant
        drafts: list[tuple[str, Draft]] = []
        timers: list[Timer | Cancel] = []
        for result in results:
            if isinstance(result, After):
                timers.append(self._timer(result, meta, key, tenant))
            elif isinstance(result, CancelTimer):
                timers.append(Cancel(self.consumer, instance_of(key, tenant), self._timer_name(result.timer)))
            elif isinstance(result, Encoded):
                leaves = result.service != self.outbox.service
                draft = self.outbox.encoded(result.type, result.version, result.data, meta, leaves=leaves)
                drafts.append((stream_of(f"{self.consumer}>{result.service}", key, tenant), draft))
            else:
                stream = self.outbox.stream_for(result, self.consumer, key, tenant)
                drafts.append((stream, self.outbox.draft(result, meta)))
        return Leaving(drafts, timers)

    def _timer(self, after: After, meta: bytes, key: str, tenant: str) -> Timer:
        found = self.outbox.schema.of(type(after.message))
        kind: Kind = "timer"
        stream = self.outbox.stream_for(after.message, self.consumer, key, tenant)
        if found.kind == "command":
            kind = "command"
        elif found.name in self.takes:
            stream = self.outbox.timer_stream(self.consumer, key, tenant)
        else:
            raise DeclarationError(
                f"{self.consumer} sets a timer with {found.name}, which it does not take: nobody would"
            )
        draft = self.outbox.draft_as(found, after.message, meta, kind)
        due = self.outbox.clock.now() + after.microseconds
        return Timer(self.consumer, instance_of(key, tenant), after.name or found.name, due, stream, draft)

    def _timer_name(self, timer: type | str) -> str:
        return timer if isinstance(timer, str) else self.outbox.schema.of(timer).name


def collect(leaving: Iterable[Leaving], outcome: Outcome) -> None:
    """Put what leaves after some messages into their outcome; of a timer that is set and cancelled, the last counts."""
    appends = Appends()
    timers: dict[tuple[str, str], Timer | Cancel] = {}
    for one in leaving:
        for stream, draft in one.drafts:
            appends.add(stream, draft)
        for timer in one.timers:
            timers[timer.key, timer.name] = timer
    outcome.appends = appends.all()
    outcome.timers = [timer for timer in timers.values() if isinstance(timer, Timer)]
    outcome.cancels = [timer for timer in timers.values() if isinstance(timer, Cancel)]
