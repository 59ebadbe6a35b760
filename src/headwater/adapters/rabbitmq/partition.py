"""A partition as the member that reads it has it: what has come and was not given out, and what was given out."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from typing import Final

from pamqp import commands

from headwater.adapters.rabbitmq import frames
from headwater.adapters.rabbitmq.binding import read
from headwater.adapters.rabbitmq.connection import Connection
from headwater.adapters.rabbitmq.session import Closed, Session, Silent

Item = tuple[int, bytes, bytes]
"""The tag of a delivery, its properties and its body."""
TAG: Final = "partition"


class Partition(Silent):
    """Listens to one queue. `news` is called when something has come, `lost` when the session has ended."""

    def __init__(self, topic: str, number: int, queue: str, news: Callable[[], None], lost: Callable[[], None]) -> None:
        self.topic = topic
        self.number = number
        self.queue = queue
        self.waiting: deque[Item] = deque()
        self.given = 0
        self.leaving = False
        self.lost: Closed | None = None
        self._news = news
        self._lost = lost
        self._connection: Connection
        self._session: Session | None = None

    async def open(self, connection: Connection, prefetch: int) -> None:
        """Stand in line for the queue; what is in it comes when nobody else has it any more. Raises Closed."""
        session = await connection.session()
        session.listener = self
        self._connection, self._session = connection, session
        try:
            await session.call(
                commands.Basic.Qos(prefetch_count=prefetch), commands.Basic.Consume(queue=self.queue, consumer_tag=TAG)
            )
        except BaseException:
            session.drop()
            raise

    async def close(self) -> None:
        """Leave the queue to others; what was not settled is again in it, in its place."""
        session, self._session = self._session, None
        self.waiting.clear()
        if session is not None:
            await session.close()

    def take(self, most: int) -> list[Item]:
        """The next items, to be given out."""
        waiting = self.waiting
        found = [waiting.popleft() for _ in range(min(most, len(waiting)))]
        self.given += len(found)
        return found

    def take_back(self, items: list[Item]) -> None:
        """These were given out, and shall be again."""
        self.given -= len(items)
        self.waiting.extendleft(reversed(items))

    def settle(self, items: list[Item]) -> None:
        """All up to the last of these is settled."""
        self.given -= len(items)
        if self._session is not None and self._session.closed is None:
            self._connection.write(frames.acknowledging(self._session.number, items[-1][0]))

    def oldest(self, given: Item | None) -> int | None:
        """When the oldest was published that came and is not settled, in seconds; None where that is not known."""
        first = given or (self.waiting[0] if self.waiting else None)
        return (read(first[1]).time or None) if first else None

    # --- what the server says ---

    def delivered(self, tag: int, raw: bytes, body: bytes) -> None:
        """A message has come."""
        self.waiting.append((tag, raw, body))
        self._news()

    def ended(self, why: Closed) -> None:
        """The session is over: what came of it comes again."""
        self.lost = why
        self.waiting.clear()
        self._lost()
