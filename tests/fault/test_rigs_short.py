"""The rigs of `./dev prove` in a few seconds each, what their runner says, and that they see a bug that was planted."""

from __future__ import annotations

import asyncio
import json
import logging
import os
import random
import subprocess
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from types import ModuleType
from typing import Any
from unittest import mock

import pytest

from headwater import ConfigurationError
from headwater.adapters.memory import MemoryChannel, MemoryDatabase
from headwater.adapters.sqlite.channel_subscription import SqliteSubscription
from headwater.adapters.sqlite.file import PRAGMAS
from headwater.consumer import consumer, custody
from headwater.lease import Fence
from headwater.relay import Relay
from headwater.tail import Tail
from headwater.testing.clock import VirtualClock
from tests.fault.plants.garden import plants
from tests.fault.rigs import channel, cut, dcb, disk, fuzz, gap, late, pause, power, runner, soak, wipe
from tests.fault.rigs.disk_space import small_disk
from tests.fault.rigs.fuzz_flow import deliver
from tests.fault.rigs.fuzz_targets import CHOSEN, CORPUS, FOUND, Target, targets
from tests.fault.rigs.pair import Book, desk
from tests.fault.rigs.trial import TrialResult, isolated
from tests.servers.postgres import Databases

pytestmark = pytest.mark.timeout(150)  # a bug that is seen by chance has twenty trials to be seen in

TARGETS = {target.name: target for target in targets()}


@pytest.fixture(autouse=True)
def _quiet() -> Iterator[None]:
    logger = logging.getLogger("headwater")
    before = logger.level
    logger.setLevel(logging.CRITICAL)
    yield
    logger.setLevel(before)


# --- each rig ---


@pytest.mark.parametrize("seed", [1, 2], ids=["channel", "database"])
def test_power(seed: int) -> None:
    found = power.one_trial(seed)
    assert (found.violations, found.trials > 40) == ([], True)


@pytest.mark.parametrize("seed", [1, 2], ids=["channel", "database"])
def test_power_sees_commits_that_are_not_synced(seed: int) -> None:
    with mock.patch.dict(PRAGMAS, synchronous=1):
        assert power.one_trial(seed).violations


@pytest.mark.filterwarnings("ignore:.*multi-threaded.*fork:DeprecationWarning")
def test_dcb() -> None:
    found = dcb.one_trial(1)
    assert (found.violations, found.trials > 40) == ([], True)


@pytest.mark.filterwarnings("ignore:.*multi-threaded.*fork:DeprecationWarning")
def test_dcb_on_a_server(postgres: Databases) -> None:
    found = dcb.one_trial(1, postgres.server_url)
    assert (found.violations, found.trials > 40) == ([], True)


@pytest.mark.filterwarnings("ignore:.*multi-threaded.*fork:DeprecationWarning")
def test_dcb_on_a_server_sees_what_is_not_locked(postgres: Databases) -> None:
    with plants()["condition-looked-at-without-locks"].apply():
        found = (dcb.one_trial(seed, postgres.server_url).violations for seed in range(1, 21))
        assert any("did not see" in one or "no order" in one for violations in found for one in violations)


@pytest.mark.filterwarnings("ignore:.*multi-threaded.*fork:DeprecationWarning")
def test_gap(postgres: Databases) -> None:
    found = gap.one_trial(1, postgres.server_url, 1_500)
    assert (found.violations, found.trials >= 1_500) == ([], True)
    assert all(found.facts[what] > 2 for what in ("undone", "prepared", "positions that never came"))


@pytest.mark.parametrize(
    ("plant", "says"),
    [
        ("reader-after-the-last-position", "missed"),
        ("reader-below-the-oldest-transaction", "missed"),
        ("reader-in-order-of-transactions", "out of order"),
    ],
)
@pytest.mark.filterwarnings("ignore:.*multi-threaded.*fork:DeprecationWarning")
def test_gap_sees(plant: str, says: str, postgres: Databases) -> None:
    with plants()[plant].apply():
        found = (gap.one_trial(seed, postgres.server_url, 1_200).violations for seed in range(1, 21))
        assert any(says in one for violations in found for one in violations)


def test_cut(postgres: Databases) -> None:
    found = cut.one_trial(1, postgres.server_url, 30)
    assert (found.violations, found.trials >= 30) == ([], True)
    assert found.facts["unknown, settled by key"]


@pytest.mark.parametrize(
    ("plant", "says"), [("cut-commit-repeated", "doubled"), ("cut-commit-taken-for-failed", "there")]
)
def test_cut_sees(plant: str, says: str, postgres: Databases) -> None:
    with plants()[plant].apply():
        found = (cut.one_trial(seed, postgres.server_url, 12).violations for seed in range(1, 21))
        assert any(says in one for violations in found for one in violations)


@pytest.mark.parametrize("name", TARGETS)
def test_fuzz(name: str) -> None:
    chance = random.Random(name)
    target = TARGETS[name]
    found = (fuzz.attempt(target, fuzz.mutated(chance, target.seeds)) for _ in range(8_000))
    assert {one for one in found if one} == set()


def test_fuzz_delivers_to_real_consumers() -> None:
    chance = random.Random(1)
    assert deliver([fuzz.mutated(chance, TARGETS["wire"].seeds) for _ in range(200)]) == []


@pytest.mark.parametrize(
    "file",
    [file for read, *_ in CHOSEN for file in sorted((CORPUS / read.__name__).iterdir()) if FOUND not in file.name],
    ids=lambda file: f"{file.parent.name}/{file.name}",
)
def test_the_corpus_is_valid(file: Path) -> None:
    TARGETS[file.parent.name].read(file.read_bytes())


def test_fuzz_sees_undocumented_errors_and_hangs() -> None:
    def fall(data: bytes) -> object:
        if data == b"hang":
            while True:
                pass
        return {b"": 0}[data]

    target = Target("planted", fall, (ConfigurationError,), 1, [b"x"])
    assert "KeyError" in str(fuzz.attempt(target, b"x"))
    with fuzz._watched() as begin:
        begin(1)
        assert "Hang" in str(fuzz.attempt(target, b"hang"))


@pytest.mark.parametrize("mounted", [True, False], ids=["mounted", "pretended"])
def test_disk(mounted: bool) -> None:
    with small_disk(mounted=mounted) as space:
        scene = disk.Scene(space, random.Random(1))
        scene.full_for = 0.3
        found = asyncio.run(scene.play())
    assert (found.effective, found.violations) == (True, [])


def test_pause() -> None:
    found = pause.pauses(5, 1)  # a member of the mirror: the relay of the desk has the flaw that is shown below
    assert found.violations == []


def test_pause_on_a_server(postgres: Databases) -> None:
    found = pause.pauses(5, 1, postgres.server_url)
    assert (found.violations, found.facts["booked"] > 20) == ([], True)


def test_late() -> None:
    report = runner.run("late", runner.Wanted(count=6))
    assert report.told == []


def test_late_on_a_server(postgres: Databases) -> None:
    found = late.lived(1, postgres.server_url, [3.0, 365.0])
    assert (found.effective, found.violations) == (True, [])


def test_late_sees_an_inbox_that_forgets() -> None:
    sort = custody.sort_delivered

    def forgetful(name: str, messages: Any, marks: dict[str, int], *rest: Any, **options: Any) -> Any:
        return sort(name, messages, dict.fromkeys(marks, 0), *rest, **options)

    with mock.patch.object(consumer, "sort_delivered", forgetful):
        assert late.one_trial(1).violations


WIPE = """
import sys
from tests.fault.rigs import wipe

with wipe.hurried():
    found = wipe.one_trial(int(sys.argv[1]), streams=80)
print(found.effective, found.violations)
"""


@pytest.mark.timeout(200)  # two services and their repairs on a busy machine
@pytest.mark.parametrize("seed", [1, 2], ids=["producer", "consumer"])
def test_wipe(seed: int) -> None:
    words = [sys.executable, "-P", "-c", WIPE, str(seed)]  # a process of its own: nothing else waits in its loop
    environment = os.environ | {"PYTHONPATH": str(Path(__file__).parents[2])}
    done = subprocess.run(words, capture_output=True, text=True, check=False, timeout=150, env=environment)
    assert (done.stdout.split("\n")[0], done.returncode) == ("True []", 0), done.stderr[-2_000:]


@pytest.mark.timeout(200)
def test_wipe_on_a_server(postgres: Databases) -> None:
    with wipe.hurried():
        found = wipe.one_trial(4, postgres.make(), 80)
    assert (found.effective, found.violations) == (True, [])


@pytest.mark.parametrize("plant", ["tally-without-a-chain", "tally-taken-unchecked"])
def test_wipe_sees(plant: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(wipe, "PATIENCE", 2.0)
    with plants()[plant].apply(), wipe.hurried():
        assert any("never came back" in one for one in wipe.one_trial(1, streams=20).violations)


def test_channel() -> None:
    report = runner.run("channel", runner.Wanted(count=8))
    assert (report.told, report.trials) == ([], 8)


def test_channel_on_a_broker_that_is_started_for_it(capsys: pytest.CaptureFixture[str]) -> None:
    assert runner.main(["channel", "--channel", "kafka", "--count", "2"]) == 0
    assert "channel on kafka: 0 violations in 2 trials" in capsys.readouterr().out


def test_channel_sees_one_that_gives_out_again_what_is_settled() -> None:
    with mock.patch.object(SqliteSubscription, "acknowledge", mock.AsyncMock()):
        number = channel.TESTS.index("test_what_is_acknowledged_never_comes_again")
        assert channel.one_trial(2 * number + 1).violations


def test_soak() -> None:
    found = soak.one_trial(1, seconds=4.0)
    assert (found.effective, found.violations) == (True, [])


def test_soak_on_a_server(postgres: Databases) -> None:
    found = soak.one_trial(1, postgres.server_url, seconds=4.0)
    assert (found.effective, found.violations) == (True, [])


def test_soak_sees_what_grows() -> None:
    flat, leak = soak.Series(), soak.Series()
    for second in range(100):
        flat.add(second, 100.0 + second % 7)
        leak.add(second, 100.0 + second)
    assert (soak.grown("orders: memory MiB", flat), bool(soak.grown("orders: memory MiB", leak))) == ("", True)


# --- what the rigs have found ---


class Slow(MemoryChannel):
    """Where a publication stops on its way until it is let go."""

    def __init__(self, clock: VirtualClock) -> None:
        super().__init__(clock)
        self.way: dict[int, asyncio.Event] = {}

    async def publish(self, publications: Sequence[Any], **options: Any) -> dict[int, str]:
        if publications and options["epoch"] in self.way:
            await self.way[options["epoch"]].wait()
        return await super().publish(publications, **options)


def test_a_relay_that_was_stopped_publishes_nothing_after_another_took_over() -> None:
    async def scene() -> int:
        clock = VirtualClock()
        channel, database, app = Slow(clock), MemoryDatabase(clock), desk(clock=clock)
        await channel.open()
        await database.open()
        await app.connect(database, channel)
        subscription = await channel.subscribe("g", ["desk.Entry"], "m")

        def relay(epoch: int) -> Relay:
            return Relay("desk", database, Tail(database), channel, clock, lambda: Fence("relay", epoch))

        await app.send(Book("k", 1))
        channel.way = {1: asyncio.Event(), 2: asyncio.Event()}
        old = asyncio.ensure_future(relay(1).step())
        await asyncio.sleep(0.01)
        new = asyncio.ensure_future(relay(2).step())
        await asyncio.sleep(0.01)
        channel.way[1].set()
        await asyncio.gather(old, return_exceptions=True)
        channel.way[2].set()
        await new
        return len(await subscription.fetch(10))

    assert asyncio.run(scene()) == 1


# --- the runner ---


def planted(monkeypatch: pytest.MonkeyPatch, one_trial: Any, count: int = 10) -> None:
    module: Any = ModuleType("tests.fault.rigs.planted")
    module.COUNT, module.one_trial = count, one_trial
    monkeypatch.setitem(sys.modules, module.__name__, module)
    monkeypatch.setattr(runner, "_modules", lambda: iter(["planted"]))


def test_all_rigs_are_found() -> None:
    assert {"kill", "power", "fuzz", "disk", "pause", "late", "soak", "wipe"} <= set(runner.names())


def test_a_violation_is_told_with_its_seed(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    planted(monkeypatch, lambda seed: TrialResult(seed != 3, ["lost"] if seed == 5 else []))
    assert runner.main(["planted", "--json"]) == 1
    out, err = capsys.readouterr()
    found = json.loads(out)
    assert (found["rig"], found["trials"], found["violations"], found["seeds"]) == ("planted", 10, 1, [5])
    assert "planted --seed 5: lost" in err


def test_a_seed_is_replayed_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    seeds: list[int] = []

    def trial(seed: int) -> TrialResult:
        seeds.append(seed)
        return TrialResult(True)

    planted(monkeypatch, trial)
    assert (runner.main(["planted", "--seed", "7"]), seeds) == (0, [7])


def test_where_no_fault_takes_effect_nothing_is_shown(monkeypatch: pytest.MonkeyPatch) -> None:
    planted(monkeypatch, lambda seed: TrialResult(False))
    assert runner.main(["planted"]) == 1


def test_an_interrupt_tells_what_was_done(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    def trial(seed: int) -> TrialResult:
        if seed == 4:
            raise KeyboardInterrupt
        return TrialResult(True)

    planted(monkeypatch, trial)
    assert runner.main(["planted", "--json"]) == runner.STOPPED
    assert json.loads(capsys.readouterr().out)["trials"] == 3


def test_a_trial_that_falls_or_dies_is_a_violation(monkeypatch: pytest.MonkeyPatch) -> None:
    planted(monkeypatch, lambda seed: 1 / 0, count=1)
    assert "ZeroDivisionError" in runner.run("planted", runner.Wanted(count=1)).told[0]
    assert "died" in isolated(die, 1).violations[0]


def die(seed: int) -> TrialResult:
    import os

    os._exit(seed)
