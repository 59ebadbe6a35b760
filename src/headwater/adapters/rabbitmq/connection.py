"""A connection to a RabbitMQ server in AMQP 0-9-1: whatever comes is taken apart at once, and handed to its session.

Why not a client of others: those there are take a task, several awaits and some dictionaries a frame, and a message has three
(ADR 0011). Their library of methods, pamqp, is used for all that is not a message.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any, Final

from pamqp import commands
from pamqp.common import FieldTable

from headwater.adapters.rabbitmq import frames
from headwater.adapters.rabbitmq.session import GOODBYE, Closed, Session
from headwater.adapters.rabbitmq.url import Place
from headwater.errors import ChannelError

GREETING: Final = b"AMQP\x00\x00\x09\x01"
LARGEST: Final = 131_072
"""Bytes of a frame, where the server sets no limit."""
SESSIONS: Final = 2_047
FAREWELL: Final = 2.0
"""Seconds that a server has to answer a goodbye."""
CAPABILITIES: Final[FieldTable] = {
    "authentication_failure_close": True,
    "basic.nack": True,
    "connection.blocked": True,
    "consumer_cancel_notify": True,
    "publisher_confirms": True,
}


class Connection(asyncio.Protocol):
    """Open it with `connect`. All that fails in it is `Closed`, a ChannelError."""

    def __init__(self, place: Place) -> None:
        self.place = place
        self.closed: Closed | None = None
        self.blocked = ""
        self.on_blocked: Callable[[str], None] = lambda why: None
        self.version: tuple[int, ...] = ()
        self.frame_max = LARGEST
        self._most = SESSIONS
        self._sessions: dict[int, Session] = {}
        self._own = self._sessions[0] = Session(self, 0)
        self._transport: asyncio.Transport | None = None
        self._rest = b""
        self._heard = 0.0
        self._beating: asyncio.TimerHandle | None = None
        self._room = asyncio.Event()
        self._room.set()
        self._gone: asyncio.Future[None] = asyncio.get_running_loop().create_future()

    async def session(self) -> Session:
        """A new session. Raises Closed, and ChannelError while the server takes nothing."""
        number = next(n for n in range(1, self._most + 2) if n not in self._sessions)
        if number > self._most:
            raise Closed(f"{self.place.name} takes {self._most} sessions a connection: use fewer topics or partitions")
        if self.closed is not None:
            raise self.closed.again()
        if self.blocked:
            raise takes_nothing(self.blocked)
        session = self._sessions[number] = Session(self, number)
        await session.call(commands.Channel.Open())
        return session

    async def close(self) -> None:
        """Say goodbye, and wait for what the server has to say to that, if it listens."""
        if self.blocked:
            self.abort(Closed("the connection was closed"))
        if self.closed is None:
            asked = self._own.ask(commands.Connection.Close(*GOODBYE))
            await asyncio.wait({asked, self._gone}, timeout=FAREWELL, return_when=asyncio.FIRST_COMPLETED)
            self.abort(Closed("the connection was closed"))
            if not asked.cancelled() and asked.done():
                asked.exception()
        await asyncio.wait({self._gone}, timeout=FAREWELL)

    def abort(self, why: Closed) -> None:
        """Give it up at once."""
        self._end(why)
        if self._transport is not None:
            self._transport.abort()

    async def room(self) -> None:
        """Until the server reads what was written, or says that it will not for now. Raises Closed."""
        if not self._room.is_set() and self.closed is None:
            try:
                await asyncio.wait_for(self._room.wait(), self.place.options.timeout)
            except TimeoutError:
                self.abort(self._silent("reads nothing"))
        if self.closed is not None:
            raise self.closed.again()

    # --- for sessions ---

    def write(self, data: bytes) -> None:
        """Send bytes."""
        if self._transport is not None and self.closed is None and not self._transport.is_closing():
            self._transport.write(data)

    async def answer(self, waiting: asyncio.Future[Any], what: str) -> Any:
        """What a future comes to; the connection is given up where it takes too long."""
        try:
            return await asyncio.wait_for(waiting, self.place.options.timeout)
        except TimeoutError:
            self.abort(self._silent(f"does not answer {what}"))
            raise self._silent(f"does not answer {what}") from None

    def forget(self, number: int) -> None:
        """A session is over: its number is free."""
        self._sessions.pop(number, None)

    def _silent(self, what: str) -> Closed:
        return Closed(f"{self.place.name} {what} for {self.place.options.timeout:g} s: look at the server")

    # --- the protocol of asyncio ---

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self._transport = transport
        transport.write(GREETING)

    def data_received(self, data: bytes) -> None:
        self._heard = asyncio.get_running_loop().time()
        data = self._rest + data if self._rest else data
        at, end = 0, len(data)
        while end - at >= frames.OVERHEAD:
            kind, number, size = frames.HEAD.unpack_from(data, at)
            stop = at + 7 + size
            if stop >= end:
                break
            if data[stop] != frames.END or kind > frames.HEARTBEAT:
                self.abort(Closed(f"{self.place.name} does not speak AMQP 0-9-1: check host and port"))
                return
            self._take(kind, number, data[at + 7 : stop])
            at = stop + 1
        self._rest = data[at:]

    def connection_lost(self, exc: Exception | None) -> None:
        why = f": {exc}" if exc else ""
        self._end(Closed(f"{self.place.name} has cut the connection{why}"))
        if not self._gone.done():
            self._gone.set_result(None)

    def pause_writing(self) -> None:
        self._room.clear()

    def resume_writing(self) -> None:
        self._room.set()

    def _take(self, kind: int, number: int, payload: bytes) -> None:
        session = self._sessions.get(number)
        if session is None or kind == frames.HEARTBEAT:
            return
        if kind == frames.METHOD:
            if number or not self._control(payload):
                session.method(payload)
        elif kind == frames.HEADER:
            session.header(payload)
        elif kind == frames.BODY:
            session.body(payload)

    def _control(self, payload: bytes) -> bool:
        """What the server says about the connection; whether it was that."""
        index = int.from_bytes(payload[:4])
        if index not in (
            commands.Connection.Close.index,
            commands.Connection.Blocked.index,
            commands.Connection.Unblocked.index,
        ):
            return False
        method = commands.INDEX_MAPPING[index]()
        method.unmarshal(payload[4:])
        match method:
            case commands.Connection.Close():
                self._own.send(commands.Connection.CloseOk())
                self._end(Closed(str(method.reply_text), int(method.reply_code or 0)))
                if self._transport is not None:
                    self._transport.close()
            case commands.Connection.Blocked():
                self.blocked = str(method.reason) or "it does not say why"
                self._room.set()
                self.on_blocked(self.blocked)
            case _:
                self.blocked = ""
        return True

    def _end(self, why: Closed) -> None:
        if self.closed is not None:
            return
        self.closed = why
        self._room.set()
        if self._beating is not None:
            self._beating.cancel()
        for session in list(self._sessions.values()):
            session.end(why)

    # --- opening ---

    async def greet(self) -> None:
        """Say who we are, and agree on how to talk. Raises Closed."""
        start = await self.answer(self._own.expect(), "a greeting")
        self.version = _numbers(str(start.server_properties.get("version", "")))
        place, options = self.place, self.place.options
        wanted = options.auth.upper()
        if wanted not in start.mechanisms.split():
            self.abort(Closed(f"{place.name} takes {start.mechanisms}, and no {wanted}: choose another auth"))
            raise Closed(f"{place.name} takes {start.mechanisms}, and no {wanted}: choose another auth", 403)
        proof = "" if options.auth == "external" else f"\0{place.user}\0{place.password}"
        ours: FieldTable = {"product": "headwater", "capabilities": CAPABILITIES}
        tune = await self._own.call(commands.Connection.StartOk(ours, wanted, proof, "en_US"))
        self._most = min(tune.channel_max or SESSIONS, SESSIONS)
        self.frame_max = tune.frame_max or LARGEST
        heartbeat = min(tune.heartbeat or options.heartbeat, options.heartbeat)
        self._own.send(commands.Connection.TuneOk(self._most, self.frame_max, heartbeat))
        await self._own.call(commands.Connection.Open(place.vhost))
        self._beat(heartbeat)

    def _beat(self, seconds: int) -> None:
        """Show a sign of life, and look for one."""
        loop = asyncio.get_running_loop()
        if loop.time() - self._heard > 2 * seconds:
            self.abort(Closed(f"{self.place.name} shows no sign of life for {2 * seconds} s: look at the server"))
            return
        self.write(frames.BEAT)
        self._beating = loop.call_later(seconds / 2, self._beat, seconds)


async def connect(place: Place) -> Connection:
    """An open connection. Raises Closed: code 403 where the user, 530 where the vhost is wrong."""
    loop = asyncio.get_running_loop()
    connection = Connection(place)
    try:
        async with asyncio.timeout(place.options.timeout):
            name = place.host if place.tls else None
            await loop.create_connection(
                lambda: connection, place.host, place.port, ssl=place.tls, server_hostname=name
            )
    except TimeoutError:
        raise Closed(f"{place.name} does not answer for {place.options.timeout:g} s: look at the server") from None
    except OSError as error:
        raise Closed(
            f"{place.name} cannot be reached ({error}): start it, or check host, port and tls in its URL"
        ) from error
    try:
        await connection.greet()
    except BaseException as error:
        connection.abort(Closed("it was not wanted any more"))
        if isinstance(error, Closed) and not error.code:
            raise Closed(f"{error.why}: check host, port and tls in its URL") from None
        raise
    return connection


def takes_nothing(why: str) -> ChannelError:
    """What is told whoever wants to publish while the server lacks something."""
    return ChannelError(
        f"RabbitMQ takes no messages for now ({why}): free some of what it lacks; work goes on by itself"
    )


def _numbers(version: str) -> tuple[int, ...]:
    return tuple(int(part) for part in version.split(".") if part.isdecimal())
