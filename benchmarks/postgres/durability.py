"""That all are equally durable: the settings of each subject's own connection read back, and the syncs of the server counted."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from functools import partial
from typing import Any

from eventsourcing.persistence import StoredEvent

from benchmarks import ours as common
from benchmarks.names import EMMETT, GROUP, OURS, PEER
from benchmarks.peer import stored_order
from benchmarks.raw import tables
from benchmarks.sample import any_json, order_id

from . import emmett, peer
from .emmett import Emmett
from .raw import Group
from .server import DURABLE, Server, ask
from .subjects import PEER_DEFAULT, opened

COMMITS = 40
SETTINGS = "SELECT " + ", ".join(f"current_setting('{name}') AS {name}" for name in DURABLE)
SYNCS = "SELECT wal_sync FROM pg_stat_wal"
REPORTED = 1.2
"""Seconds after which a session that ended has reported what it counted."""

Found = dict[str, Any]


def check_server(server: Server) -> dict[str, Found]:
    """The settings of each subject and its syncs a commit; raises where one is not as durable as the others."""
    found: dict[str, Found] = {}
    program = emmett.found()
    beside: dict[str, Store] = {} if program is None else {EMMETT: partial(_emmett, program)}
    for subject, store in (SUBJECTS | beside).items():
        with server.fresh() as url:
            time.sleep(REPORTED)
            before = ask(url, SYNCS)[0][0]
            settings = store(url)
            time.sleep(REPORTED)
            syncs = (ask(url, SYNCS)[0][0] - before) / COMMITS
            found[subject] = {
                "PostgreSQL": ask(url, "SHOW server_version")[0][0],
                **dict(zip(DURABLE, settings, strict=True)),
            }
            found[subject]["syncs a commit"] = syncs
        if set(settings) != {"on"} or syncs < 1:
            raise SystemExit(f"bench: {subject} is not as durable as the others: {found[subject]}")
    if program is not None:
        found[EMMETT] |= program.versions()
    return found


async def _ours(url: str) -> tuple[Any, ...]:
    database = await opened(url)
    async with database.transaction() as transaction:
        [settings] = transaction.execute(SETTINGS)
    for number in range(COMMITS):
        await common.commit(database, [common.new_order(number, 1)])
    await database.close()
    return settings


def _peer(url: str, *, functions: bool) -> tuple[Any, ...]:
    app = peer.orders_app(url, functions=functions)
    recorder = peer.recorder_of(app)
    with recorder.datastore.cursor() as cursor:
        settings = cursor.execute(SETTINGS).fetchone()
    [template] = stored_order(app, 0, 1)
    for number in range(COMMITS):
        recorder.insert_events([StoredEvent(order_id(number), 1, template.topic, template.state)])
    app.close()
    assert settings is not None
    return tuple(settings.values())


async def _group(url: str) -> tuple[Any, ...]:
    group = await Group.open(url)
    settings = await group.ask(SETTINGS)
    for number in range(COMMITS):
        await group.commit([tables.event_row(number, 1, any_json(1))])
    await group.close()
    return settings


def _emmett(program: Emmett, url: str) -> tuple[Any, ...]:
    answer = program.run("durability", url, statement=SETTINGS, commits=COMMITS)
    return tuple(answer["settings"])


Store = Callable[[str], tuple[Any, ...]]
SUBJECTS: dict[str, Store] = {
    OURS: lambda url: asyncio.run(_ours(url)),
    PEER: lambda url: _peer(url, functions=True),
    PEER_DEFAULT: lambda url: _peer(url, functions=False),
    GROUP: lambda url: asyncio.run(_group(url)),
}
