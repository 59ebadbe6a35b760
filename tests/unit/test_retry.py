"""Retries, their budget, and the breaker."""

from __future__ import annotations

import pytest

from headwater.errors import ChannelError, Conflict, NotDone, Rejected, SchemaError, Uncertain
from headwater.retry import Breaker, Budget, Retry
from headwater.testing.clock import VirtualClock


def test_the_wait_is_a_share_of_a_ceiling_that_doubles_up_to_the_cap():
    retry = Retry(attempts=20, base=0.2, cap=5.0)
    assert [retry.ceiling(attempt) for attempt in (1, 2, 3, 5, 6, 19)] == [0.2, 0.4, 0.8, 3.2, 5.0, 5.0]
    assert retry.delay(3, OSError(), 0.0) == 0.0
    assert retry.delay(3, OSError(), 0.5) == pytest.approx(0.4)
    assert Retry(attempts=10**9).ceiling(10**6) == 60.0


def test_the_last_attempt_gives_up():
    retry = Retry(attempts=3)
    assert [retry.delay(attempt, OSError(), 0.5) is None for attempt in (1, 2, 3, 4)] == [False, False, True, True]
    assert Retry(attempts=1).delay(1, OSError(), 0.5) is None


@pytest.mark.parametrize("error", [ValueError(), OSError(), TimeoutError(), Conflict(), ChannelError(), NotDone()])
def test_an_error_that_may_pass_is_tried_again(error):
    assert Retry().delay(1, error, 0.5) is not None


@pytest.mark.parametrize("error", [Rejected("no"), SchemaError(), Uncertain()])
def test_an_error_that_will_not_pass_is_not_tried_again(error):
    assert Retry().delay(1, error, 0.5) is None


def test_a_budget_is_spent_and_earned_by_successes():
    budget = Budget(share=0.25, most=2.0)
    assert [budget.spend() for _ in range(3)] == [True, True, False]
    budget.earn(3)
    assert budget.spend() is False
    budget.earn()
    assert [budget.spend(), budget.spend()] == [True, False]
    budget.earn(1_000)
    assert [budget.spend() for _ in range(3)] == [True, True, False]


@pytest.fixture
def clock() -> VirtualClock:
    return VirtualClock()


def breaker(clock: VirtualClock) -> Breaker:
    return Breaker(clock.monotonic, keys=3, rest=1.0, longest=4.0)


def trip(one: Breaker) -> None:
    for key in "abc":
        one.failure(key)


def test_one_bad_key_never_opens_it(clock):
    one = breaker(clock)
    for _ in range(100):
        one.failure("bad")
    assert (one.resting(), one.probing) == (False, False)


def test_it_opens_when_different_keys_fail_with_none_succeeding(clock):
    one = breaker(clock)
    one.failure("a")
    one.failure("b")
    one.succeeded()
    one.failure("c")
    assert not one.resting()
    trip(one)
    assert (one.resting(), one.probing) == (True, True)


def test_it_half_opens_after_its_rest_and_closes_with_a_success(clock):
    one = breaker(clock)
    trip(one)
    clock.advance(1.0)
    assert (one.resting(), one.probing) == (False, True)
    one.succeeded()
    assert (one.resting(), one.probing) == (False, False)
    one.failure("a")
    assert not one.resting()


def rests(one: Breaker, clock: VirtualClock) -> float:
    start = clock.monotonic()
    while one.resting():
        clock.advance(0.25)
    return clock.monotonic() - start


def test_a_failed_probe_opens_it_again_for_longer_up_to_the_longest(clock):
    one = breaker(clock)
    trip(one)
    found = [rests(one, clock)]
    for _ in range(4):
        one.failure("a")
        found.append(rests(one, clock))
    assert found == [1.0, 2.0, 4.0, 4.0, 4.0]


def test_what_was_under_way_when_it_opened_is_no_failed_probe(clock):
    one = breaker(clock)
    for number in range(50):
        one.failure(f"key-{number}")
    assert rests(one, clock) == 1.0


# --- what stands where nothing is said ---


def test_ten_successes_earn_a_retry_and_a_hundred_are_saved_at_most():
    budget = Budget()
    assert sum(budget.spend() for _ in range(200)) == 100
    budget.earn(9)
    assert not budget.spend()
    budget = Budget(most=1.0)
    assert [budget.spend(), budget.spend()] == [True, False]
    budget.earn(10)
    assert [budget.spend(), budget.spend()] == [True, False]


def test_a_success_is_counted_once():
    budget = Budget(share=0.5, most=1.0)
    assert budget.spend()
    budget.earn()
    assert not budget.spend()
    budget.earn()
    assert budget.spend()


def test_a_breaker_opens_after_twenty_keys_for_a_second_and_thirty_at_most(clock):
    breaker = Breaker(clock.monotonic)
    for number in range(19):
        breaker.failure(f"k{number}")
    assert not breaker.resting()
    breaker.failure("k19")
    rests = []
    for _ in range(8):
        began = clock.monotonic()
        rests.append(round(breaker.until - began))
        clock.advance(breaker.until - began)
        assert not breaker.resting()
        breaker.failure("k0")
    assert rests == [1, 2, 4, 8, 16, 30, 30, 30]
