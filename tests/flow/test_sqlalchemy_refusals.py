"""What cannot be appended within a SQLAlchemy transaction is refused, and it is said what to do."""

from __future__ import annotations

from pathlib import Path

import pytest
from sqlalchemy import create_engine

from headwater import (
    ConfigurationError,
    DeclarationError,
    Metadata,
    SchemaError,
)
from headwater.sqlalchemy import Outbox
from tests.flow.outbox import (
    DRIVERS,
    POSTGRES,
    SQLITE,
    Alien,
    Count,
    Homeless,
    Left,
    Odd,
    Shipped,
    Shop,
    Store,
    Struck,
    orders,
    shop,
    store_of,
    within,
)
from tests.flow.rig import played


@pytest.fixture(params=DRIVERS)
def store(request: pytest.FixtureRequest, tmp_path: Path) -> Store:
    return store_of(request, tmp_path)


@pytest.mark.parametrize("store", SQLITE, indirect=True)
@pytest.mark.parametrize(
    ("event", "says"),
    [
        (Homeless("a"), r"class Homeless\(Event, category='…'\)"),
        (Alien("a"), "elsewhere.Alien is a event of elsewhere; orders appends its own events"),
        (Count("a"), "orders.Count is a command of orders; orders appends its own events"),
        (Odd("a"), "'commands' of orders is not for Odd"),
        (Struck("a"), "'Counter' of orders is not for Struck: send a command"),
    ],
)
@played
async def test_events_that_the_service_does_not_state_so_are_refused(store, event, says):
    async with shop(store) as found:
        with pytest.raises(DeclarationError, match=says):
            await found.do(lambda session: found.outbox.append(session, "a", event))


@pytest.mark.parametrize("store", SQLITE, indirect=True)
@played
async def test_an_append_has_a_key_and_events_of_one_category(store):
    async with shop(store) as found:
        for key, events in (("", [Shipped("a")]), ("a", [])):
            with pytest.raises(SchemaError, match="names the key of its stream and has one event"):
                await found.do(lambda session, key=key, events=events: found.outbox.append(session, key, *events))
        tenant = Metadata(tenant="a:b")
        with pytest.raises(SchemaError, match="the tenant 'a:b' cannot name streams"):
            await found.do(lambda session: found.outbox.append(session, "a", Shipped("a"), metadata=tenant))
        with pytest.raises(DeclarationError, match=r"orders\.Order and of orders\.Parcel are not of one stream"):
            await found.do(lambda session: found.outbox.append(session, "a", Shipped("a"), Left("a")))


@played
async def test_an_engine_without_transactions_is_refused(store):
    async with shop(store) as found:
        found.set_isolation("AUTOCOMMIT")
        with pytest.raises(ConfigurationError, match="leave isolation_level away"):
            await found.do(lambda session: found.outbox.append(session, "a", Shipped("a")))
        assert await found.events() == []


@pytest.mark.parametrize("store", [*SQLITE, *POSTGRES], indirect=True)
def test_a_database_without_a_log_is_refused(store: Store) -> None:
    found = Shop(*store[:2])
    with pytest.raises(ConfigurationError, match="has no log: run `headwater db init`"):
        within(found.engine, lambda session: found.outbox.append(session, "a", Shipped("a")))
    found.engine.dispose()


@pytest.mark.parametrize("store", SQLITE, indirect=True)
def test_another_copy_of_sqlite_is_refused(store: Store) -> None:
    engine = create_engine(store[0])
    with pytest.raises(ConfigurationError, match=r"make the engine with sqlite\+headwater:///"):
        within(engine, lambda session: Outbox(orders()).append(session, "a", Shipped("a")))
    engine.dispose()
