"""A service `till` that is in no way ours, as clients of other makers play it, and a service of ours that hears it."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

from headwater import App, Event
from headwater.app import open_channel
from headwater.clock import SystemClock

TOPIC = "till.Receipt"


class Rang(Event, service="till", category="Receipt"):
    receipt: str
    cents: int


def attributes(receipt: str, version: int) -> dict[str, Any]:
    """Those of the event by which a receipt gets to a version."""
    return {
        "specversion": "1.0",
        "id": f"{receipt}-{version}",
        "source": "till",
        "type": "till.Rang",
        "subject": f"till.Receipt/{receipt}",
        "time": "2026-01-02T03:04:05Z",
        "datacontenttype": "application/json",
        "streamversion": str(version),
        "partitionkey": f"till.Receipt/{receipt}",
    }


class Hearer:
    """A service that hears the till: what it was given, in order."""

    def __init__(self, folder: Path, channel: str) -> None:
        self.app = App("books", store=f"sqlite:///{folder}/books.db", channel=channel)
        self.heard: list[tuple[str, int]] = []
        self._more = asyncio.Event()
        self.app.on(Rang, name="enter")(self.enter)

    async def enter(self, event: Rang) -> None:
        self.heard.append((event.receipt, event.cents))
        self._more.set()

    async def hears(self, count: int) -> list[tuple[str, int]]:
        """What was heard once it is so much."""
        async with asyncio.timeout(20):
            while len(self.heard) < count:
                self._more.clear()
                await self._more.wait()
        return self.heard


@asynccontextmanager
async def running(app: App) -> AsyncIterator[App]:
    """An app that runs, on a channel on which all that it needs was made."""
    channel = open_channel(app.settings().channel, SystemClock())
    await channel.open()
    await channel.establish(app.routes())
    await channel.close()
    async with app:
        yield app
