"""Makes the topics, queues and groups of the shop on its channel, as `headwater channel apply` does for each service."""

from __future__ import annotations

from headwater.app import open_channel
from headwater.clock import SystemClock

from . import inventory, orders, payments, shipping
from .folder import Folder


async def make_topics(folder: Folder) -> None:
    """Make what is missing for the four services. Raises ChannelError or ConfigurationError."""
    channel = open_channel(folder.channel(), SystemClock())
    await channel.open()
    try:
        for service in (orders, inventory, payments, shipping):
            await channel.establish(service.app.routes())
    finally:
        await channel.close()
