"""The two connections of a channel: one to publish on and one to read from, each opened again when it is needed and gone.

A server that is short of memory or disk stops reading from whoever publishes; acknowledgements must reach it all the same.
"""

from __future__ import annotations

import asyncio

from headwater.adapters.rabbitmq.connection import Connection, connect
from headwater.adapters.rabbitmq.publishing import Publisher, open_publisher
from headwater.adapters.rabbitmq.url import Place


class Lines:
    """The connections to one server; all that fails is `Closed`."""

    def __init__(self, place: Place) -> None:
        self._place = place
        self._publisher: Publisher | None = None
        self._reading: Connection | None = None
        self._one_at_a_time = asyncio.Lock()

    @property
    def blocked(self) -> bool:
        """Whether the server reads nothing for now from whoever publishes."""
        return self._publisher is not None and bool(self._publisher.connection.blocked)

    async def publishing(self) -> Publisher:
        """A publisher that works. Raises Closed."""
        async with self._one_at_a_time:
            known = self._publisher
            if known is not None and known.closed is None:
                return known
            alive = known is not None and known.connection.closed is None
            connection = known.connection if known is not None and alive else await connect(self._place)
            self._publisher = await open_publisher(connection)
            return self._publisher

    async def reading(self) -> Connection:
        """A connection that works, to read from. Raises Closed."""
        async with self._one_at_a_time:
            if self._reading is None or self._reading.closed is not None:
                self._reading = await connect(self._place)
            return self._reading

    async def close(self) -> None:
        """Close both."""
        publishing = self._publisher.connection if self._publisher is not None else None
        for connection in (publishing, self._reading):
            if connection is not None:
                await connection.close()
        self._publisher = self._reading = None
