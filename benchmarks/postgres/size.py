"""W6: bytes an event on disk, indexes and all but the WAL; with the metadata that `send` writes, and with all of it."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator

from benchmarks import ours as common
from benchmarks.case import Case, Setting
from benchmarks.load import Figures
from benchmarks.names import OURS, PEER, RAW
from benchmarks.sample import EVENTS_AN_ORDER
from benchmarks.works.log import PEER_EVENTS
from benchmarks.works.size import FULL_EVENTS
from headwater.message import encode_metadata

from . import peer, raw
from .server import Server, bytes_of
from .subjects import fill_ours, filled, opened


def bytes_an_event(setting: Setting, server: Server) -> Iterator[Case]:
    def of(subject: str, events: int) -> Figures:
        with server.fresh() as empty:
            _prepare(subject, empty)
            return {"bytes an event": bytes_of(filled(server, subject, events), empty) / events}

    def full() -> Figures:
        with server.fresh() as url, server.fresh() as empty:
            _prepare(OURS, empty)
            asyncio.run(fill_ours(url, range(FULL_EVENTS // EVENTS_AN_ORDER), encode_metadata(common.FULL)))
            return {"bytes an event": bytes_of(url, empty) / FULL_EVENTS}

    def theirs() -> Figures:
        return of(PEER, PEER_EVENTS)

    plain = {
        OURS: lambda: of(OURS, setting.events),
        PEER: theirs,
        RAW: lambda: of(RAW, setting.events),
    }
    yield Case("W6 PostgreSQL", f"{setting.events:,} events, metadata of send", plain, PEER, RAW, rounds=1)
    yield Case("W6 PostgreSQL", f"{FULL_EVENTS:,} events, full metadata", {OURS: full, PEER: theirs}, PEER, rounds=1)


def _prepare(subject: str, url: str) -> None:
    """Make a subject's tables."""
    if subject == OURS:

        async def make() -> None:
            await (await opened(url)).close()

        asyncio.run(make())
    elif subject == PEER:
        peer.orders_app(url).close()
    else:
        raw.prepare(url)
