"""Retries as data: (attempt, error) -> seconds to wait, or give up; and the breaker that tells an outage from a bad message."""

from __future__ import annotations

from collections.abc import Callable

from msgspec import Struct

from headwater.errors import HeadwaterError, Uncertain


class Retry(Struct, frozen=True):
    """Full jitter between 0 and `base * 2**(attempt-1)`, at most `cap` seconds, for at most `attempts` attempts in all."""

    attempts: int = 8
    base: float = 0.2
    cap: float = 60.0

    def delay(self, attempt: int, error: BaseException, chance: float) -> float | None:
        """Seconds to wait after a failed attempt (from 1), or None to give up; `chance` is a number from 0 to 1."""
        permanent = isinstance(error, Uncertain) or (isinstance(error, HeadwaterError) and not error.retryable)
        if permanent or attempt >= self.attempts:
            return None
        return self.ceiling(attempt) * chance

    def ceiling(self, attempt: int) -> float:
        """The longest wait after an attempt, in seconds."""
        return min(self.cap, self.base * 2.0 ** min(attempt - 1, 62))


class Budget:
    """Keeps retries to a share of the work: each success earns `share` of a retry, up to `most` saved."""

    def __init__(self, share: float = 0.1, most: float = 100.0) -> None:
        self.share = share
        self.most = most
        self.saved = most

    def earn(self, successes: int = 1) -> None:
        """Count successes."""
        self.saved = min(self.most, self.saved + successes * self.share)

    def spend(self) -> bool:
        """Take one retry from the budget; False when it is used up, and the retry should wait its longest."""
        if self.saved < 1:
            return False
        self.saved -= 1
        return True


class Breaker:
    """Opens when so many different keys in a row have failed with none succeeding; half-opens after `rest` seconds."""

    def __init__(
        self, monotonic: Callable[[], float], keys: int = 20, rest: float = 1.0, longest: float = 30.0
    ) -> None:
        self.monotonic = monotonic
        self.limit = keys
        self.rest = rest
        self.longest = longest
        self.failed: set[str] = set()
        self.trips = 0
        self.until = 0.0

    def resting(self) -> bool:
        """Whether nothing may be tried now."""
        return self.monotonic() < self.until

    @property
    def probing(self) -> bool:
        """Whether it tripped and no success has been seen since: try few."""
        return self.trips > 0

    def succeeded(self) -> None:
        """Note a success: the dependency answers."""
        self.failed.clear()
        self.trips = 0
        self.until = 0.0

    def failure(self, key: str) -> None:
        """Note a failure of a key; opens at the limit, and again at once after a failed probe."""
        self.failed.add(key)
        if self.resting():  # it was under way when the breaker opened: no probe
            return
        if self.probing or len(self.failed) >= self.limit:
            self.until = self.monotonic() + min(self.longest, self.rest * 2.0 ** min(self.trips, 10))
            self.trips += 1
