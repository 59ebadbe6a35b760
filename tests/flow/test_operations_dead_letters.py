"""Dead letters and what else is held: listed, shown, redriven, discarded; by rows, and through whole services."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from pathlib import Path

import msgspec
import pytest

from headwater import App, Conflict, NotFound, Recorded, SchemaError
from headwater.adapters.memory import MemoryDatabase
from headwater.adapters.sqlite import SqliteDatabase
from headwater.channel import Publication
from headwater.database import Database, WriteSet
from headwater.inbox import Held, Mark, Reason, Release, Step
from headwater.operations import (
    Effect,
    NotPossible,
    discard,
    discard_all,
    find_held,
    id_of,
    list_held,
    place_of,
    redrive,
    redrive_all,
    show_held,
)
from headwater.testing.clock import VirtualClock
from headwater.testing.harness import Harness
from tests.flow.test_operations_app import Open, Withdraw, World, in_harness

CONSUMER = "mail.receipt"
STREAM = "bank.Account/a"


def held(version: int, reason: Reason, *, stream: str = STREAM, previous: int = -1, raw: bool = False) -> Held:
    before = version - 1 if previous < 0 else previous
    message = Recorded(
        version, stream, version, "event", f"m{version}", "bank.Withdrawn", 1, 0, 1, before, b'{"cents":1}', b"{}"
    )
    cause = "" if reason in (Reason.BEHIND, Reason.GAP) else "ValueError: no"
    return Held(
        CONSUMER, stream, message, reason, attempts=8, crashes=1, cause=cause, fingerprint="f1", since=1, raw=raw
    )


Test = Callable[[Database, VirtualClock], Awaitable[None]]


@pytest.fixture(params=["memory", "sqlite"])
def run(request: pytest.FixtureRequest, tmp_path: Path) -> Callable[[Test], None]:
    @asynccontextmanager
    async def opened(clock: VirtualClock) -> AsyncIterator[Database]:
        database = MemoryDatabase(clock) if request.param == "memory" else SqliteDatabase(tmp_path / "a.db", clock)
        await database.open()
        try:
            yield database
        finally:
            await database.close()

    async def main(test: Test) -> None:
        clock = VirtualClock()
        async with opened(clock) as database:
            await test(database, clock)

    return lambda test: asyncio.run(main(test))


async def put(database: Database, *rows: Held, marks: Sequence[Mark] = (), steps: Sequence[Step] = ()) -> None:
    await database.commit([WriteSet(holds=rows, marks=marks, steps=steps)])


async def reasons(database: Database) -> dict[int, str]:
    return {one.message.version: one.reason.value for one in await database.held_list(None, list(Reason), 100)}


# --- ids ---


@pytest.mark.parametrize(
    ("stream", "printed"),
    [
        ("bank.Account/a", "mail.receipt:bank.Account/a@3"),
        ("acme:bank.Account/a@b:c", "mail.receipt:acme:bank.Account/a@b:c@3"),
        ("bank.Account/50% of\nit", "mail.receipt:bank.Account/50%25%20of%0Ait@3"),
        ("bank.Account/Ærø\u202e", "mail.receipt:bank.Account/Ærø%E2%80%AE@3"),
    ],
)
def test_an_id_is_printable_and_leads_back(stream: str, printed: str) -> None:
    assert id_of(held(3, Reason.DEAD, stream=stream)) == printed
    assert place_of(printed) == (CONSUMER, stream, 3)


@pytest.mark.parametrize("text", ["", "x", "mail.receipt:bank.Account/a", "mail.receipt:@3", ":a@3", "c:a@x"])
def test_what_is_no_id_is_refused(text: str) -> None:
    with pytest.raises(SchemaError, match="consumer:stream@version"):
        place_of(text)


# --- list and show ---


def test_lists_dead_and_uncertain_unless_asked_for_more(run: Callable[[Test], None]) -> None:
    async def test(database: Database, clock: VirtualClock) -> None:
        other = msgspec.structs.replace(held(9, Reason.DEAD, stream="bank.Account/z"), fingerprint="f2")
        await put(
            database, held(1, Reason.DEAD), held(2, Reason.BEHIND), held(1, Reason.UNCERTAIN, stream="x.Y/1"), other
        )
        assert len(await list_held(database)) == 3
        assert len(await list_held(database, reasons=list(Reason))) == 4
        assert await list_held(database, consumer="nobody") == []
        assert await list_held(database, fingerprint="f2") == [other]
        assert len(await list_held(database, limit=1)) == 1

    run(test)


def test_shows_cause_history_effects_and_payload(run: Callable[[Test], None]) -> None:
    async def test(database: Database, clock: VirtualClock) -> None:
        row = msgspec.structs.replace(held(1, Reason.UNCERTAIN), history=["then: it failed"])
        done = Step(CONSUMER, "m1", "fee", done=True, outcome=b'{"receipt":7}')
        await put(database, row, held(2, Reason.BEHIND), steps=[done, Step(CONSUMER, "m1", "post")])
        found = await show_held(database, id_of(row))
        assert (found.cause, found.history, found.behind) == ("ValueError: no", ["then: it failed"], 1)
        assert found.data == {"cents": 1}
        assert found.steps == [
            {"name": "fee", "done": True, "outcome": {"receipt": 7}},
            {"name": "post", "done": False, "outcome": None},
        ]
        assert "--not-done" in found.advice
        second = await show_held(database, f"{CONSUMER}:{STREAM}@2")
        assert (second.first, second.behind) == (id_of(row), 0)
        with pytest.raises(NotFound, match="dead-letters list"):
            await show_held(database, f"{CONSUMER}:{STREAM}@3")

    run(test)


# --- redrive ---


def test_redrive_frees_the_head_and_counts_anew(run: Callable[[Test], None]) -> None:
    async def test(database: Database, clock: VirtualClock) -> None:
        dead = held(1, Reason.DEAD)
        await put(database, dead, held(2, Reason.BEHIND))
        again = await redrive(database, clock, id_of(dead))
        assert again == await find_held(database, id_of(dead))
        assert (again.reason, again.due, again.attempts, again.crashes) == (Reason.RETRY, clock.now(), 0, 0)
        assert again.history[-1].endswith("redriven")
        assert await database.held_due(CONSUMER, clock.now(), 10) == [again]
        assert await reasons(database) == {1: "retry", 2: "behind"}

    run(test)


@pytest.mark.parametrize(
    ("row", "said"),
    [
        (held(2, Reason.BEHIND), "redrive that one"),
        (held(2, Reason.GAP), "has not come"),
        (held(2, Reason.UNCERTAIN), "--not-done"),
        (held(2, Reason.DEAD, raw=True), "only be shown or discarded"),
    ],
)
def test_redrive_explains_what_it_cannot_do(run: Callable[[Test], None], row: Held, said: str) -> None:
    async def test(database: Database, clock: VirtualClock) -> None:
        await put(database, row)
        with pytest.raises(NotPossible, match=said):
            await redrive(database, clock, id_of(row))
        assert await find_held(database, id_of(row)) == row

    run(test)


def test_redrive_all_leaves_what_a_person_must_look_at(run: Callable[[Test], None]) -> None:
    async def test(database: Database, clock: VirtualClock) -> None:
        rows = [held(1, Reason.DEAD, stream=f"bank.Account/{number}") for number in range(450)]
        uncertain, malformed = held(1, Reason.UNCERTAIN, stream="x.Y/1"), held(1, Reason.DEAD, stream="?t/0", raw=True)
        await put(database, *rows, uncertain, malformed)
        outcome = await redrive_all(database, clock, consumer=CONSUMER)
        assert len(outcome.changed) == 450
        assert set(outcome.left) == {id_of(uncertain), id_of(malformed)}
        assert len(await list_held(database, reasons=[Reason.RETRY])) == 450
        assert (await redrive_all(database, clock, fingerprint="other")).changed == []

    run(test)


def test_an_uncertain_effect_is_settled_together_with_the_redrive(run: Callable[[Test], None]) -> None:
    async def test(database: Database, clock: VirtualClock) -> None:
        rows = [held(version, Reason.UNCERTAIN, stream=f"x.Y/{version}") for version in (1, 2)]
        await put(database, *rows, steps=[Step(CONSUMER, f"m{version}", "fee") for version in (1, 2)])
        await redrive(database, clock, id_of(rows[0]), Effect(done=True, outcome=b'{"id": 7}'))
        await redrive(database, clock, id_of(rows[1]), Effect(done=False))
        assert await database.steps(CONSUMER, "m1") == [Step(CONSUMER, "m1", "fee", True, b'{"id":7}')]
        assert await database.steps(CONSUMER, "m2") == []
        assert set((await reasons(database)).values()) == {"retry"}
        assert (await find_held(database, id_of(rows[0]))).history[-1].endswith("redriven as done")

    run(test)


def test_an_uncertain_effect_that_has_become_known_needs_nobody_to_say_so(run: Callable[[Test], None]) -> None:
    async def test(database: Database, clock: VirtualClock) -> None:
        row, done = held(1, Reason.UNCERTAIN), Step(CONSUMER, "m1", "fee", True, b"7")
        await put(database, row, steps=[done])
        await redrive(database, clock, id_of(row))
        assert (await database.steps(CONSUMER, "m1"), await reasons(database)) == ([done], {1: "retry"})

    run(test)


def test_of_several_open_effects_one_is_named(run: Callable[[Test], None]) -> None:
    async def test(database: Database, clock: VirtualClock) -> None:
        row = held(1, Reason.UNCERTAIN)
        await put(database, row, steps=[Step(CONSUMER, "m1", "fee"), Step(CONSUMER, "m1", "post")])
        for effect, said in ((Effect(done=True), "fee, post"), (Effect(done=False, name="tax"), "open are: fee, post")):
            with pytest.raises(NotPossible, match=said):
                await redrive(database, clock, id_of(row), effect)
        with pytest.raises(SchemaError):
            await redrive(database, clock, id_of(row), Effect(done=True, outcome=b"{", name="fee"))
        assert await find_held(database, id_of(row)) == row
        await redrive(database, clock, id_of(row), Effect(done=False, name="post"))
        assert [step.name for step in await database.steps(CONSUMER, "m1")] == ["fee"]

    run(test)


def test_an_effect_is_said_only_of_what_is_uncertain(run: Callable[[Test], None]) -> None:
    async def test(database: Database, clock: VirtualClock) -> None:
        row = held(1, Reason.DEAD)
        await put(database, row)
        with pytest.raises(NotPossible, match="not uncertain"):
            await redrive(database, clock, id_of(row), Effect(done=False))

    run(test)


def test_a_message_that_is_settled_meanwhile_does_not_come_back(run: Callable[[Test], None]) -> None:
    async def test(database: Database, clock: VirtualClock) -> None:
        row = held(1, Reason.RETRY)
        await put(database, row)

        class Late:
            """The consumer settles the message between the operator's look and the operator's write."""

            def __getattr__(self, name: str) -> object:
                return getattr(database, name)

            async def commit(self, writes: Sequence[WriteSet]) -> object:
                await database.commit([WriteSet(releases=[Release(CONSUMER, STREAM, 1)])])
                return await database.commit(writes)

        for change in (redrive(Late(), clock, id_of(row)), discard(Late(), id_of(row))):  # type: ignore[arg-type]
            await put(database, row)
            with pytest.raises(Conflict, match="look again"):
                await change
            assert await reasons(database) == {}

    run(test)


# --- discard ---


def test_discard_frees_what_is_behind(run: Callable[[Test], None]) -> None:
    async def test(database: Database, clock: VirtualClock) -> None:
        dead, behind = held(1, Reason.DEAD), held(2, Reason.BEHIND)
        await put(database, dead, behind, marks=[Mark(CONSUMER, STREAM, 2, 0)])
        assert await discard(database, id_of(dead)) == dead
        assert await database.held_due(CONSUMER, clock.now(), 10) == [behind]
        assert await database.marks(CONSUMER, [STREAM]) == {STREAM: 2}

    run(test)


def test_discard_after_a_gap_gives_up_what_is_missing_too(run: Callable[[Test], None]) -> None:
    async def test(database: Database, clock: VirtualClock) -> None:
        first, second, third = held(4, Reason.GAP), held(5, Reason.GAP), held(8, Reason.GAP)
        await put(database, first, second, third, marks=[Mark(CONSUMER, STREAM, 2, 0)])
        assert await database.held_due(CONSUMER, clock.now(), 10) == []
        with pytest.raises(NotPossible, match=r"discard .*@4 before it"):
            await discard(database, id_of(second))
        await discard(database, id_of(first))
        assert await database.marks(CONSUMER, [STREAM]) == {STREAM: 4}
        assert await database.held_due(CONSUMER, clock.now(), 10) == [second]
        with pytest.raises(Conflict, match="has come"):
            await discard(database, id_of(second))

    run(test)


def test_discard_of_an_uncertain_one_closes_its_effects(run: Callable[[Test], None]) -> None:
    async def test(database: Database, clock: VirtualClock) -> None:
        row = held(1, Reason.UNCERTAIN)
        done = Step(CONSUMER, "m1", "fee", done=True, outcome=b"1")
        await put(database, row, steps=[done, Step(CONSUMER, "m1", "post")])
        await discard(database, id_of(row))
        assert await database.steps(CONSUMER, "m1") == [done]
        assert await database.steps(None, None) == []

    run(test)


def test_discard_all_takes_dead_letters_only(run: Callable[[Test], None]) -> None:
    async def test(database: Database, clock: VirtualClock) -> None:
        uncertain = held(1, Reason.UNCERTAIN, stream="x.Y/1")
        await put(
            database,
            held(1, Reason.DEAD),
            held(2, Reason.BEHIND),
            uncertain,
            held(3, Reason.DEAD, stream="?t/0", raw=True),
        )
        outcome = await discard_all(database, consumer=CONSUMER)
        assert (len(outcome.changed), list(outcome.left)) == (2, [id_of(uncertain)])
        assert await reasons(database) == {1: "uncertain", 2: "behind"}

    run(test)


# --- through a whole service ---


def test_after_the_handler_is_mended_redrive_brings_everything_in_order() -> None:
    world = World()

    async def test(harness: Harness, app: App) -> None:
        world.failing = {"bad"}
        for cents in (1, 2, 3):
            await app.send(Withdraw("bad", cents))
            await app.send(Withdraw("good", cents))
        await harness.settle()
        database = harness.databases["bank"]
        assert world.handled == [("good", 1), ("good", 2), ("good", 3)]
        [dead] = await list_held(database)
        assert id_of(dead) == "bank.receipt:bank.Account/bad@1"
        assert "no receipt for bad" in dead.cause
        world.failing.clear()
        await redrive_all(database, harness.clock, consumer="bank.receipt")
        await harness.settle()
        assert world.handled[3:] == [("bad", 1), ("bad", 2), ("bad", 3)]
        assert await list_held(database, reasons=list(Reason)) == []

    in_harness(test, world)


def test_after_a_discard_the_rest_of_the_key_runs() -> None:
    world = World()

    async def test(harness: Harness, app: App) -> None:
        world.failing = {"bad"}
        await app.send(Withdraw("bad", 1))
        await app.send(Withdraw("bad", 2))
        await harness.settle()
        world.failing.clear()
        await discard(harness.databases["bank"], "bank.receipt:bank.Account/bad@1")
        await harness.settle()
        assert world.handled == [("bad", 2)]

    in_harness(test, world)


@pytest.mark.parametrize("done", [True, False])
def test_an_uncertain_effect_is_not_repeated_unless_a_person_says_so(done: bool) -> None:
    world = World()

    async def test(harness: Harness, app: App) -> None:
        world.uncertain = True
        await app.send(Open("a"))
        await harness.advance(minutes=10)
        assert world.charged == ["a"]
        database = harness.databases["bank"]
        [row] = await list_held(database)
        assert row.reason is Reason.UNCERTAIN
        world.uncertain = False
        await redrive(database, harness.clock, id_of(row), Effect(done=done, outcome=b'"by hand"'))
        await harness.settle()
        assert world.charged == (["a"] if done else ["a", "a"])
        assert world.handled == [("by hand" if done else "receipt 7", 0)]
        assert await list_held(database, reasons=list(Reason)) == []

    in_harness(test, world)


def test_bytes_that_are_no_message_are_kept_raw_until_discarded() -> None:
    async def test(harness: Harness, app: App) -> None:
        await harness.channel.publish([Publication("bank.commands", "k", {"type": "nonsense"}, b"\xff{\x1b[2J")])
        headers = {
            "specversion": "1.0", "id": "1", "source": "x", "type": "bank.Withdraw", "subject": "x.y>bank/1",
            "time": "2026-01-01T00:00:00Z", "kind": "command", "streamversion": "1",
        }  # fmt: skip
        await harness.channel.publish([Publication("bank.commands", "x.y>bank/1", headers, b"{not json")])
        await harness.settle()
        database = harness.databases["bank"]
        malformed, undecodable = await list_held(database)
        assert (malformed.consumer, malformed.raw) == ("bank.channel", True)
        assert (undecodable.consumer, undecodable.raw) == ("bank.commands", False)
        found = await show_held(database, id_of(malformed))
        assert (found.data, found.headers) == ("\\xff{\x1b[2J", {"type": "nonsense"})
        assert "cannot be redriven" in found.advice
        assert (await show_held(database, id_of(undecodable))).data == "{not json"
        outcome = await redrive_all(database, harness.clock)
        assert (outcome.changed, list(outcome.left)) == ([id_of(undecodable)], [id_of(malformed)])
        await harness.settle()
        assert len((await discard_all(database)).changed) == 2
        assert await list_held(database, reasons=list(Reason)) == []

    in_harness(test)


@pytest.mark.parametrize("mended", [True, False])
def test_what_the_channel_refused_is_redriven_or_discarded_at_the_relay(mended: bool) -> None:
    async def test(harness: Harness, app: App) -> None:
        publish, refusing = harness.channel.publish, {"bank.Account/bad"}
        published: list[tuple[str, str]] = []

        async def picky(publications: Sequence[Publication], **options: int) -> dict[int, str]:
            refused = {index: "too odd" for index, one in enumerate(publications) if one.key in refusing}
            taken = [one for one in publications if one.key not in refusing]
            published.extend((one.key, one.headers["streamversion"]) for one in taken)
            await publish(taken, **options)  # type: ignore[arg-type]
            return refused

        harness.channel.publish = picky  # type: ignore[assignment, method-assign]
        for cents in (1, 2):
            await app.send(Withdraw("bad", cents))
            await app.send(Withdraw("good", cents))
        await harness.settle()
        await app.send(Withdraw("bad", 3))
        await harness.settle()
        assert published == [("bank.Account/good", "1"), ("bank.Account/good", "2")]
        database = harness.databases["bank"]
        rows = await list_held(database, consumer="bank.relay")
        assert {one.cause for one in rows} == {"too odd"}
        refusing.clear()
        if mended:
            await redrive_all(database, harness.clock, consumer="bank.relay")
        else:
            await discard_all(database, consumer="bank.relay")
        await harness.settle()
        wanted = ("1", "2", "3") if mended else ("3",)
        assert published[2:] == [("bank.Account/bad", version) for version in wanted]
        assert await list_held(database, reasons=list(Reason)) == []

    in_harness(test)
