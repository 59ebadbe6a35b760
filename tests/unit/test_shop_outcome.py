from collections import Counter

from examples.shop.outcome import Outcome, outcome


def test_shares_are_as_promised() -> None:
    found = Counter(outcome(seed, order_id) for seed in range(10) for order_id in range(1, 10_001))
    shares = {one: round(count / 1000) for one, count in found.items()}
    assert shares == {Outcome.SHIPPED: 94, Outcome.DECLINED: 3, Outcome.OUT_OF_STOCK: 2, Outcome.CARRIER_REFUSED: 1}


def test_it_depends_on_seed_and_id_alone() -> None:
    ids = range(1, 2001)
    assert [outcome(1, one) for one in ids] == [outcome(1, one) for one in ids]
    assert [outcome(1, one) for one in ids] != [outcome(2, one) for one in ids]


def test_the_outcomes_of_the_first_seed_stay_what_they_are() -> None:
    failing = {one: str(outcome(1, one)) for one in range(1, 101) if outcome(1, one) is not Outcome.SHIPPED}
    assert failing == {
        48: "carrier refused",
        50: "out of stock",
        67: "out of stock",
        69: "out of stock",
        73: "carrier refused",
    }
