"""Consumers and read models from outside: places, lags, rows, and filling one anew."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from headwater import App, Event, NotFound, ReadModel, evolve
from headwater.adapters.sqlite import SqliteDatabase
from headwater.clock import SystemClock
from headwater.database import Database
from headwater.operations import ConsumerState, NotPossible, list_consumers, list_projections, rebuild_projection
from headwater.testing.harness import Harness
from tests.flow.test_operations_app import Open, Statement, Withdraw, Withdrawn, World, fill, in_harness, make_app


class Shipped(Event, service="shipping", category="Parcel"):
    account_id: str


class Totals(ReadModel, key="account_id", inline=True):
    cents: int = 0

    @evolve
    def withdrawn(self, event: Withdrawn) -> None:
        self.cents += event.cents


class Parcels(ReadModel, key="account_id"):
    count: int = 0

    @evolve
    def shipped(self, event: Shipped) -> None:
        self.count += 1


async def states(harness: Harness) -> dict[tuple[str, str], ConsumerState]:
    found = await list_consumers(harness.databases["bank"], harness.channel, harness.clock.now())
    return {(one.name, one.source): one for one in found}


def test_lag_rises_with_what_is_committed_and_falls_when_it_is_done() -> None:
    async def test(harness: Harness, app: App) -> None:
        await fill(app)
        harness.clock.advance(30)
        await app.send(Open("late"))
        behind = await states(harness)
        receipt = behind["bank.receipt", "log"]
        assert (receipt.kind, receipt.position, receipt.behind, receipt.seconds) == ("handler", 0, 8, 30.0)
        relay = behind["bank.relay", "log"]
        assert (relay.kind, relay.behind, relay.seconds) == ("relay", 8, 30.0)
        await harness.settle()
        for one in (await states(harness)).values():
            assert (one.behind, one.seconds, one.held, one.dead, one.uncertain) == (0, 0.0, 0, 0, 0)
        assert (await states(harness))["bank.receipt", "log"].position == 8

    in_harness(test)


def test_counts_what_is_held_dead_and_uncertain() -> None:
    world = World()

    async def test(harness: Harness, app: App) -> None:
        world.failing, world.uncertain = {"bad"}, True
        for cents in (1, 2, 3):
            await app.send(Withdraw("bad", cents))
        await app.send(Open("bad"))
        await harness.settle()
        found = await states(harness)
        receipt, charge = found["bank.receipt", "log"], found["bank.charge", "log"]
        assert (receipt.held, receipt.dead, receipt.uncertain) == (3, 1, 0)
        assert (charge.held, charge.dead, charge.uncertain) == (1, 0, 1)

    in_harness(test, world)


def test_without_a_channel_its_lag_is_not_known() -> None:
    async def test(harness: Harness, app: App) -> None:
        await fill(app)
        found = await list_consumers(harness.databases["bank"], None, harness.clock.now())
        by_name = {(one.name, one.source): one for one in found}
        commands = by_name["bank.commands", "channel"]
        assert (commands.position, commands.behind, commands.seconds) == (None, None, None)
        assert by_name["bank.relay", "log"].behind is None
        assert by_name["bank.receipt", "log"].behind == 7

    in_harness(test)


def test_lists_read_models_with_place_and_rows() -> None:
    async def test(harness: Harness, app: App) -> None:
        await fill(app)
        database = harness.databases["bank"]
        [before] = await list_projections(app, database, harness.channel)
        assert (before.name, before.table, before.inline) == ("bank.statement", "statement", False)
        assert (before.position, before.behind, before.rows) == (0, 7, 0)
        await harness.settle()
        [after] = await list_projections(app, database, harness.channel)
        assert (after.position, after.behind, after.seconds, after.rows) == (7, 0, 0.0, 2)

    in_harness(test)


def test_rebuild_fills_a_read_model_anew(tmp_path: Path) -> None:
    async def run() -> None:
        database = SqliteDatabase(tmp_path / "bank.db", SystemClock())
        await database.open()
        app = make_app(channel="memory://")
        await app.connect(database)
        async with app:
            await fill(app)
            await app.send(Withdraw("c", 5))
            await app.get(Statement, "c", after=await app.send(Withdraw("c", 5)))
            async with database.transaction() as transaction:
                transaction.execute("UPDATE statement SET cents = 0")
            reported: list[tuple[int, int]] = []
            position = await rebuild_projection(app, database, "Statement", lambda *place: reported.append(place))
            assert position == await database.head() == 9
            assert reported[-1] == (9, 9)
            assert {one.account_id: one.cents for one in await app.find(Statement)} == {"a": 6, "b": 6, "c": 10}
            again = await app.get(Statement, "a", after=await app.send(Withdraw("a", 1)))
            assert again is not None
            assert again.cents == 7

    asyncio.run(run())


def test_an_inline_read_model_is_rebuilt_too() -> None:
    async def run() -> None:
        app = make_app()
        app.add(Totals)
        async with Harness(app) as harness:
            await fill(app)
            database = harness.databases["bank"]
            [totals] = [one for one in await list_projections(app, database, harness.channel) if one.inline]
            assert (totals.name, totals.position, totals.behind, totals.rows) == ("bank.totals", 7, 0, 2)
            assert await rebuild_projection(app, database, "bank.totals", lambda done, of: None) == 7
            assert [(one.account_id, one.cents) for one in await app.find(Totals)] == [("a", 6), ("b", 6)]

    asyncio.run(run())


def test_a_rebuild_that_would_lose_rows_is_refused() -> None:
    async def run() -> None:
        app = make_app()
        app.add(Parcels)
        async with Harness(app) as harness:
            database: Database = harness.databases["bank"]
            with pytest.raises(NotPossible, match=r"shipping\.Shipped, an event of another service"):
                await rebuild_projection(app, database, "Parcels", lambda done, of: None)
            with pytest.raises(NotFound, match="it has: parcels, statement"):
                await rebuild_projection(app, database, "Parcel", lambda done, of: None)
            found = await list_projections(app, database, harness.channel)
            assert [(one.name, one.position, one.behind) for one in found] == [
                ("bank.parcels", None, 0),
                ("bank.statement", 0, 0),
            ]

    asyncio.run(run())
