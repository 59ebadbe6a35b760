"""What leaves the service: which messages of the log are published, up to where, and as what."""

from __future__ import annotations

from collections.abc import Sequence

from headwater.channel import Channel, Publication
from headwater.database import Database
from headwater.inbox import Held
from headwater.message import Recorded
from headwater.outbox import topic_of
from headwater.wire import to_headers

EVERY = 1 << 31


class Leaving:
    """The messages of a service's log that go to its channel; what its relay holds has not gone."""

    def __init__(self, service: str, database: Database, channel: Channel) -> None:
        self.service = service
        self.name = f"{service}.relay"
        self.database = database
        self.channel = channel

    async def position(self) -> int:
        """Up to where the log is published, as the channel has kept it, or the database where it does not."""
        kept = await self.channel.producer_position(self.service)
        return await self.database.checkpoint(self.name) if kept is None else kept

    async def published(self, page: Sequence[Recorded]) -> list[tuple[str, Recorded]]:
        """Of a page of the log below that position, what has been published, each with its topic."""
        leaving = [(topic, one) for one in page if (topic := topic_of(one, self.service))]
        held = await self.held(list({one.key for _, one in leaving}))
        return [(topic, one) for topic, one in leaving if one.key not in held or one.version < first_of(held[one.key])]

    async def held(self, keys: Sequence[str]) -> dict[str, list[Held]]:
        """What the relay holds of these keys."""
        found = await self.database.held_keys(self.name, keys)
        rows = [await self.database.held_of(self.name, key, EVERY) for key in sorted(found)]
        return {held[0].key: held for held in rows if held}

    def publication(self, message: Recorded, topic: str, group: str = "") -> Publication:
        """A message as it goes on the wire."""
        return Publication(topic, message.key, to_headers(message, self.service), message.data, group=group)


def first_of(held: Sequence[Held]) -> int:
    """The first version that is held of a key."""
    return held[0].message.version
