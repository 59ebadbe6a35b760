"""Sagas: an instance is begun, moved on and ended once a message, whatever fails or races."""

from __future__ import annotations

import enum
from collections.abc import Iterator
from datetime import datetime, timezone
from typing import Any

import msgspec
import pytest

from headwater import (
    END,
    After,
    Aggregate,
    App,
    CancelTimer,
    Command,
    Compensate,
    Event,
    Metadata,
    Refused,
    Rejected,
    Retry,
    Saga,
    Undo,
    decide,
    evolve,
    react,
)
from headwater.inbox import Reason
from headwater.testing.harness import Harness
from tests.flow.rig import Killed, failing_commits, log_of, payloads, played, publication, settles


class Begun(Event, service="web", category="trip"):
    trip: str
    to: str = ""


class Booked(Event, service="hotel", category="room"):
    trip: str


class Flown(Event, service="air", category="seat"):
    trip: str


class Note(Event, service="web", category="trip"):
    trip: str
    word: str = ""


class Over(Event, service="web", category="trip"):
    trip: str


class Late(Event):
    trip: str


class Book(Command, service="hotel"):
    trip: str


class Unbook(Command, service="hotel"):
    trip: str


class Fly(Command, service="air"):
    trip: str


class Unfly(Command, service="air"):
    trip: str


class Close(Command, service="travel"):
    trip: str
    why: str


class Closed(Event):
    trip: str
    why: str


class Log(Aggregate, key="trip"):
    @decide
    def close(self, command: Close) -> Closed:
        if command.why == "no":
            raise Rejected("will not")
        return Closed(command.trip, command.why)


class Trip(Saga, key="trip"):
    to: str = ""
    words: list[str] = []
    late: bool = False
    booked: bool = False

    @evolve
    def remember(self, event: Begun) -> None:
        self.to = event.to

    @evolve
    def is_booked(self, event: Booked) -> None:
        self.booked = True

    @react(starts=True)
    def begun(self, event: Begun) -> Iterator[Any]:
        yield Undo(Unbook(event.trip))
        yield Book(event.trip)
        yield After(Late(event.trip), minutes=10)

    @react
    def on_booked(self, event: Booked) -> Iterator[Any]:
        yield CancelTimer(Late)
        yield Undo(Unfly(event.trip))
        yield Fly(event.trip)

    @react
    def flown(self, event: Flown) -> Iterator[Any]:
        yield Close(event.trip, "done")
        yield END

    @react
    def gave_up(self, event: Late) -> Iterator[Any]:
        self.late = True
        yield Compensate()
        yield Close(event.trip, "late")

    @react
    def refused(self, event: Refused) -> Iterator[Any]:
        self.words.append(f"refused: {event.reason}")
        yield Compensate()

    @react
    def note(self, event: Note) -> list[object]:
        self.words.append(event.word)
        if event.word == "bad":
            raise RuntimeError("bad")
        if event.word == "end":
            return [END]
        if event.word == "again":
            return [END, Close(event.trip, "after the end")]
        if event.word == "no":
            return [Close(event.trip, "no")]
        return []


class Travel:
    """The saga's service and a hand on the channel."""

    def __init__(self, **options: Any) -> None:
        self.app = App("travel", retry=Retry(attempts=2, base=0.1), **options)
        self.app.add(Trip, Log)
        self.versions: dict[str, int] = {}

    async def tell(self, world: Harness, *events: Any, tenant: str = "") -> None:
        await world.channel.publish([self.message(event, tenant) for event in events])

    def message(self, event: Any, tenant: str = "") -> Any:
        found = self.app.schema.of(type(event))
        stream = f"{f'{tenant}:' if tenant else ''}{found.service}.{found.category}/{event.trip}"
        self.versions[stream] = self.versions.get(stream, 0) + 1
        extra = {"tenant": tenant} if tenant else {}
        return publication(stream, self.versions[stream], found.name, event, **extra)

    async def sent(self, world: Harness) -> list[Any]:
        decoded = [one for one in await log_of(world, self.app) if one.kind == "command"]
        return [self.app.schema.decode(one.type, 1, one.data) for one in decoded]

    async def state(self, world: Harness, key: str) -> dict[str, Any] | None:
        rows = await world.databases["travel"].sagas("travel.trip", [key])
        if key not in rows:
            return None
        return {**msgspec.json.decode(rows[key].data)["state"], "ended": rows[key].ended, "version": rows[key].expect}


@played
async def test_an_instance_is_begun_moved_on_and_ended():
    travel = Travel()
    async with Harness(travel.app) as world:
        await travel.tell(world, Begun("t", "Rome"))
        await world.settle()
        assert await travel.sent(world) == [Book("t")]
        await travel.tell(world, Booked("t"))
        await world.settle()
        await travel.tell(world, Flown("t"))
        await world.settle()
        assert await travel.sent(world) == [Book("t"), Fly("t"), Close("t", "done")]
        assert await payloads(world, travel.app, Closed) == [Closed("t", "done")]
        state = await travel.state(world, "t")
        assert state is not None
        assert (state["to"], state["booked"], state["ended"]) == ("Rome", True, True)


@pytest.mark.parametrize("batch", [1, 50])
@played
async def test_a_whole_life_in_one_batch_is_the_same_as_step_by_step(batch):
    travel = Travel(batch=batch)
    async with Harness(travel.app) as world:
        await travel.tell(
            world, Begun("t"), Begun("u"), Booked("t"), Note("u", "x"), Flown("t"), Note("t", "late"), Booked("u")
        )
        await world.settle()
        assert sorted(map(str, await travel.sent(world))) == sorted(
            map(str, [Book("t"), Book("u"), Fly("t"), Fly("u"), Close("t", "done")])
        )
        assert (await travel.state(world, "t"))["words"] == []
        assert (await travel.state(world, "u"))["words"] == ["x"]
        assert await world.held(travel.app) == []


@played
async def test_a_message_for_no_instance_is_held_until_one_starts_however_late():
    travel = Travel()
    async with Harness(travel.app) as world:
        await travel.tell(world, Booked("t"))
        for _ in range(40):
            await world.advance(hours=1)
        [row] = await world.held(travel.app)
        assert (row.reason, row.attempts) == (Reason.RETRY, 0)
        assert "until one starts" in row.cause
        await travel.tell(world, Begun("t"))
        await world.settle()
        await world.advance(minutes=1)
        assert await travel.sent(world) == [Book("t"), Fly("t")]
        assert await world.held(travel.app) == []


@played
async def test_a_message_for_no_instance_that_starts_at_once_is_soon_taken():
    travel = Travel()
    async with Harness(travel.app) as world:
        await travel.tell(world, Booked("t"))
        await world.settle()
        await travel.tell(world, Begun("t"))
        await world.settle()
        await world.advance(seconds=0.1)
        assert await travel.sent(world) == [Book("t"), Fly("t")]


@played
async def test_messages_for_no_instance_are_no_outage():
    travel = Travel()
    async with Harness(travel.app) as world:
        await travel.tell(world, *[Booked(f"none{n}") for n in range(40)])
        await world.settle()
        await travel.tell(world, Begun("t"))
        await world.settle()
        assert await travel.sent(world) == [Book("t")]


@played
async def test_an_instance_that_has_ended_drops_what_comes_late():
    travel = Travel()
    async with Harness(travel.app) as world:
        await travel.tell(world, Begun("t"), Note("t", "end"))
        await world.settle()
        before = await travel.state(world, "t")
        await travel.tell(world, Booked("t"), Begun("t"), Note("t", "more"))
        await world.advance(hours=1)
        assert await travel.state(world, "t") == before
        assert await travel.sent(world) == [Book("t")]
        assert await world.held(travel.app) == []
        assert [one.kind for one in await log_of(world, travel.app)].count("timer") == 1, "its timer fires for nobody"


@played
async def test_what_is_returned_with_the_end_still_leaves():
    travel = Travel()
    async with Harness(travel.app) as world:
        await travel.tell(world, Begun("t"), Note("t", "again"))
        await world.settle()
        assert (await travel.sent(world))[-1] == Close("t", "after the end")
        assert (await travel.state(world, "t"))["ended"] is True


@played
async def test_a_start_for_an_instance_that_is_there_is_a_message_like_any_other():
    travel = Travel()
    async with Harness(travel.app) as world:
        await travel.tell(world, Begun("t", "Rome"))
        await travel.tell(world, Note("t", "x"), Begun("t", "Oslo"))
        await world.settle()
        state = await travel.state(world, "t")
        assert (state["to"], state["words"]) == ("Oslo", ["x"])


@played
async def test_its_timer_fires_once_and_finds_its_state():
    travel = Travel()
    async with Harness(travel.app) as world:
        await travel.tell(world, Begun("t"), Begun("u"))
        await world.advance(minutes=9)
        await travel.tell(world, Booked("u"))
        await world.advance(minutes=1)
        await world.advance(hours=5)
        assert (await travel.state(world, "t"))["late"] is True
        assert (await travel.state(world, "u"))["late"] is False
        assert await payloads(world, travel.app, Closed) == [Closed("t", "late")]


@pytest.mark.parametrize("first", ["timer", "answer"])
@played
async def test_a_timer_and_the_answer_that_cancels_it_may_race_and_each_is_met_once(first):
    travel = Travel()
    async with Harness(travel.app) as world:
        await travel.tell(world, Begun("t"))
        await world.settle()
        world.clock.advance(600)
        scheduler = next(flow for flow in world._flows["travel"] if type(flow).__name__ == "Scheduler")
        if first == "timer":
            await scheduler.step()
        await travel.tell(world, Booked("t"))
        feed = next(flow for flow in world._flows["travel"] if getattr(flow, "name", "").startswith("travel.channel"))
        await feed.step()
        await world.settle()
        await world.advance(hours=1)
        state = await travel.state(world, "t")
        assert state["booked"] is True
        assert state["late"] is (first == "timer")
        timers = [one for one in await log_of(world, travel.app) if one.kind == "timer"]
        assert len(timers) == (1 if first == "timer" else 0)


@played
async def test_compensation_sends_what_was_remembered_the_last_first_and_once():
    travel = Travel()
    async with Harness(travel.app) as world:
        await travel.tell(world, Begun("t"))
        await world.settle()
        await world.restart(travel.app)
        await travel.tell(world, Booked("t"))
        await world.settle()
        reply = Refused("hotel.Book", "id", "full", "travel.trip>hotel/t")
        await world.channel.publish(
            [
                publication(
                    "hotel.commands>travel/t", n, "headwater.Refused", reply, kind="reply", topic="travel.replies"
                )
                for n in (1, 2)
            ]
        )
        await world.settle()
        assert await travel.sent(world) == [Book("t"), Fly("t"), Unfly("t"), Unbook("t")]
        assert (await travel.state(world, "t"))["words"] == ["refused: full"] * 2


@played
async def test_a_refusal_goes_to_the_saga_and_the_instance_that_sent_the_command():
    hotel = App("hotel")

    class Rooms(Aggregate, key="trip"):
        @decide
        def book(self, command: Book) -> None:
            raise Rejected(f"no room for {command.trip}")

    Rooms.book.__annotations__["command"] = Book
    hotel.add(Rooms)
    travel, other = Travel(), Travel()
    other.app = App("other", retry=Retry(attempts=2, base=0.1))

    class Second(Trip, key="trip", name="second"):
        pass

    travel.app.add(Second)
    async with Harness(hotel, travel.app) as world:
        await travel.tell(world, Begun("t"), Begun("u"))
        await world.settle()
        for saga in ("travel.trip", "travel.second"):
            rows = await world.databases["travel"].sagas(saga, ["t", "u"])
            assert {key: msgspec.json.decode(row.data)["state"]["words"] for key, row in rows.items()} == {
                "t": ["refused: no room for t"],
                "u": ["refused: no room for u"],
            }
        assert await world.held(travel.app) == []


@played
async def test_commands_to_its_own_service_go_through_its_own_log_and_may_be_refused():
    travel = Travel()
    async with Harness(travel.app) as world:
        await travel.tell(world, Begun("t"), Note("t", "no"))
        await world.settle()
        assert (await travel.state(world, "t"))["words"] == ["no", "refused: will not"]
        assert await payloads(world, travel.app, Closed) == []
        topics = {place[0] for place in world.channel.broker._places}
        assert "travel.commands" not in topics
        assert "travel.replies" not in topics


@played
async def test_a_react_that_raises_holds_its_key_and_loses_or_doubles_nothing_of_others():
    travel = Travel()
    async with Harness(travel.app) as world:
        await travel.tell(
            world,
            Begun("t"),
            Begun("u"),
            Note("t", "bad"),
            Booked("t"),
            Booked("u"),
            Note("t", "x"),
            Note("u", "y"),
            Begun("v"),
        )
        for _ in range(3):
            await world.advance(seconds=1)
        assert sorted(map(str, await travel.sent(world))) == sorted(
            map(str, [Book("t"), Book("u"), Book("v"), Fly("t"), Fly("u")])
        )
        assert (await travel.state(world, "t"))["words"] == []
        assert (await travel.state(world, "u"))["words"] == ["y"]
        assert [(row.message.version, row.reason) for row in await world.held(travel.app)] == [
            (2, Reason.DEAD),
            (3, Reason.BEHIND),
        ]


@pytest.mark.parametrize("after", [True, False])
@played
async def test_a_crash_at_the_commit_does_nothing_twice(after):
    travel = Travel()
    async with Harness(travel.app) as world:
        await travel.tell(world, Begun("t"), Begun("u"), Booked("t"))
        with failing_commits(world.databases["travel"], Killed(), settles("travel.trip"), after=after):
            with pytest.raises(Killed):
                await world.settle()
            await world.restart(travel.app)
        await world.settle()
        assert sorted(map(str, await travel.sent(world))) == sorted(map(str, [Book("t"), Book("u"), Fly("t")]))
        await world.advance(hours=1)
        assert await payloads(world, travel.app, Closed) == [Closed("u", "late")]


@played
async def test_an_instance_that_another_process_has_moved_is_loaded_again():
    travel = Travel()
    async with Harness(travel.app) as world:
        await travel.tell(world, Begun("t"))
        await world.settle()
        database = world.databases["travel"]
        commit = database.commit

        async def race(writes):
            if any(write.sagas for write in writes):
                del database.commit
                [row] = (await database.sagas("travel.trip", ["t"])).values()
                moved = msgspec.structs.replace(row, data=row.data.replace(b'"words":[]', b'"words":["other"]'))
                from headwater.database import WriteSet

                await commit([WriteSet(sagas=[moved])])
            return await commit(writes)

        database.commit = race
        await travel.tell(world, Note("t", "mine"))
        await world.settle()
        assert (await travel.state(world, "t"))["words"] == ["other", "mine"]


@played
async def test_instances_of_tenants_with_the_same_key_are_apart():
    travel = Travel()
    async with Harness(travel.app) as world:
        await travel.tell(world, Begun("t", "Rome"))
        await travel.tell(world, Begun("t", "Oslo"), tenant="acme")
        await travel.tell(world, Booked("t"), tenant="acme")
        await world.settle()
        assert (await travel.state(world, "t"))["to"] == "Rome"
        assert (await travel.state(world, "acme:/t"))["to"] == "Oslo"
        await world.advance(minutes=10)
        assert (await travel.state(world, "t"))["late"] is True
        assert (await travel.state(world, "acme:/t"))["late"] is False
        streams = {one.stream for one in await log_of(world, travel.app) if one.kind == "command"}
        assert "acme:travel.trip>hotel/t" in streams
        assert "travel.trip>hotel/t" in streams
        assert all(
            one.metadata == Metadata(one.metadata.correlation_id, one.metadata.causation_id, tenant="acme")
            for one in await log_of(world, travel.app)
            if one.stream.startswith("acme:")
        )


# --- state ---


class Colour(enum.Enum):
    RED = "red"
    BLUE = "blue"


class Point(msgspec.Struct):
    x: int = 0
    tags: list[str] = []


class Rich(Saga, key="trip"):
    numbers: list[int] = [1, 2]
    names: dict[str, list[int]] = {}
    colour: Colour = Colour.RED
    at: datetime | None = None
    point: Point = Point(3)
    points: dict[str, Point] = {}
    seen: set[str] = set()
    raw: bytes = b"\x00"
    ratio: float = 0.5
    pair: tuple[int, str] = (1, "a")
    odd: Any = None

    @react(starts=True)
    def begun(self, event: Begun) -> None:
        return

    @evolve
    def note(self, event: Note) -> None:
        if event.word == "nan":
            self.ratio = float("nan")
        elif event.word == "object":
            self.odd = object()
        elif event.word == "tuple":
            self.odd = (1, 2)
        elif event.word == "wrong":
            self.colour = "green"  # type: ignore[assignment]
        else:
            self.numbers.append(len(self.numbers))
            self.names.setdefault(event.word, []).append(7)
            self.colour = Colour.BLUE if self.colour is Colour.RED else self.colour
            self.at = datetime(2026, 1, 2, 3, 4, 5, 678901, tzinfo=timezone.utc)  # noqa: UP017
            self.point.x += 1
            self.point.tags.append(event.word)
            self.points[event.word] = Point(9, ["z"])
            self.seen.add(event.word)
            self.raw += b"\xff"
            self.ratio *= 3
            self.pair = (self.pair[0] + 1, "b")


async def rich(world: Harness, app: App, key: str) -> Any:
    worker = next(plan.worker for plan in app.wiring.plans if plan.consumer.name == "travel.rich")
    [row] = (await world.databases["travel"].sagas("travel.rich", [key])).values()
    decoded = worker._row.decode(row.data)
    return worker._decoder.decode(decoded.state)


class Whole(Saga, key="trip"):
    """Its states are values: `@evolve` gives a new one."""

    words: tuple[str, ...] = ()

    @evolve
    def noted(self, event: Note) -> Whole:
        return Whole(words=(*self.words, event.word))

    @react(starts=True)
    def react_to(self, event: Note) -> Close:
        return Close(event.trip, "+".join(self.words))


@played
async def test_an_evolve_may_give_a_new_state():
    travel = Travel()
    travel.app = App("travel")
    travel.app.add(Whole, Log)
    async with Harness(travel.app) as world:
        await travel.tell(world, Note("t", "a"), Note("t", "b"))
        await world.settle()
        await travel.tell(world, Note("t", "c"))
        await world.settle()
        assert [one.why for one in await payloads(world, travel.app, Closed)] == ["a", "a+b", "a+b+c"]


@played
async def test_a_state_of_rich_types_comes_back_as_it_was():
    travel = Travel()
    travel.app = App("travel", batch=1)
    travel.app.add(Rich)
    async with Harness(travel.app) as world:
        await travel.tell(world, Begun("t"), Note("t", "a"), Note("t", "b"))
        await world.settle()
        state = await rich(world, travel.app, "t")
        assert state.numbers == [1, 2, 2, 3]
        assert state.names == {"a": [7], "b": [7]}
        assert state.colour is Colour.BLUE
        assert state.at == datetime(2026, 1, 2, 3, 4, 5, 678901, tzinfo=timezone.utc)  # noqa: UP017
        assert (state.point, state.points["b"]) == (Point(5, ["a", "b"]), Point(9, ["z"]))
        assert state.seen == {"a", "b"}
        assert state.raw == b"\x00\xff\xff"
        assert state.ratio == 4.5
        assert state.pair == (3, "b")
        await travel.tell(world, Begun("new"))
        await world.settle()
        assert (await rich(world, travel.app, "new")).point == Point(3), "defaults are not shared"
        assert await world.held(travel.app) == []


@pytest.mark.parametrize("word", ["nan", "object", "tuple", "wrong"])
@pytest.mark.parametrize("batch", [1, 50])
@played
async def test_a_state_that_cannot_be_stored_holds_only_its_key(word, batch):
    travel = Travel()
    travel.app = App("travel", batch=batch, retry=Retry(attempts=2))
    travel.app.add(Rich)
    async with Harness(travel.app) as world:
        await travel.tell(
            world,
            Begun("t"),
            Begun("u"),
            Note("t", "a"),
            Note("u", "a"),
            Note("t", word),
            Note("u", "b"),
            Note("t", "c"),
        )
        await travel.tell(world, Note("u", "c"))
        for _ in range(3):
            await world.advance(seconds=1)
        assert (await rich(world, travel.app, "t")).seen == {"a"}
        assert (await rich(world, travel.app, "u")).seen == {"a", "b", "c"}
        assert [(row.key[-1], row.message.version, row.reason) for row in await world.held(travel.app)] == [
            ("t", 3, Reason.DEAD),
            ("t", 4, Reason.BEHIND),
        ]
        assert "state" in (await world.held(travel.app))[0].cause


@played
async def test_a_field_that_an_older_row_lacks_has_its_default():
    travel = Travel()
    travel.app = App("travel")
    travel.app.add(Rich)
    async with Harness(travel.app) as world:
        await travel.tell(world, Begun("t"))
        await world.settle()
        table = world.databases["travel"].file.tables["sagas"]
        for _ in range(2):
            row = table["travel.rich", "t"]
            old = msgspec.json.decode(row.data)
            for name in ("numbers", "point", "colour"):
                del old["state"][name]
            table["travel.rich", "t"] = msgspec.structs.replace(row, data=msgspec.json.encode(old))
            await travel.tell(world, Note("t", "a"))
            await world.settle()
            state = await rich(world, travel.app, "t")
            assert (state.numbers, state.point.x, state.colour) == ([1, 2, 2], 4, Colour.BLUE)


@played
async def test_a_state_that_its_class_cannot_read_any_more_is_a_dead_letter():
    travel = Travel()
    async with Harness(travel.app) as world:
        await travel.tell(world, Begun("t"), Begun("u"))
        await world.settle()
        table = world.databases["travel"].file.tables["sagas"]
        row = table["travel.trip", "t"]
        table["travel.trip", "t"] = msgspec.structs.replace(
            row, data=row.data.replace(b'"booked":false', b'"booked":"maybe"')
        )
        await travel.tell(world, Booked("t"), Booked("u"))
        for _ in range(3):
            await world.advance(seconds=1)
        assert [row.reason for row in await world.held(travel.app)] == [Reason.DEAD]
        assert Fly("u") in await travel.sent(world)
