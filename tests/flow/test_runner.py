"""The app as it runs: under the real clock, in a loop of its own, alone or as one of several members."""

from __future__ import annotations

import asyncio
import itertools
import logging
from collections.abc import Callable
from typing import Any

import msgspec
import pytest

from headwater import (
    App,
    ChannelError,
    ConfigurationError,
    DeclarationError,
    Event,
    ReadModel,
    Stale,
    Transaction,
    evolve,
)
from headwater.adapters.memory import MemoryChannel, MemoryDatabase
from headwater.app import Runner
from headwater.app.wiring import Wired
from headwater.clock import SystemClock
from headwater.consumer.feed import RUNNING
from headwater.relay import Relay
from headwater.scheduler import Scheduler
from headwater.testing.clock import VirtualClock
from tests.flow.rig import played, publication
from tests.flow.shop import Bump, Bumped, Counter, Noted, Tally, shop

names = itertools.count()


@pytest.fixture
def place() -> str:
    """A name for stores and channels that no other test has."""
    return f"runner-{next(names)}"


async def until(condition: Callable[[], bool], seconds: float = 5.0) -> None:
    loop = asyncio.get_running_loop()
    end = loop.time() + seconds
    while not condition():
        assert loop.time() < end, "it never came"
        await asyncio.sleep(0.005)


def mail(place: str, seen: list[tuple[str, int]], **options: Any) -> App:
    app = App("mail", store=f"memory://{place}-mail", channel=f"memory://{place}", **options)
    app.add(Tally)

    @app.on(Bumped)
    async def note(event: Bumped) -> Noted:
        seen.append((event.key, event.n))
        return Noted(event.key, event.n)

    return app


def producer(place: str) -> App:
    return shop(store=f"memory://{place}-shop", channel=f"memory://{place}")


@played
async def test_it_runs_and_stops_quickly_and_leaves_nothing_behind(place):
    seen: list[tuple[str, int]] = []
    loop = asyncio.get_running_loop()
    before = asyncio.all_tasks()
    async with producer(place) as one, mail(place, seen) as two:
        answer = await one.send(Bump("a"))
        await until(lambda: seen == [("a", 1)])
        assert answer.version == 1
        began = loop.time()
        assert two.wiring
    assert loop.time() - began < 1.5
    await asyncio.sleep(0.05)
    assert asyncio.all_tasks() == before
    with pytest.raises(ConfigurationError, match="is not running: use `async with app:`"):
        await one.send(Bump("a"))


@played
async def test_it_starts_again_where_it_was(place):
    seen: list[tuple[str, int]] = []
    one, two = producer(place), mail(place, seen)
    keep = [MemoryDatabase.from_url(f"memory://{place}-{name}", SystemClock()) for name in ("shop", "mail")]
    broker = MemoryChannel.from_url(f"memory://{place}", SystemClock())
    for n in (1, 2, 3):
        async with one, two:
            await one.send(Bump("a"))
            await until(lambda n=n: len(seen) == n)
    assert seen == [("a", 1), ("a", 2), ("a", 3)]
    assert keep
    assert broker


@played
async def test_a_client_sends_and_reads_and_runs_nothing(place):
    async with producer(place).client() as one:
        await one.send(Bump("a"))
        assert (await one.load(Counter, "a")).n == 1
        assert not [task for task in asyncio.all_tasks() if task.get_name() == "relay"]


@played
async def test_it_cannot_be_started_twice_or_declared_late(place):
    async with producer(place) as one:
        with pytest.raises(ConfigurationError, match="is running already"):
            await one.start()
        with pytest.raises(DeclarationError, match="declare everything before it starts"):
            one.add(Tally)
        with pytest.raises(DeclarationError, match="declare everything before it starts"):
            one.on(Bumped)(lambda event: None)


@played
async def test_a_wrong_declaration_lets_go_of_the_store(place, monkeypatch):
    closed: list[bool] = []
    close = MemoryDatabase.close

    async def note(self: MemoryDatabase) -> None:
        closed.append(True)
        await close(self)

    monkeypatch.setattr(MemoryDatabase, "close", note)
    app = App("mail", store=f"memory://{place}", channel=f"memory://{place}")

    @app.on(Bumped)
    async def wrong(event: Bumped, transaction: Transaction) -> None:
        return

    with pytest.raises(DeclarationError, match="asks for a transaction, and this store has no SQL; use sqlite"):
        await app.start()
    assert closed == [True]
    await app.stop()


@played
async def test_a_channel_that_cannot_be_used_lets_go_of_everything(place, monkeypatch):
    async def fail(self: MemoryChannel) -> None:
        raise ConfigurationError("no such broker")

    monkeypatch.setattr(MemoryChannel, "open", fail)
    app = producer(place)
    with pytest.raises(ConfigurationError):
        async with app:
            raise AssertionError("it must not run")
    monkeypatch.undo()
    async with app:
        await app.send(Bump("a"))


@pytest.mark.parametrize("fails", ["open", "examine", "subscribe"])
@played
async def test_a_service_works_while_its_channel_is_away_and_joins_it_once_it_is_there(
    place, monkeypatch, caplog, fails
):
    caplog.set_level(logging.INFO, "headwater")
    seen: list[tuple[str, int]] = []

    async def away(*_: Any) -> Any:
        raise ChannelError("the broker is away")

    app = producer(place)
    app.add(Quiet)
    with monkeypatch.context() as patched:
        patched.setattr(MemoryChannel, fails, away)
        await app.start()
        answer = await app.send(Bump("a"))
        assert (await app.get(Quiet, "a", after=answer)).n == 1
        await until(lambda: bool([one for one in caplog.records if one.getMessage() == "channel.away"]))
    async with mail(place, seen):
        await until(lambda: seen == [("a", 1)])
    await app.stop()
    assert [one.getMessage() for one in caplog.records].count("channel.joined") == 1


@played
async def test_a_service_stops_at_once_while_its_channel_is_away(place, monkeypatch):
    async def away(*_: Any) -> Any:
        raise ChannelError("the broker is away")

    monkeypatch.setattr(MemoryChannel, "open", away)
    app = producer(place)
    await app.start()
    before = asyncio.get_running_loop().time()
    await app.stop()
    assert asyncio.get_running_loop().time() - before < 1.0


@played
async def test_flow_errors_back_off_and_go_on_and_are_told_of_once(place, monkeypatch, caplog):
    caplog.set_level(logging.ERROR, "headwater")
    publish = MemoryChannel.publish
    tries: list[float] = []

    async def fail(self: MemoryChannel, publications: Any, **options: Any) -> Any:
        if not publications:
            return await publish(self, publications, **options)
        tries.append(asyncio.get_running_loop().time())
        if len(tries) < 4:
            raise ChannelError("down")
        return await publish(self, publications, **options)

    monkeypatch.setattr(MemoryChannel, "publish", fail)
    seen: list[tuple[str, int]] = []
    async with producer(place) as one, mail(place, seen):
        await one.send(Bump("a"))
        await until(lambda: seen == [("a", 1)])
    waits = [later - earlier for earlier, later in itertools.pairwise(tries[:4])]
    assert waits[0] >= 0.04
    assert waits[2] > waits[0]
    failed = [record.fields for record in caplog.records if record.getMessage() == "flow.failed"]
    assert [(one["flow"], one["error"], one["cause"]) for one in failed] == [("relay", "ChannelError", "down")]


@played
async def test_an_unexpected_error_says_where_and_the_flow_goes_on(place, monkeypatch, caplog):
    caplog.set_level(logging.ERROR, "headwater")
    due = MemoryDatabase.timers_due
    broken = [True]

    async def fail(self: MemoryDatabase, now: int, limit: int) -> Any:
        if broken:
            broken.pop()
            raise ZeroDivisionError
        return await due(self, now, limit)

    monkeypatch.setattr(MemoryDatabase, "timers_due", fail)
    async with producer(place):
        await until(lambda: not broken)
        await asyncio.sleep(0.05)
    [failed] = [record.fields for record in caplog.records if record.getMessage() == "flow.failed"]
    assert failed["flow"] == "scheduler"
    assert "fail" in failed["where"]
    assert failed["cause"] == ""


@played
async def test_a_lease_that_is_lost_in_the_middle_of_a_step_is_no_failure_and_is_taken_again(
    place, monkeypatch, caplog
):
    caplog.set_level(logging.WARNING, "headwater")
    relay, lost = Relay._relay, []
    seen: list[tuple[str, int]] = []
    async with producer(place) as one, mail(place, seen):

        async def lose(self: Relay, recorded: Any) -> None:
            lease = one._runner._leases["relay"]
            if self.service == one.name and not lost:
                lost.append(lease.epoch)
                await lease.release()
            await relay(self, recorded)

        monkeypatch.setattr(Relay, "_relay", lose)
        await one.send(Bump("a"))
        await until(lambda: seen == [("a", 1)])
        assert one._runner._leases["relay"].epoch > lost[0]
    told = [(record.getMessage(), record.fields["lease"]) for record in caplog.records]
    assert told == [("lease.lost", "relay")]


def quick_leases(monkeypatch: pytest.MonkeyPatch, ttl: float = 0.3) -> None:
    acquire = MemoryDatabase.acquire

    async def quick(self: MemoryDatabase, name: str, owner: str, _: float = 10.0) -> Any:
        return await acquire(self, name, owner, ttl)

    monkeypatch.setattr(MemoryDatabase, "acquire", quick)
    monkeypatch.setattr("headwater.app.runner.FOLLOW", 0.05)


async def die(app: App) -> None:
    """As a killed process does: nothing is finished or given back, but the broker sees that it is gone."""
    runner, wiring = app._runner, app._wiring
    app._runner = app._wiring = None
    assert runner is not None
    assert wiring is not None
    wiring.database.crash()
    for task in runner._tasks:
        task.cancel()
    await asyncio.gather(*runner._tasks, return_exceptions=True)
    await wiring.leave()


@played
async def test_two_members_share_the_work_and_when_one_dies_the_other_goes_on(place, monkeypatch):
    quick_leases(monkeypatch)
    first_seen: list[tuple[str, int]] = []
    second_seen: list[tuple[str, int]] = []
    first, second = mail(place, first_seen, batch=2), mail(place, second_seen, batch=2)
    keys = [f"k{n}" for n in range(24)]
    async with producer(place) as one:
        await first.start()
        await second.start()
        assert (first._runner.member, second._runner.member) == ("member-1", "member-2")
        for key in keys:
            await one.send(Bump(key))
        await until(lambda: len(first_seen) + len(second_seen) >= 24)
        assert first_seen
        assert second_seen
        await die(first)
        for key in keys:
            await one.send(Bump(key))
        await until(lambda: len(set(first_seen + second_seen)) == 48)
        async with asyncio.timeout(5):  # the read model is a consumer of its own
            while sum(row.numbers == [1, 2] for row in await second.find(Tally)) < 24:
                await asyncio.sleep(0.005)
        for key in keys[:3]:
            assert [n for seen_key, n in first_seen + second_seen if seen_key == key] == [1, 2]
        noted = 0
        while noted < 48:  # what the last handlers returned is committed a moment after they ran
            log = await second.wiring.database.read(0, 1000)
            noted = sum(one.type == "mail.Noted" for one in log)
            await asyncio.sleep(0.01)
        assert noted == 48
        third = mail(place, first_seen)
        await asyncio.sleep(0.35)
        await third.start()
        assert third._runner.member == "member-1", "the seat of the dead is free again"
        await third.stop()
        await second.stop()


@played
async def test_a_member_that_stops_gives_its_leases_up_at_once(place, monkeypatch):
    monkeypatch.setattr("headwater.app.runner.FOLLOW", 0.05)
    seen: list[tuple[str, int]] = []
    first, second = producer(place), producer(place)
    async with mail(place, seen):
        await first.start()
        await second.start()
        assert "relay" in first._runner._leases
        assert "relay" not in second._runner._leases
        await first.send(Bump("a"))
        await until(lambda: seen == [("a", 1)])
        await first.stop()
        await second.send(Bump("a"))
        await until(lambda: seen == [("a", 1), ("a", 2)], 2.0)
        await second.stop()


@played
async def test_a_member_that_has_lost_its_lease_writes_nothing_under_it(place, monkeypatch):
    monkeypatch.setattr("headwater.app.runner.FOLLOW", 0.05)
    app = producer(place)
    calls: list[int] = []
    go = asyncio.Event()

    @app.on(Bumped, name="own")
    async def own(event: Bumped) -> Noted:
        calls.append(event.n)
        if len(calls) == 1:
            await go.wait()
        return Noted(event.key, event.n)

    async with app:
        await app.send(Bump("a"))
        await until(lambda: calls == [1])
        database = app.wiring.database
        thief = MemoryDatabase(SystemClock(), database.file)
        await thief.open()
        row = thief._leases.row("shop.own")
        thief._leases.write("shop.own", ("", row[1], 0))
        lease = await thief.acquire("shop.own", "thief", 0.5)
        assert lease is not None
        go.set()
        await asyncio.sleep(0.2)
        assert await database.checkpoint("shop.own") == 0
        assert not [one for one in await database.read(0, 100) if one.type == "shop.Noted"]
        await lease.release()
        await until(lambda: len(calls) == 2)
        await asyncio.sleep(0.05)
        assert len([one for one in await database.read(0, 100) if one.type == "shop.Noted"]) == 1
        await thief.close()


@played
async def test_a_flow_begins_anew_whenever_its_lease_was_in_other_hands(place, monkeypatch):
    monkeypatch.setattr("headwater.app.runner.FOLLOW", 0.02)
    begun: list[int] = []
    begin = Scheduler.begin

    async def count(self: Scheduler) -> None:
        begun.append(1)
        await begin(self)

    monkeypatch.setattr(Scheduler, "begin", count)
    async with producer(place) as app:
        await until(lambda: len(begun) == 1)
        thief = MemoryDatabase(SystemClock(), app.wiring.database.file)
        await thief.open()
        thief._leases.write("scheduler", ("", thief._leases.row("scheduler")[1], 0))
        lease = await thief.acquire("scheduler", "thief", 5.0)
        assert lease is not None
        await asyncio.sleep(0.3)
        assert len(begun) == 1
        await lease.release()
        await until(lambda: len(begun) == 2)
        await thief.close()


@played
async def test_what_was_in_hand_when_a_member_died_is_found_by_the_one_that_takes_its_seat(place, monkeypatch):
    quick_leases(monkeypatch)
    calls: list[tuple[int, str]] = []

    def member(name: str) -> App:
        app = App("mail", store=f"memory://{place}-mail", channel=f"memory://{place}")

        @app.on(Bumped)
        async def stuck(event: Bumped) -> None:
            calls.append((event.n, name))
            if name == "first":
                await asyncio.sleep(60)

        return app

    channel = MemoryChannel.from_url(f"memory://{place}", SystemClock())
    await channel.open()
    first, second = member("first"), member("second")
    await first.start()
    await channel.publish([publication("shop.Counter/a", n, "shop.Bumped", Bumped("a", n)) for n in (1, 2)])
    await until(lambda: calls == [(1, "first")])
    file = first.wiring.database.file
    await die(first)
    assert file.tables["notes"]["mail.channel/member-1"] == [(RUNNING, 16)]
    await asyncio.sleep(0.35)
    await second.start()
    await until(lambda: calls == [(1, "first"), (1, "second"), (2, "second")])
    await second.stop()
    assert file.tables["notes"]["mail.channel/member-1"] == []


@played
async def test_a_handler_that_will_not_end_is_left_behind_and_its_message_comes_again(place, monkeypatch):
    monkeypatch.setattr("headwater.app.runner.GRACE", 0.1)
    calls: list[int] = []
    app = App("mail", store=f"memory://{place}-mail", channel=f"memory://{place}")

    @app.on(Bumped)
    async def slow(event: Bumped) -> None:
        calls.append(event.n)
        if len(calls) == 1:
            await asyncio.sleep(60)

    keep = MemoryDatabase.from_url(f"memory://{place}-mail", SystemClock())
    channel = MemoryChannel.from_url(f"memory://{place}", SystemClock())
    await channel.open()
    async with app:
        await channel.publish([publication("shop.Counter/a", 1, "shop.Bumped", Bumped("a", 1))])
        await until(lambda: calls == [1])
    async with app:
        await until(lambda: calls == [1, 1])
    assert keep


@played
async def test_retries_and_timers_run_by_the_real_clock_too(place):
    from headwater import After, Retry

    class Ring(Event):
        key: str

    app = App("mail", store=f"memory://{place}-mail", channel=f"memory://{place}", retry=Retry(base=0.02))
    calls: list[str] = []

    async def take(event: Any) -> list[object]:
        calls.append(type(event).__name__)
        if calls == ["Bumped"]:
            raise RuntimeError("once")
        return [After(Ring(event.key), seconds=0.05)] if isinstance(event, Bumped) else []

    app.on(Bumped, Ring, name="take")(take)
    channel = MemoryChannel.from_url(f"memory://{place}", SystemClock())
    await channel.open()
    async with app:
        await channel.publish([publication("shop.Counter/a", 1, "shop.Bumped", Bumped("a", 1))])
        await until(lambda: calls == ["Bumped", "Bumped", "Ring"], 2.0)


@played
async def test_a_member_with_a_name_keeps_it(place):
    app = producer(place)
    await app.start(member="web-1")
    assert app._runner.member == "web-1"
    assert "member-1" not in app._runner._leases
    await app.stop()


@played
async def test_the_runner_that_fails_to_start_gives_its_seat_up(place, monkeypatch):
    async def fail(self: MemoryChannel, *arguments: Any, **options: Any) -> Any:
        raise ConfigurationError("no such broker")

    monkeypatch.setattr(MemoryChannel, "subscribe", fail)
    app = producer(place)
    with pytest.raises(ConfigurationError):
        async with app:
            raise AssertionError("it must not run")
    monkeypatch.undo()
    async with app:
        assert app._runner.member == "member-1"
        assert isinstance(app._runner, Runner)


class Quiet(ReadModel, key="key"):
    n: int = 0

    @evolve
    def bumped(self, event: Bumped) -> None:
        self.n = event.n


@played
async def test_reading_ones_writes_waits_for_the_running_service(place):
    app = producer(place)
    app.add(Quiet)
    async with app:
        for n in range(1, 20):
            answer = await app.send(Bump("a"))
            assert (await app.get(Quiet, "a", after=answer)).n == n


# --- parts of a service, each in a process of its own ---


def with_parts(place: str) -> App:
    app = producer(place)
    app.add(Quiet)
    return app


@played
async def test_a_part_runs_apart_from_the_rest(place):
    rest, part = with_parts(place), with_parts(place)
    await rest.start(without=["quiet"])
    answer = await rest.send(Bump("a"))
    with pytest.raises(Stale):
        await rest.get(Quiet, "a", after=answer, timeout=0.4)
    await part.start(only=["quiet"])
    assert (await rest.get(Quiet, "a", after=answer)).n == 1
    await part.stop()
    await rest.stop()


@played
async def test_a_part_alone_neither_publishes_nor_consumes(place):
    seen: list[tuple[str, int]] = []
    part, rest = with_parts(place), with_parts(place)
    async with mail(place, seen):
        await part.start(only=["quiet"])
        answer = await part.send(Bump("a"))
        assert (await part.get(Quiet, "a", after=answer)).n == 1
        assert seen == []
        await rest.start(without=["quiet"])
        await until(lambda: seen == [("a", 1)])
        await rest.stop()
        await part.stop()


@pytest.mark.parametrize(
    ("parts", "said"),
    [
        ({"only": ["nothing"]}, r"shop has no part 'nothing'; its parts are: commands, quiet"),
        ({"without": ["nothing"]}, r"shop has no part 'nothing'"),
        ({"only": ["quiet"], "without": ["quiet"]}, "--only and --without exclude each other"),
        ({"only": ["commands"]}, r"shop\.commands takes from shop\.commands together with the rest of shop"),
    ],
)
@played
async def test_parts_that_cannot_run_apart_are_refused(place, parts, said):
    app = with_parts(place)
    with pytest.raises(ConfigurationError, match=said):
        await app.start(**parts)
    await app.stop()


class Work:
    """A flow that always has so many messages to do, and takes a while; it notes when it began."""

    def __init__(self, clock: VirtualClock, done: int, takes: float) -> None:
        self.clock = clock
        self.done = done
        self.takes = takes
        self.begun: list[float] = []

    async def begin(self) -> None:
        raise AssertionError("it needs no lease")

    async def step(self) -> int:
        self.begun.append(self.clock.monotonic())
        await self.clock.sleep(self.takes)
        return self.done

    async def wait(self, timeout: float) -> None:
        raise AssertionError("there is always something to do")

    async def end(self) -> None:
        self.begun.append(-1.0)


@pytest.mark.parametrize(
    ("patient", "done", "takes", "every"),
    [
        (True, 3, 0.002, 0.006),
        (True, 3, 0.02, 0.03),
        (True, 500, 0.002, 0.002),
        (False, 3, 0.002, 0.002),
    ],
    ids=["it rests twice as long", "at most 10 ms", "it is behind", "somebody waits for it"],
)
@played
async def test_a_patient_flow_rests_after_a_small_step(patient, done, takes, every):
    clock = VirtualClock()
    app = shop(store="memory://", channel="memory://", clock=clock)
    async with app.client():
        runner, work = Runner(app.wiring), Work(clock, done, takes)
        runner._run([Wired("work", work, "", patient)])
        await clock.run_for(0.3)
        runner._stopping.set()
        await clock.run_for(0.1)
        *begun, ended = work.begun
        assert ended == -1.0
        assert {round(after - before, 6) for before, after in itertools.pairwise(begun)} == {every}


async def patience(app: App, one_writer: bool) -> dict[str, bool]:
    """The flows of an app, and whether each is patient."""
    async with app.client():
        runner, channel = Runner(app.wiring), app.wiring.channel
        channel.capabilities = msgspec.structs.replace(channel.capabilities, one_writer=one_writer)
        await channel.open()
        joined = await app.wiring.join("member-1", runner._fence_of)
        flows = [*joined, *app.wiring.local(runner._fence_of, runner.parts)]
        await app.wiring.leave()
        return {one.name: one.patient for one in flows}


@pytest.mark.parametrize("one_writer", [True, False])
@played
async def test_flows_are_patient_only_where_all_processes_wait_for_one_writer(place, one_writer):
    producer = shop(store="memory://", channel=f"memory://{place}")
    producer.add(Tally)

    @producer.on(Bumped)
    async def note(event: Bumped) -> None:
        raise AssertionError(event)

    found = await patience(producer, one_writer) | await patience(mail(place, []), one_writer)
    assert found["relay"] is found["shop.note/log"] is found["mail.channel"] is one_writer
    assert not found["shop.tally/log"], "people wait for a read model"
