"""What becomes of messages that failed: held for a retry, behind one that is, or dead; and the breaker and budget around it."""

from __future__ import annotations

import hashlib
import logging
import sys
import traceback
from collections.abc import Sequence

import msgspec

from headwater.clock import Clock, iso
from headwater.consumer.arrival import Arrival, Outcome, Waiting
from headwater.errors import Uncertain
from headwater.inbox import Held, Reason
from headwater.message import Recorded
from headwater.retry import Breaker, Budget, Retry
from headwater.telemetry import signal

HISTORY = 10
CAUSE = 500
ANY = Retry()


class Failing:
    """Turns failures into held messages."""

    def __init__(self, consumer: str, clock: Clock, retry: Retry, crashes: int) -> None:
        self.consumer = consumer
        self.clock = clock
        self.retry = retry
        self.crashes = crashes
        self.breaker = Breaker(clock.monotonic)
        self.budget = Budget()

    def holds(self, arrivals: Sequence[Arrival], outcome: Outcome) -> list[Held]:
        """The held rows of a batch: each failure, and what came behind it."""
        if not outcome.failures:
            return []
        rows = []
        for index, arrival in enumerate(arrivals):
            row = self.row(arrival.message, Reason.BEHIND)
            if index in outcome.failures:
                rows.append(self.failed(row, outcome.failures[index]))
            elif index in outcome.behind:
                rows.append(row)
        return rows

    def row(self, message: Recorded, reason: Reason) -> Held:
        """The held row of a message that was not run."""
        now = self.clock.now()
        return Held(self.consumer, message.key, message, reason, due=now, since=now)

    def allowed(self, most: int = sys.maxsize) -> int:
        """How many messages may be tried now: none in an outage, one to see whether it is over, else all."""
        if self.breaker.resting():
            return 0
        return 1 if self.breaker.probing else most

    def failed(self, row: Held, error: Exception) -> Held:
        """A row after one more failed attempt. Attempts are not counted while an outage shows, and not for waiting."""
        if isinstance(error, Waiting):
            return self._put_off(row, error)
        attempts = row.attempts if self.breaker.probing else row.attempts + 1
        delay = self.retry.delay(attempts, error, self.clock.random())
        if delay is None:
            reason = Reason.UNCERTAIN if isinstance(error, Uncertain) else Reason.DEAD
            due = 0
        else:
            delay = delay if self.budget.spend() else self.retry.ceiling(attempts)
            reason, due = Reason.RETRY, self._in(delay)
        cause = cause_of(error)
        return msgspec.structs.replace(
            row,
            reason=reason,
            due=due,
            attempts=attempts,
            cause=cause,
            fingerprint=fingerprint(error),
            history=[*row.history, f"{iso(self.clock.now())} {cause}"][-HISTORY:],
        )

    def _put_off(self, row: Held, error: Waiting) -> Held:
        """A row that waits for another message: the longer it has waited, the later it is tried again."""
        age = (self.clock.now() - row.since) / 1_000_000
        delay = min(self.retry.cap, max(self.retry.base, age))
        return msgspec.structs.replace(row, reason=Reason.RETRY, due=self._in(delay), cause=cause_of(error))

    def _in(self, seconds: float) -> int:
        return self.clock.now() + int(seconds * 1_000_000)

    def crashed(self, row: Held) -> Held:
        """A row after the process ended while it was running alone."""
        crashes = row.crashes + 1
        cause = f"the process ended {crashes} times while this message was running alone"
        dead = crashes >= self.crashes
        signal("consumer.crashed", logging.ERROR, consumer=self.consumer, message=row.message.id, crashes=crashes)
        return msgspec.structs.replace(
            row,
            reason=Reason.DEAD if dead else Reason.RETRY,
            due=0 if dead else self.clock.now(),
            crashes=crashes,
            cause=cause,
            fingerprint="crash",
            history=[*row.history, f"{iso(self.clock.now())} {cause}"][-HISTORY:],
        )

    def settled(self, arrivals: Sequence[Arrival], outcome: Outcome) -> None:
        """Count what succeeded and failed, once it is committed, and say so."""
        successes = len(arrivals) - len(outcome.failures) - len(outcome.behind)
        if successes:
            self.breaker.succeeded()
            self.budget.earn(successes)
        for index, error in outcome.failures.items():
            if isinstance(error, Waiting):
                continue
            arrival = arrivals[index]
            if not successes and may_pass(error) and (arrival.attempt == 1 or self.breaker.probing):
                self.breaker.failure(arrival.message.key)
            signal(
                "consumer.held",
                logging.WARNING,
                consumer=self.consumer,
                message=arrival.message.id,
                stream=arrival.message.stream,
                version=arrival.message.version,
                attempt=arrival.attempt,
                error=type(error).__name__,
            )
        if outcome.failures and self.breaker.resting():
            signal("consumer.paused", logging.ERROR, consumer=self.consumer, keys=len(self.breaker.failed))


def may_pass(error: Exception) -> bool:
    """Whether the same message may succeed later: only such a failure can be an outage."""
    return ANY.delay(1, error, 0.0) is not None


def cause_of(error: Exception) -> str:
    """An error in a line."""
    return f"{type(error).__name__}: {error}"[:CAUSE]


def fingerprint(error: BaseException) -> str:
    """The same for the same error at the same place: its type and where it was raised."""
    frames = traceback.extract_tb(error.__traceback__)
    where = f"{frames[-1].filename}:{frames[-1].name}:{frames[-1].lineno}" if frames else ""
    return hashlib.blake2b(f"{type(error).__name__} {where}".encode(), digest_size=6).hexdigest()
