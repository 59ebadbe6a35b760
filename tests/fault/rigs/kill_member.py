"""What a process of the `kill` rig does: it serves as a member of the bank or the vault, or it is the desk."""

from __future__ import annotations

import asyncio
import functools
import importlib
import logging
import os
import signal
import sys
from collections.abc import Coroutine, Sequence
from dataclasses import dataclass
from typing import Any

import msgspec

from headwater import App, fault
from headwater.adapters.postgres import PostgresChannel
from headwater.adapters.postgres import database as postgres_database
from headwater.adapters.sqlite import SqliteChannel
from headwater.adapters.sqlite import database as sqlite_database
from headwater.app import open_channel, open_database, runner
from headwater.channel import Channel, Publication
from headwater.errors import ChannelError, DatabaseError, SchemaMismatch
from headwater.outbox import Outbox
from headwater.relay import tallying
from headwater.repair import asking
from headwater.telemetry import log_json
from tests.fault.rigs.kill_outside import Weather
from tests.fault.rigs.kill_services import Place
from tests.fault.rigs.kill_trap import Trap

TTL = 2.0
NARROW = 2_000
"""The largest message that a channel takes that is narrow in this life."""
OUTDATED = 3
"""The exit code of a process that found the tables of a newer version."""
AWAY = 4
"""The exit code of a process that found its database or channel away at its start: whoever runs it starts it anew."""
EXTRA = "CREATE TABLE IF NOT EXISTS later (n INTEGER);"


@dataclass(frozen=True)
class Life:
    """One life of a process: `version` counts the migrations that it knows beyond ours, `parent` ends it by closing."""

    role: str
    place: Place
    weather: Weather
    trap: Trap
    version: int
    batch: int
    narrow: bool
    parent: int
    seed: int

    @property
    def service(self) -> str:
        """The service that it is a member of."""
        return self.role.partition("-")[0]


def live(life: Life, work: Coroutine[Any, Any, None]) -> None:
    """Live, in a process that was just forked, and end it."""
    log_json(sys.stderr, logging.ERROR)
    prepare(life)
    try:
        asyncio.run(_tied(life.parent, work))
        code = 0
    except SchemaMismatch:
        code = OUTDATED
    except (DatabaseError, ChannelError) as error:
        print(f"{life.role} fell: {error!r}", file=sys.stderr, flush=True)
        code = AWAY
    except BaseException as error:  # noqa: BLE001 - told, and then it ends
        print(f"{life.role} fell: {error!r}", file=sys.stderr, flush=True)
        code = 1
    os._exit(code)


def prepare(life: Life) -> None:
    """Set the trap; be impatient, so that much happens in a short life."""
    fault.point = life.trap.point
    asking.WAIT, asking.PAUSE = 300_000, 0.05
    tallying.NEWS, tallying.QUIET, tallying.AGAIN = 0.1, 0.3, (0.2, 0.5)
    runner.FOLLOW = 0.1
    rebuild: Any = importlib.import_module("headwater.projection.rebuild")  # the package has a function of that name
    rebuild.PAGE = 50
    adapter = postgres_database if life.place.on_server else sqlite_database
    adapter.MIGRATIONS += (EXTRA,) * life.version  # type: ignore[misc]
    channel: Any = PostgresChannel if life.place.on_server else SqliteChannel
    Outbox._check_size = lambda *_: None  # type: ignore[method-assign]  # committed while the channel was wider
    if life.narrow:
        channel.capabilities = msgspec.structs.replace(channel.capabilities, max_bytes=NARROW)
    channel.publish = lossy(channel.publish, life.weather)


def lossy(publish: Any, weather: Weather) -> Any:
    """A channel that says it has published, and loses some events of accounts on the way."""

    def lost(one: Publication) -> bool:
        place = f"{one.key} {one.headers.get('streamversion')}"
        return one.topic == "bank.Account" and not one.group and weather.fails("arrive", place, one_in=40)

    async def publish_most(self: Channel, publications: Sequence[Publication], **options: Any) -> dict[int, str]:
        kept = [(index, one) for index, one in enumerate(publications) if not lost(one)]
        refused = await publish(self, [one for _, one in kept], **options)
        return {kept[place][0]: why for place, why in refused.items()}

    return publish_most


async def _tied(parent: int, work: Coroutine[Any, Any, None]) -> None:
    asyncio.get_running_loop().add_reader(parent, os._exit, 0)
    await work


async def opened(place: Place, app: App, service: str) -> Any:
    """The database of a service, its tables as new as this process knows them."""
    database: Any = open_database(place.store(service), app.clock)
    await database.open(upgrade=True)
    database.acquire = functools.partial(database.acquire, ttl=TTL)
    return database


async def serve(life: Life) -> None:
    """Be a member of a service until SIGTERM."""
    stop = asyncio.Event()
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, stop.set)
    app = life.place.app(life.service, life.weather, life.batch)
    database = await opened(life.place, app, life.service)
    await app.connect(database, open_channel(life.place.channel, app.clock))
    await app.start(life.role)
    await stop.wait()
    await app.stop()
