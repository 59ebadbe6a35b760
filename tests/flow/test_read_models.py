"""Read models: folded by key, written at once, read after one's own writes, rebuilt beside the old."""

from __future__ import annotations

import asyncio
import enum
import sys
from collections.abc import Sequence
from datetime import date, datetime, timezone
from typing import Any

import msgspec
import pytest

from headwater import (
    DELETE,
    Aggregate,
    App,
    Command,
    ConfigurationError,
    Conflict,
    DatabaseError,
    Decider,
    Event,
    Metadata,
    ReadModel,
    Retry,
    Stale,
    decide,
    evolve,
)
from headwater.database import Answer, WriteSet
from headwater.inbox import Reason
from headwater.message import Draft
from headwater.projection import rebuild
from headwater.store import ANY, Append
from headwater.testing.harness import Harness
from tests.flow.rig import Killed, failing_commits, played, publication, settles
from tests.flow.shop import Bump, Bumped, Counter, Tally, shop


class Put(Command):
    shelf: str
    item: int
    word: str = ""


class Did(Event):
    shelf: str
    item: int
    word: str = ""


class Shelf(Aggregate, key="shelf"):
    @decide
    def put(self, command: Put) -> list[Did]:
        times = 3 if command.word == "thrice" else 1
        return [Did(command.shelf, command.item, command.word)] * times


class Size(enum.Enum):
    SMALL = 1
    LARGE = 2


class Box(msgspec.Struct):
    width: int
    labels: list[str] = []


class Item(ReadModel, key=("shelf", "item")):
    count: int = 0
    words: list[str] = []
    last: str | None = None
    at: datetime | None = None
    day: date = date(2026, 1, 1)
    size: Size = Size.SMALL
    box: Box | None = None
    by_word: dict[str, Box] = {}
    loose: dict[str, Any] = {}
    ratio: float = 1.0
    good: bool = True
    raw: bytes = b""

    @evolve
    def did(self, event: Did) -> object:
        if event.word == "delete":
            return DELETE
        if event.word == "bad":
            raise ValueError("bad")
        self.count += 1
        self.words.append(event.word)
        self.last = event.word or None
        self.at = datetime(2026, 1, 2, 3, 4, 5, 6, tzinfo=timezone.utc)  # noqa: UP017
        self.day = date(2026, 2, self.count)
        self.size = Size.LARGE
        self.box = Box(self.count, [event.word])
        self.by_word[event.word] = Box(1)
        self.loose.setdefault("deep", {}).setdefault("er", []).append(event.word)
        self.ratio /= 2
        self.good = not self.good
        self.raw += b"\x00"
        if event.word == "unstorable":
            self.loose["x"] = object()
        return 7 if event.word == "nonsense" else None


class Quick(ReadModel, key="shelf", inline=True):
    count: int = 0

    @evolve
    def did(self, event: Did) -> None:
        if event.word == "bad":
            raise ValueError("bad")
        self.count += 1


def store(**options: Any) -> App:
    app = App("store", retry=Retry(attempts=2), **options)
    app.add(Shelf, Item, Quick)
    return app


async def put(app: App, *words: str, shelf: str = "s", item: int = 1) -> None:
    for word in words:
        await app.send(Put(shelf, item, word))


@pytest.mark.parametrize("batch", [1, 50])
@played
async def test_every_kind_of_column_comes_back_as_it_was(batch):
    app = store(batch=batch)
    async with Harness(app) as world:
        await put(app, "a", "")
        await world.settle()
        item = await app.get(Item, "s", 1)
        assert item == Item(
            shelf="s",
            item=1,
            count=2,
            words=["a", ""],
            last=None,
            at=datetime(2026, 1, 2, 3, 4, 5, 6, tzinfo=timezone.utc),  # noqa: UP017
            day=date(2026, 2, 2),
            size=Size.LARGE,
            box=Box(2, [""]),
            by_word={"a": Box(1), "": Box(1)},
            loose={"deep": {"er": ["a", ""]}},
            ratio=0.25,
            good=True,
            raw=b"\x00\x00",
        )


@played
async def test_composite_keys_name_a_row_each():
    app = store()
    async with Harness(app) as world:
        for shelf in ("s", "t"):
            for item in (1, 2):
                await put(app, f"{shelf}{item}", shelf=shelf, item=item)
        await world.settle()
        assert [(row.shelf, row.item, row.words) for row in await app.find(Item)] == [
            ("s", 1, ["s1"]),
            ("s", 2, ["s2"]),
            ("t", 1, ["t1"]),
            ("t", 2, ["t2"]),
        ]
        assert [row.item for row in await app.find(Item, shelf="t")] == [1, 2]
        assert await app.get(Item, "s", 3) is None


@pytest.mark.parametrize("batch", [1, 2, 50])
@pytest.mark.parametrize(
    ("words", "left"),
    [
        (["a", "delete"], None),
        (["delete"], None),
        (["a", "delete", "b"], ["b"]),
        (["a", "delete", "b", "delete"], None),
        (["a", "delete", "delete", "b", "c"], ["b", "c"]),
    ],
)
@played
async def test_a_deleted_row_is_gone_and_begins_anew(batch, words, left):
    app = store(batch=batch)
    async with Harness(app) as world:
        await put(app, *words)
        await world.settle()
        row = await app.get(Item, "s", 1)
        assert (row.words if row else None) == left
        assert row is None or row.count == len(left)


@played
async def test_a_row_that_is_deleted_and_made_again_in_one_batch_begins_anew():
    app = store()
    async with Harness(app) as world:
        await put(app, "a")
        await world.settle()
        await put(app, "delete", "b")
        await world.settle()
        assert (await app.get(Item, "s", 1)).words == ["b"]


@played
async def test_find_takes_any_column_and_says_which_there_are():
    app = store()
    async with Harness(app) as world:
        for item in range(5):
            await put(app, *(["x"] * item), item=item)
        await world.settle()
        assert [row.item for row in await app.find(Item, count=2)] == [2]
        assert [row.item for row in await app.find(Item, size=Size.LARGE, good=False)] == [1, 3]
        assert [row.item for row in await app.find(Item, day=date(2026, 2, 4))] == [4]
        assert [row.item for row in await app.find(Item, words=["x", "x"])] == [2]
        assert [row.item for row in await app.find(Item, limit=2)] == [1, 2]
        with pytest.raises(ConfigurationError, match="has no column 'colour'; it has shelf, item, count"):
            await app.find(Item, colour="red")


@played
async def test_a_key_with_the_wrong_parts_says_what_the_key_is():
    app = store()
    async with Harness(app):
        with pytest.raises(ConfigurationError, match=r"Item is found by \(shelf, item\), not by \('s',\)"):
            await app.get(Item, "s")
        with pytest.raises(ConfigurationError, match=r"add it: app\.add"):
            await app.get(Tally, "s")


# --- inline ---


@played
async def test_an_inline_model_is_there_with_its_commit():
    app = store()
    async with Harness(app):
        answer = await app.send(Put("s", 1, "thrice"))
        assert (await app.get(Quick, "s", after=answer)).count == 3
        await put(app, "a", "b")
        assert (await app.get(Quick, "s")).count == 5


@played
async def test_what_an_inline_model_cannot_fold_is_not_committed():
    app = store()
    async with Harness(app) as world:
        await put(app, "a")
        with pytest.raises(DatabaseError, match="bad"):
            await put(app, "bad")
        assert (await app.get(Quick, "s")).count == 1
        assert await world.databases["store"].head() == 1
        await put(app, "b")
        assert (await app.get(Quick, "s")).count == 2


@played
async def test_of_sends_side_by_side_only_the_one_that_an_inline_model_cannot_fold_falls():
    app = store()
    async with Harness(app):
        sends = [app.attempt(Put(shelf, 1, word)) for shelf, word in (("a", "x"), ("b", "bad"), ("c", "y"))]
        answers = await asyncio.gather(*sends, return_exceptions=True)
        assert [isinstance(answer, DatabaseError) for answer in answers] == [False, True, False]


# --- failing ---


@pytest.mark.parametrize("word", ["bad", "unstorable", "nonsense"])
@pytest.mark.parametrize("batch", [1, 50])
@played
async def test_what_it_cannot_fold_or_write_holds_only_its_key(word, batch):
    app = App("store", retry=Retry(attempts=2), batch=batch)
    app.add(Shelf, Item)
    async with Harness(app) as world:
        await put(app, "a", shelf="s")
        await put(app, "a", shelf="t")
        await put(app, word, "b", shelf="s")
        await put(app, "b", shelf="t")
        for _ in range(3):
            await world.advance(seconds=1)
        assert (await app.get(Item, "s", 1)).words == ["a"]
        assert (await app.get(Item, "t", 1)).words == ["a", "b"]
        assert (await app.get(Item, "t", 1)).loose == {"deep": {"er": ["a", "b"]}}
        assert [(row.key[-1], row.message.version, row.reason) for row in await world.held(app)] == [
            ("s", 2, Reason.DEAD),
            ("s", 3, Reason.BEHIND),
        ]


@pytest.mark.parametrize("after", [True, False])
@played
async def test_a_crash_at_the_commit_folds_nothing_twice(after):
    app = store()
    async with Harness(app) as world:
        await put(app, "a", "b", "c")
        with failing_commits(world.databases["store"], Killed(), settles("store.item"), after=after):
            with pytest.raises(Killed):
                await world.settle()
            await world.restart(app)
        await put(app, "d")
        await world.settle()
        assert (await app.get(Item, "s", 1)).words == ["a", "b", "c", "d"]


# --- read your writes ---


@played
async def test_a_read_after_an_answer_sees_it():
    app = store()
    async with Harness(app):
        for n in range(1, 5):
            answer = await app.send(Put("s", 1, str(n)))
            assert (await app.get(Item, "s", 1, after=answer)).count == n
            assert [row.count for row in await app.find(Item, after=answer, shelf="s")] == [n]


@played
async def test_a_read_model_that_does_not_come_is_stale():
    app = store()
    async with Harness(app) as world:
        answer = await app.send(Put("s", 1, "a"))
        world._flows["store"] = []
        began = world.clock.monotonic()
        with pytest.raises(Stale, match="is at position 0, and 1 was asked for; is the service running"):
            await app.get(Item, "s", 1, after=answer, timeout=2.0)
        assert 2.0 <= world.clock.monotonic() - began < 2.2
        with pytest.raises(Stale):
            await app.find(Item, after=answer, timeout=0.0)
        assert await app.get(Item, "s", 1) is None


@played
async def test_a_read_after_an_answer_that_the_model_holds_is_stale():
    app = App("store", retry=Retry(attempts=1))
    app.add(Shelf, Item)
    async with Harness(app) as world:
        await put(app, "a")
        answer = await app.send(Put("s", 1, "bad"))
        behind = await app.send(Put("s", 1, "b"))
        other = await app.send(Put("t", 1, "c"))
        await world.settle()
        for lost in (answer, behind):
            with pytest.raises(Stale, match="holds the message"):
                await app.get(Item, "s", 1, after=lost)
        assert (await app.get(Item, "t", 1, after=other)).words == ["c"]


@played
async def test_an_answer_that_wrote_nothing_is_read_after_at_once():
    app = App("store")

    class Nothing(Command):
        shelf: str

    app.add(Decider("Shelf2", "shelf", dict, {Nothing: lambda state, command: None}, {}), Shelf, Item)
    async with Harness(app) as world:
        await put(app, "a")
        answer = await app.send(Nothing("s"))
        assert (await app.get(Item, "s", 1, after=answer)).count == 1
        assert await world.held(app) == []


# --- rebuild ---


class Renamed(Event, stored="store.Did2"):
    shelf: str
    item: int
    word: str


async def rebuilt(world: Harness, app: App, model: type[ReadModel], progress: Any = None) -> int:
    projection = next(one for one in app.declared.projections.values() if one.model is model)
    name = f"{app.name}.{projection.table.name}"
    return await rebuild(name, projection, app.schema, world.databases[app.name], progress or (lambda done, of: None))


def spoil(world: Harness, app: App, table: str) -> None:
    """The rows as a bug might have left them."""
    rows = world.databases[app.name].file.tables["rows", table]
    for key in list(rows):
        del rows[key]


@pytest.mark.parametrize("model", [Item, Quick])
@played
async def test_a_rebuild_gives_what_the_log_says(model):
    app = store()
    async with Harness(app) as world:
        await put(app, "a", "b")
        await put(app, "c", shelf="t")
        await world.settle()
        before = await app.find(model)
        spoil(world, app, model.__table__)
        assert await app.find(model) == []
        seen: list[tuple[int, int]] = []
        assert await rebuilt(world, app, model, lambda done, of: seen.append((done, of))) == 3
        assert await app.find(model) == before
        assert seen[-1] == (3, 3)
        await put(app, "d")
        await world.settle()
        assert sum(row.count for row in await app.find(model)) == 4
        assert await rebuilt(world, app, model) == 4


@pytest.mark.parametrize("model", [Item, Quick])
@played
async def test_a_rebuild_goes_on_beside_the_live_one_with_writes_going_on(model, monkeypatch):
    monkeypatch.setattr(sys.modules["headwater.projection.rebuild"], "PAGE", 7)
    app = store(batch=5)
    async with Harness(app) as world:
        for n in range(50):
            await put(app, str(n), shelf=str(n % 5))
        await world.settle()
        spoil(world, app, model.__table__)
        done = asyncio.Event()

        async def write() -> None:
            for n in range(50, 110):
                await put(app, str(n), shelf=str(n % 5))
                await world._round()
                await asyncio.sleep(0)

        writing = asyncio.ensure_future(write())
        await rebuilt(world, app, model)
        done.set()
        await writing
        await world.settle()
        assert [row.count for row in await app.find(model)] == [22] * 5
        assert await world.held(app) == []


@played
async def test_a_batch_that_was_folded_on_the_old_rows_is_folded_again_on_the_rebuilt_ones():
    app = store()
    async with Harness(app) as world:
        await put(app, "a", shelf="one")
        await world.settle()
        await put(app, "b", shelf="one")
        spoil(world, app, Item.__table__)
        database = world.databases["store"]
        commit, rebuilds = database.commit, []

        async def swapped_before(writes: Sequence[WriteSet]) -> Sequence[Answer]:
            if not rebuilds and any(one.table.name == "item" for write in writes for one in write.upserts):
                rebuilds.append(True)
                assert await rebuilt(world, app, Item) == 1
            return await commit(writes)

        database.commit = swapped_before
        await world.settle()
        assert rebuilds
        assert [row.count for row in await app.find(Item)] == [2]


@played
async def test_readers_see_the_old_rows_until_the_new_ones_are_whole():
    app = store()
    async with Harness(app) as world:
        await put(app, "a")
        await world.settle()
        rows: list[int] = []
        read = world.databases["store"].read

        async def look(after: int, limit: int) -> object:
            rows.append(len(await app.find(Item)))
            return await read(after, limit)

        world.databases["store"].read = look
        await rebuilt(world, app, Item)
        assert rows == [1]


@played
async def test_a_rebuild_needs_no_running_service_though_it_was_behind():
    app = store()
    async with Harness(app) as world:
        await put(app, "a", "b")
        await world.settle()
        await put(app, "c", "d")
        spoil(world, app, "item")
        world._flows["store"], flows = [], world._flows["store"]
        assert await rebuilt(world, app, Item) == 2
        assert (await app.get(Item, "s", 1)).words == ["a", "b"]
        world._flows["store"] = flows
        await world.settle()
        assert (await app.get(Item, "s", 1)).words == ["a", "b", "c", "d"]


@played
async def test_a_rebuild_that_was_broken_off_begins_anew():
    app = store()
    async with Harness(app) as world:
        await put(app, "a", "b")
        await world.settle()

        def die(done: int, of: int) -> None:
            raise Killed

        with pytest.raises(Killed):
            await rebuilt(world, app, Item, die)
        assert (await app.get(Item, "s", 1)).words == ["a", "b"]
        await put(app, "c")
        await world.settle()
        assert await rebuilt(world, app, Item) == 3
        assert (await app.get(Item, "s", 1)).words == ["a", "b", "c"]


@played
async def test_a_rebuild_does_not_fold_twice_what_the_live_one_holds():
    app = App("store", retry=Retry(attempts=1))
    app.add(Shelf, Item)
    async with Harness(app) as world:
        await put(app, "a", "bad", "b")
        await world.settle()
        monkey = Item.did
        folds = next(iter(app.declared.projections.values())).evolve
        folds[Did] = lambda row, event: monkey(
            row, msgspec.structs.replace(event, word=event.word.replace("bad", "mended"))
        )
        with pytest.raises(Conflict, match="holds 2 messages"):
            await rebuilt(world, app, Item)
        from tests.flow.rig import redrive

        await redrive(world, app, (await world.held(app, Reason.DEAD))[0])
        await world.settle()
        await rebuilt(world, app, Item)
        assert (await app.get(Item, "s", 1)).words == ["a", "mended", "b"]


@played
async def test_events_under_an_older_name_are_folded_too():
    app = App("store")

    class Now(ReadModel, key="shelf"):
        words: list[str] = []

        def renamed(self, event: Renamed) -> None:
            self.words.append(event.word)

        renamed.__annotations__["event"] = Renamed
        renamed = evolve(renamed)

    app.add(Now)
    app.upcast("store.Did", 1, to="store.Did2v1")(lambda fields: fields)
    app.upcast("store.Did2v1", 2, to="store.Did2")(lambda fields: fields)
    handled: list[str] = []

    @app.on(Renamed)
    async def hear(event: Renamed) -> None:
        handled.append(event.word)

    old = App("store")
    old.add(Shelf)
    async with Harness(old) as world:
        await put(old, "a", "b")
        await world.settle()
        data = world.databases["store"].file
        app.schema.of(Renamed).version = 3
        app.clock = world.clock
        await world._end(old)
        await world._start(app, type(world.databases["store"])(world.clock, data))
        world.apps = (app,)
        await world.settle()
        assert (await app.get(Now, "s")).words == ["a", "b"]
        assert handled == ["a", "b"]
        await rebuilt(world, app, Now)
        assert (await app.get(Now, "s")).words == ["a", "b"]


@played
async def test_tenants_share_a_table_by_what_its_key_says():
    """The key of a row is made of fields of its events: a model that keeps tenants apart has one of them in its key."""
    app = store()
    async with Harness(app) as world:
        await app.send(Put("s", 1, "a"), metadata=Metadata(tenant="acme"))
        await app.send(Put("s", 1, "b"), metadata=Metadata(tenant="beta"))
        await world.settle()
        assert sorted((await app.get(Item, "s", 1)).words) == ["a", "b"]


@played
async def test_a_model_of_own_and_others_events_is_fed_by_both():
    app = App("store")

    class Both(ReadModel, key="key"):
        seen: list[str] = []

        def take(self, event: object) -> None:
            self.seen.append(type(event).__name__)

        take.__annotations__["event"] = Bumped | Local
        take = evolve(take)

    app.add(Both, LocalKeeper)
    producer = shop()
    async with Harness(producer, app) as world:
        await producer.send(Bump("k"))
        await app.send(Keep("k"))
        await world.settle()
        assert sorted((await app.get(Both, "k")).seen) == ["Bumped", "Local"]


class Keep(Command):
    key: str


class Local(Event):
    key: str


class LocalKeeper(Aggregate, key="key"):
    @decide
    def keep(self, command: Keep) -> Local:
        return Local(command.key)


@played
async def test_a_model_fed_by_a_channel_folds_what_comes_once():
    app = App("stats")
    app.add(Tally)
    async with Harness(app) as world:
        await world.channel.publish(
            [publication("shop.Counter/a", n, "shop.Bumped", Bumped("a", n)) for n in (1, 2, 2, 3, 1)]
        )
        await world.settle()
        assert (await app.get(Tally, "a")).numbers == [1, 2, 3]
        assert Counter


class Moved(Event):
    key: str


@played
async def test_what_a_read_model_does_not_fold_is_passed_over_and_its_checkpoint_follows():
    """No commit for what nobody wants; a read after it need not wait; and seen from outside there is no lag for long."""
    app = shop(batch=3)

    class Moves(ReadModel, key="key"):
        count: int = 0

        @evolve
        def moved(self, event: Moved) -> None:
            self.count += 1

    app.add(Moves)
    async with Harness(app) as world:
        database = world.databases["shop"]
        for _ in range(7):
            answer = await app.send(Bump("a"))
        with failing_commits(database, Killed(), settles("shop.moves")):
            await world.settle()
        assert await database.checkpoint("shop.moves") == 0
        assert await app.get(Moves, "a", after=answer, timeout=0.0) is None
        await world.advance(seconds=1)
        assert await database.checkpoint("shop.moves") == 7
        commits = database.commit
        database.commit = None  # and then it is at rest
        await world.advance(seconds=1)
        database.commit = commits


@pytest.mark.parametrize("batch", [1, 3, 500])
@played
async def test_what_is_wanted_takes_the_checkpoint_of_what_was_passed_over_along(batch):
    app = shop(batch=batch)
    app.add(Tally)
    async with Harness(app) as world:
        database = world.databases["shop"]
        for n in range(1, 4):
            for key in ("x", "y"):
                await app.wiring.database.commit([other(f"shop.Else/{key}{n}{m}") for m in range(4)])
            await app.send(Bump("a"))
            await world.settle()
            assert await database.checkpoint("shop.tally") == 9 * n
        assert (await app.get(Tally, "a")).numbers == [1, 2, 3]


def other(stream: str) -> WriteSet:
    """An event that no read model folds."""
    return WriteSet(appends=[Append(stream, ANY, [Draft("event", stream, "shop.Else", 1, 0, 1, b"{}", b"{}")])])
