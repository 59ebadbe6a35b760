"""A session: what AMQP calls a channel. Calls are answered in order; deliveries and confirms go to whoever listens."""

from __future__ import annotations

import asyncio
from collections import deque
from typing import Any, Final, Protocol

from pamqp import commands
from pamqp.base import Frame
from pamqp.frame import marshal, unmarshal

from headwater.adapters.rabbitmq import frames
from headwater.errors import ChannelError

ADVICE: Final = {
    403: "give the user of the URL that right on the vhost",
    404: "make it with: headwater channel apply",
}
"""What to do about what the server says, by its code."""
GOODBYE: Final = (200, "goodbye", 0, 0)


class Closed(ChannelError):
    """The server has ended a session or a connection, or is gone: `code` is AMQP's, 0 where it gave none."""

    def __init__(self, why: str, code: int = 0) -> None:
        advice = f": {ADVICE[code]}" if code in ADVICE else ""
        super().__init__(f"{why}{advice}")
        self.why = why
        self.code = code

    def again(self) -> Closed:
        """The same to be raised anew: an error that is raised again and again keeps all its ways here."""
        return Closed(self.why, self.code)


class Listener(Protocol):
    """Hears what comes in a session without being called for."""

    def delivered(self, tag: int, raw: bytes, body: bytes) -> None:
        """A message: its tag, its properties as they came, and its body."""
        ...

    def confirmed(self, tag: int, *, multiple: bool, taken: bool) -> None:
        """The server has taken a published message, or all up to it, or refuses to."""
        ...

    def returned(self, exchange: str) -> None:
        """A message led nowhere behind this exchange."""
        ...

    def ended(self, why: Closed) -> None:
        """The session is over, by the server or with its connection."""
        ...


class Line(Protocol):
    """The connection that a session is part of."""

    def write(self, data: bytes) -> None:
        """Send bytes."""
        ...

    async def answer(self, waiting: asyncio.Future[Any], what: str) -> Any:
        """What a future comes to; the connection is given up where it takes too long."""
        ...

    def forget(self, number: int) -> None:
        """A session is over: its number is free."""
        ...


class Silent:
    """Listens to nothing."""

    def delivered(self, tag: int, raw: bytes, body: bytes) -> None: ...

    def confirmed(self, tag: int, *, multiple: bool, taken: bool) -> None: ...

    def returned(self, exchange: str) -> None: ...

    def ended(self, why: Closed) -> None: ...


class Session:
    """One of a connection, with its number; session 0 is the connection's own."""

    def __init__(self, line: Line, number: int) -> None:
        self.number = number
        self.listener: Listener = Silent()
        self.closed: Closed | None = None
        self._line = line
        self._waiting: deque[asyncio.Future[Any]] = deque()
        self._tag = 0
        self._returned = False
        self._raw = b""
        self._body: list[bytes] = []
        self._left = 0

    def send(self, frame: Frame) -> None:
        """Send a method that is not answered."""
        if self.closed is None:
            self._line.write(marshal(frame, self.number))

    def ask(self, frame: Frame) -> asyncio.Future[Any]:
        """Send a method; its answer comes after those to methods that were sent before."""
        if self.closed is None:
            self._line.write(marshal(frame, self.number))
        return self.expect()

    def expect(self) -> asyncio.Future[Any]:
        """The next answer that nobody waits for yet."""
        waiting: asyncio.Future[Any] = asyncio.get_running_loop().create_future()
        if self.closed is None:
            self._waiting.append(waiting)
        else:
            waiting.set_exception(self.closed.again())
        return waiting

    async def call(self, *methods: Frame) -> Any:
        """Send methods at once; the answer to the last. Raises Closed if the server refuses one."""
        asked = [self.ask(one) for one in methods]
        answer = None
        for one, method in zip(asked, methods, strict=True):
            try:
                answer = await self._line.answer(one, method.name)
            except BaseException:
                for other in asked:
                    other.add_done_callback(_heed)
                raise
        return answer

    async def close(self) -> None:
        """Leave; what was delivered and not settled goes back to its queue, at its place."""
        if self.closed is None:
            self.listener = Silent()
            try:
                await self.call(commands.Channel.Close(*GOODBYE))
            except Closed:
                pass

    def drop(self) -> None:
        """Leave without waiting for it."""
        self.listener = Silent()
        self.ask(commands.Channel.Close(*GOODBYE)).add_done_callback(_heed)

    def end(self, why: Closed) -> None:
        """It is over: whoever waits is told why."""
        if self.closed is not None:
            return
        self.closed = why
        while self._waiting:
            waiting = self._waiting.popleft()
            if not waiting.done():
                waiting.set_exception(why.again())
        self.listener.ended(why)

    # --- what comes in ---

    def method(self, payload: bytes) -> None:
        """A method: those of messages are read here, which of them there are many."""
        index = payload[:4]
        if index == frames.DELIVER:
            at = 5 + payload[4]
            self._tag = int.from_bytes(payload[at : at + 8])
            self._returned = False
        elif index in (frames.ACK, frames.NACK):
            tag = int.from_bytes(payload[4:12])
            self.listener.confirmed(tag, multiple=bool(payload[12] & 1), taken=index == frames.ACK)
        elif index == frames.RETURN:
            at = 7 + payload[6]
            self._returned = True
            self.listener.returned(payload[at + 1 : at + 1 + payload[at]].decode())
        else:
            self._control(unmarshal(frames.frame(frames.METHOD, self.number, payload))[2])

    def header(self, payload: bytes) -> None:
        """The properties of a message, and how large its body is."""
        self._left = int.from_bytes(payload[4:12])
        self._raw = payload[12:]
        if not self._left:
            self._whole(b"")

    def body(self, payload: bytes) -> None:
        """A part of the body of a message."""
        self._left -= len(payload)
        if self._left:
            self._body.append(payload)
        elif self._body:
            self._whole(b"".join([*self._body, payload]))
            self._body.clear()
        else:
            self._whole(payload)

    def _whole(self, body: bytes) -> None:
        if not self._returned:
            self.listener.delivered(self._tag, self._raw, body)

    def _control(self, frame: Any) -> None:
        match frame:
            case commands.Channel.Close():
                self.send(commands.Channel.CloseOk())
                self._line.forget(self.number)
                self.end(Closed(frame.reply_text, frame.reply_code or 0))
            case commands.Channel.CloseOk():
                self._line.forget(self.number)
                self._answered(frame)
                self.end(Closed("the session was left"))
            case commands.Basic.Cancel():
                self.send(commands.Channel.Close(*GOODBYE))
                self.end(Closed("NOT_FOUND - the queue is gone", 404))
            case _:
                self._answered(frame)

    def _answered(self, frame: Any) -> None:
        if self._waiting:
            waiting = self._waiting.popleft()
            if not waiting.done():
                waiting.set_result(frame)


def _heed(waiting: asyncio.Future[Any]) -> None:
    if not waiting.cancelled():
        waiting.exception()
