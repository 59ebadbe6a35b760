"""Publishing in confirm mode: a batch is written at once, in order, and the server answers for each message, in any order."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Iterator, Sequence
from typing import Final

from pamqp import commands

from headwater.adapters.rabbitmq.connection import Connection, takes_nothing
from headwater.adapters.rabbitmq.session import Closed, Session
from headwater.errors import ChannelError, ChannelFull

AT_ONCE: Final = 1 << 18
"""Bytes that are written before it is looked whether the server reads."""


class Sending:
    """A batch on its way: how many the server has not answered for, and behind which exchanges there was nobody."""

    def __init__(self, exchanges: frozenset[str]) -> None:
        self.exchanges = exchanges
        self.open = 0
        self.written = False
        self.refused = 0
        self.nowhere: set[str] = set()
        self.done: asyncio.Future[None] = asyncio.get_running_loop().create_future()

    def fail(self, why: ChannelError) -> None:
        """Nobody knows what became of the rest."""
        if not self.done.done():
            self.done.set_exception(why)
            self.done.exception()

    def answered(self, *, taken: bool) -> None:
        """The server has answered for one."""
        self.open -= 1
        self.refused += not taken
        self.finish()

    def finish(self) -> None:
        """It is done when all is written and answered for."""
        if self.written and not self.open and not self.done.done():
            self.done.set_result(None)


class Publisher:
    """A session that publishes. Open it with `open_publisher`; when it has ended, open another."""

    def __init__(self, connection: Connection, session: Session) -> None:
        self.connection = connection
        self.number = session.number
        self.largest = connection.frame_max
        self._session = session
        self._last = 0
        self._order: deque[int] = deque()
        self._open: dict[int, Sending] = {}
        self._sendings: list[Sending] = []
        session.listener = self
        connection.on_blocked = self._blocked

    @property
    def closed(self) -> Closed | None:
        """Why it takes nothing any more."""
        return self._session.closed

    async def publish(self, messages: Sequence[bytes], exchanges: frozenset[str]) -> set[str]:
        """Publish messages as frames, in order; behind which of their exchanges there was no queue. Raises ChannelError."""
        sending = Sending(exchanges)
        self._sendings.append(sending)
        try:
            for portion in _portions(messages):
                await self.connection.room()
                self._write(portion, sending)
                if sending.done.done():
                    break
            sending.written = True
            sending.finish()
            await self._answers(sending)
        finally:
            self._sendings.remove(sending)
        if sending.refused:
            raise ChannelFull(
                f"RabbitMQ refused {sending.refused} of {len(messages)} messages: a queue of {', '.join(sorted(exchanges))} "
                "holds as much as it may, or has lost its leader; let its slowest group catch up"
            )
        return sending.nowhere

    def _write(self, messages: Sequence[bytes], sending: Sending) -> None:
        if self._session.closed is not None:
            raise self._session.closed.again()
        if self.connection.blocked:
            raise takes_nothing(self.connection.blocked)
        numbers = range(self._last + 1, self._last + len(messages) + 1)
        self._order.extend(numbers)
        self._open.update(dict.fromkeys(numbers, sending))
        sending.open += len(messages)
        self._last += len(messages)
        self.connection.write(b"".join(messages))

    async def _answers(self, sending: Sending) -> None:
        """Wait for as long as answers come."""
        patience, left = self.connection.place.options.timeout, -1
        while not sending.done.done() and left != len(self._open):
            left = len(self._open)
            await asyncio.wait({sending.done}, timeout=patience)
        if not sending.done.done():
            name = self.connection.place.name
            self.connection.abort(Closed(f"{name} has confirmed nothing for {patience:g} s: look at the server"))
        sending.done.result()

    def _blocked(self, why: str) -> None:
        for sending in self._sendings:
            sending.fail(takes_nothing(why))

    # --- what the server says ---

    def delivered(self, tag: int, raw: bytes, body: bytes) -> None:
        """Nothing is delivered here."""

    def confirmed(self, tag: int, *, multiple: bool, taken: bool) -> None:
        """The server has taken a message, or all up to it, or refuses to."""
        if not multiple:
            sending = self._open.pop(tag, None)
            if sending is not None:
                sending.answered(taken=taken)
        while self._order and (self._order[0] <= tag if multiple else self._order[0] not in self._open):
            sending = self._open.pop(self._order.popleft(), None)
            if sending is not None:
                sending.answered(taken=taken)

    def returned(self, exchange: str) -> None:
        """A message led nowhere behind this exchange."""
        for sending in self._sendings:
            if exchange in sending.exchanges:
                sending.nowhere.add(exchange)

    def ended(self, why: Closed) -> None:
        """The session is over, by the server or with its connection."""
        self._open.clear()
        self._order.clear()
        for sending in self._sendings:
            sending.fail(why.again())


async def open_publisher(connection: Connection) -> Publisher:
    """A publisher on a connection of its own: the server may stop reading from it. Raises Closed."""
    session = await connection.session()
    await session.call(commands.Confirm.Select())
    return Publisher(connection, session)


def _portions(messages: Sequence[bytes]) -> Iterator[Sequence[bytes]]:
    """Messages in portions that are not much larger than what is written at once."""
    start = size = 0
    for end, message in enumerate(messages, start=1):
        size += len(message)
        if size >= AT_ONCE or end == len(messages):
            yield messages[start:end]
            start, size = end, 0
