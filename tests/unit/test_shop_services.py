import pytest

from examples.shop.driver import Pace
from examples.shop.progress import Snapshot
from examples.shop.services import complaint
from examples.shop.view import Scene, line

NOW = Snapshot(120, 100, 10, 900, 800, {"orders.commands": 0, "payments.commands": 7}, {})


@pytest.mark.parametrize(
    ("said", "words"),
    [
        ("error: the folder is gone", "the folder is gone"),
        ('{"time":"2026-11-23T07:20:52+00:00","level":"error","cause":"no space"}', "no space"),
        ('{"time":"2026-11-23T07:20:52+00:00","level":"info","cause":"no space"}', ""),
        ('{"time":"2026-11-23T07:20:52+00:00","level":"error"}', ""),
        ("[1]", ""),
        ("Traceback (most recent call last):", ""),
    ],
)
def test_a_complaint_is_the_cause_in_a_line_of_a_log(said: str, words: str) -> None:
    assert complaint(said, since=0) == words


def test_an_old_complaint_is_none() -> None:
    assert complaint('{"time":"2026-11-23T07:20:52+00:00","level":"error","cause":"no space"}', since=2e9) == ""


def test_a_moment_is_one_line() -> None:
    scene = Scene(150, 12.3, NOW, {"orders": True, "payments": False}, kills=2)
    assert line(scene) == (
        "12 s · placed 120/150 · shipped 100 · cancelled 10 · kills 2 · down payments · lag payments.commands=7"
    )


def test_a_run_is_finished_when_nothing_is_left_to_do() -> None:
    done = Snapshot(110, 100, 10, 900, 807, {"orders.commands": 0, "payments.commands": 0}, {})
    assert done.finished(110)
    assert not done.finished(111)
    assert not NOW.finished(120)
    assert not Snapshot(110, 100, 10, 900, 807, {}, {"retry": 1}).finished(110)


def test_a_run_is_stuck_when_only_a_person_can_help() -> None:
    assert Snapshot(1, 0, 0, 1, 1, {}, {"dead": 1, "behind": 3}).stuck()
    assert not Snapshot(1, 0, 0, 1, 1, {}, {"dead": 1, "retry": 1}).stuck()
    assert not Snapshot(1, 0, 0, 1, 1, {}, {}).stuck()


def test_the_deadline_grows_with_the_work() -> None:
    assert Pace().limit(5000) == 170
    assert Pace(rate=250).limit(5000) == 190
    assert Pace(deadline=9).limit(5000) == 9
