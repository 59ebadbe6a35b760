"""What a consumer's functions returned, as drafts, timers and cancellations."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import msgspec

from headwater.clock import Clock
from headwater.consumer.arrival import Arrival, Outcome
from headwater.message import Draft, Recorded, Refused, caused_by
from headwater.outbox import After, Appends, CancelTimer, Outbox, sender
from headwater.timer import Cancel, Timer

refused = msgspec.json.Decoder(Refused)


def addressed(message: Recorded, consumer: str) -> bool:
    """Whether a reply or timer is for this consumer; events are for all."""
    if message.kind == "timer":
        return sender(message.stream) == consumer
    if message.kind == "reply":
        return reply_to(message) == consumer
    return message.kind == "event"


def reply_to(message: Recorded) -> str:
    """The consumer that sent the command which a reply refuses."""
    return sender(refused.decode(message.data).stream)


class Outgoing:
    """Collects what a consumer's functions returned: commands, events, timers and cancellations."""

    def __init__(self, outbox: Outbox, consumer: str, clock: Clock) -> None:
        self.outbox = outbox
        self.consumer = consumer
        self.clock = clock
        self.appends = Appends()
        self._timers: dict[tuple[str, str], Timer | Cancel] = {}

    def add(self, results: Sequence[Any], arrival: Arrival, key: str) -> None:
        """Add what was returned for an arrival; nothing of it if one part cannot be sent."""
        if not results:
            return
        meta = caused_by(arrival.message, arrival.metadata)
        tenant = arrival.metadata.tenant
        drafts: list[tuple[str, Draft]] = []
        timers: list[Timer | Cancel] = []
        for result in results:
            if isinstance(result, After):
                timers.append(self._timer(result, meta, key, tenant))
            elif isinstance(result, CancelTimer):
                timers.append(Cancel(self.consumer, key, self._timer_name(result.timer)))
            else:
                drafts.append(
                    (self.outbox.stream_for(result, self.consumer, key, tenant), self.outbox.draft(result, meta))
                )
        for stream, draft in drafts:
            self.appends.add(stream, draft)
        for timer in timers:
            self._timers[timer.key, timer.name] = timer

    def _timer(self, after: After, meta: bytes, key: str, tenant: str) -> Timer:
        found = self.outbox.schema.of(type(after.message))
        stream = self.outbox.stream_for(after.message, self.consumer, key, tenant)
        draft = self.outbox.draft_as(found, after.message, meta, "command" if found.kind == "command" else "timer")
        due = self.clock.now() + after.microseconds
        return Timer(self.consumer, key, after.name or found.name, due, stream, draft)

    def _timer_name(self, timer: type | str) -> str:
        return timer if isinstance(timer, str) else self.outbox.schema.of(timer).name

    def into(self, outcome: Outcome) -> None:
        """Put it into an outcome."""
        outcome.appends = self.appends.all()
        outcome.timers = [timer for timer in self._timers.values() if isinstance(timer, Timer)]
        outcome.cancels = [timer for timer in self._timers.values() if isinstance(timer, Cancel)]
