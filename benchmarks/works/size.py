"""W6: bytes an event on disk; with the metadata that `send` writes, with all of it, and the command keys apart."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator

from benchmarks import ours
from benchmarks.case import Case, Setting
from benchmarks.load import Figures
from benchmarks.logs import bytes_of, fill_ours_with, filled
from benchmarks.names import OURS, PEER, RAW
from benchmarks.sample import EVENTS_AN_ORDER
from headwater.message import encode_metadata
from headwater.store import CommandKey

FULL_EVENTS = 50_000
KEYS = 20_000


def bytes_an_event(setting: Setting) -> Iterator[Case]:
    def of(subject: str) -> Figures:
        return {"bytes an event": bytes_of(filled(setting, subject, setting.events)) / setting.events}

    def peer() -> Figures:
        return {"bytes an event": bytes_of(filled(setting, PEER, 100_000)) / 100_000}

    plain = {OURS: lambda: of(OURS), PEER: peer, RAW: lambda: of(RAW)}
    yield Case("W6", f"{setting.events:,} events, metadata of send", plain, PEER, RAW, rounds=1)
    full = {OURS: lambda: _full(setting), PEER: peer}
    yield Case("W6", f"{FULL_EVENTS:,} events, full metadata", full, PEER, rounds=1)
    yield Case("W6", f"{KEYS:,} command keys", {OURS: lambda: asyncio.run(_keys(setting))}, rounds=1)


def _full(setting: Setting) -> Figures:
    with setting.fresh() as folder:
        path = folder / "full.db"
        fill_ours_with(path, range(FULL_EVENTS // EVENTS_AN_ORDER), encode_metadata(ours.FULL))
        return {"bytes an event": bytes_of(path) / FULL_EVENTS}


async def _keys(setting: Setting) -> Figures:
    sizes = []
    with setting.fresh() as folder:
        for keyed in (True, False):
            path = folder / f"{keyed}.db"
            database = await ours.opened(path)
            for start in range(0, KEYS, 500):
                writes = []
                for number in range(start, start + 500):
                    key = CommandKey("", ours.CLOCK.new_id(), bytes(16), ours.CLOCK.now()) if keyed else None
                    writes.append(ours.new_order(number, 1, key=key))
                await ours.commit(database, writes)
            await database.close()
            sizes.append(bytes_of(path))
    return {"bytes a key": (sizes[0] - sizes[1]) / KEYS}
