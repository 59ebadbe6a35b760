"""Who else is in a group: members tell one another, each to all, that they are there, and since when.

Each has a queue that ends with its connection, and says every half second of which group and topics it is. It speaks on the
connection on which it publishes: a server that is short of something stops reading from one on which anything is said. Whoever is not heard
of for two seconds counts as gone; that may be wrong, and does no harm: a queue has one active consumer at a time, and a member
that was only slow keeps what it has until it hears of the others again.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from typing import Final

import msgspec
from msgspec import Struct
from msgspec.structs import replace
from pamqp import commands

from headwater.adapters.rabbitmq import frames
from headwater.adapters.rabbitmq.connection import Connection
from headwater.adapters.rabbitmq.session import Session, Silent
from headwater.adapters.rabbitmq.topology import Names

EVERY: Final = 0.5
"""Seconds between two words of a member; more where there are many."""
MANY: Final = 8
GONE: Final = 4
"""How many words may be missed."""
NO_PROPERTIES: Final = b"\x00\x00"


class Word(Struct, frozen=True):
    """What a member says: its name, which sorts by when it came, its topics, and whether it is leaving."""

    name: str
    topics: tuple[str, ...]
    leaving: bool = False


_encode = msgspec.json.Encoder().encode
_decode = msgspec.json.Decoder(Word).decode


class Roster(Silent):
    """The members of a group that are heard of, seen by one of them. `changed` is called when it is not as before."""

    def __init__(self, name: str, group: str, topics: Sequence[str], changed: Callable[[], None]) -> None:
        self.word = Word(name, tuple(topics))
        self._group = group
        self._changed = changed
        self._heard: dict[str, tuple[Word, float]] = {}
        self._hearing: Session | None = None
        self._speaking: Session | None = None
        self._connection: Connection
        self._to_all = b""
        self._spoke = 0.0
        self._timer: asyncio.TimerHandle | None = None

    @property
    def speaks(self) -> bool:
        """Whether others can hear of it."""
        return self._speaking is not None and self._speaking.closed is None

    async def listen(self, connection: Connection, names: Names) -> None:
        """Hear of the others. Raises Closed."""
        session = await connection.session()
        session.listener = self
        queue = f"{names.members}/{self.word.name}"
        await session.call(
            commands.Queue.Declare(queue=queue, exclusive=True, auto_delete=True),
            commands.Queue.Bind(queue=queue, exchange=names.members, routing_key=self._group),
            commands.Basic.Consume(queue=queue, no_ack=True, consumer_tag="roster"),
        )
        self._heard.clear()
        self._hearing = session

    async def speak_on(self, connection: Connection, names: Names) -> None:
        """Be heard of. Raises Closed."""
        self._speaking = await connection.session()
        self._connection = connection
        self._to_all = frames.publishing(self._speaking.number, names.members, self._group)
        self._spoke = asyncio.get_running_loop().time()
        if self._timer is not None:
            self._timer.cancel()
        self._tick()

    def share(self, topic: str, count: int) -> range:
        """Which of so many partitions of a topic are this member's."""
        others = [word.name for word, _ in self._heard.values() if topic in word.topics]
        rank = sum(name < self.word.name for name in others)
        return range(rank, count, len(others) + 1)

    async def leave(self) -> None:
        """Say goodbye. Raises Closed."""
        if self._timer is not None:
            self._timer.cancel()
        self._speak(replace(self.word, leaving=True))
        hearing, speaking = self._hearing, self._speaking
        self._hearing = self._speaking = None
        if hearing is not None:
            await hearing.close()
        if speaking is not None and not self._connection.blocked:
            await speaking.close()

    def delivered(self, tag: int, raw: bytes, body: bytes) -> None:
        """Another member has said something, or this one."""
        try:
            word = _decode(body)
        except msgspec.MsgspecError:
            return
        known = self._heard.get(word.name, (None, 0.0))[0]
        if word.name == self.word.name:
            return
        if word.leaving:
            self._heard.pop(word.name, None)
        else:
            self._heard[word.name] = (word, asyncio.get_running_loop().time())
            if known is None:
                self._speak(self.word)
        if known != (None if word.leaving else word):
            self._changed()

    def _tick(self) -> None:
        """Speak, and forget who is not heard of; but not when one has been away oneself, or nobody can speak."""
        if not self.speaks:
            return
        self._speak(self.word)
        loop = asyncio.get_running_loop()
        now, every = loop.time(), EVERY * (1 + len(self._heard) / MANY)
        away, self._spoke = now - self._spoke > 2 * every, now
        if away or self._connection.blocked:
            self._heard = {name: (word, now) for name, (word, _) in self._heard.items()}
        gone = [name for name, (_, at) in self._heard.items() if now - at > GONE * every]
        for name in gone:
            del self._heard[name]
        if gone:
            self._changed()
        self._timer = loop.call_later(every, self._tick)

    def _speak(self, word: Word) -> None:
        if self._speaking is not None and not self._connection.blocked:
            said = frames.content(self._speaking.number, NO_PROPERTIES, _encode(word), self._connection.frame_max)
            self._connection.write(self._to_all + said)
