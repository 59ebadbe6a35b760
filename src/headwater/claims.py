"""The claim check: a body that is larger than the channel takes is left in a place that services share. ADR 0014.

The message says where, as CloudEvents' `dataref`, and has no body of its own. A body is durable before its message is published,
is found by its hash, and never changes. It may be removed by age: the log has it, and publishing the message again leaves it again.
"""

from __future__ import annotations

import asyncio
import re
from collections.abc import Awaitable, Sequence
from hashlib import sha256
from typing import Final, Protocol, TypeVar

import msgspec

from headwater.channel import Channel, ChannelCapabilities, Finding, GroupLag, Publication, Route, Start, Subscription
from headwater.errors import ChannelError, SchemaError
from headwater.wire import DATAREF

PATIENCE: Final = 30.0
"""Seconds in which a body has to be left or fetched: a place may hang, as a folder of another machine does."""

Result = TypeVar("Result")

_hash = re.compile(r"[0-9a-f]{64}").fullmatch


class Claims(Protocol):
    """A place where bodies are left and fetched, the same for the services that speak with one another."""

    async def leave(self, body: bytes) -> str:
        """Keep a body durably, as if it were new; the URI that it is found by. Raises ChannelError."""
        ...

    async def fetch(self, name: str) -> bytes | None:
        """What was left under a name, None if it is not there. Raises ChannelError."""
        ...

    async def close(self) -> None:
        """Let go of connections and threads, of which the next use makes new ones."""
        ...


def name_of(body: bytes) -> str:
    """The name that a body is left under: its hash."""
    return sha256(body).hexdigest()


async def redeem(claims: Claims | None, reference: str) -> bytes:
    """The body that a message refers to; of the URI only the name counts, so nothing but a claim is ever read.

    Raises SchemaError where it refers to no claim, ChannelError where the claim cannot be had, which may pass.
    """
    name = reference.rpartition("/")[2]
    if not _hash(name):
        raise SchemaError(f"its body is elsewhere, and {reference[:100]!r} is no claim of Headwater")
    if claims is None:
        raise ChannelError(
            f"its body was left at {reference}: set HEADWATER_CLAIMS to where this service finds what its senders leave there"
        )
    body = await _patiently(claims.fetch(name))
    if body is None or name_of(body) != name:
        what = "is not there" if body is None else "is not what was left there"
        raise ChannelError(
            f"the claim {reference} {what}: have its service publish the message again, `headwater republish --from POSITION`"
        )
    return body


async def _patiently(work: Awaitable[Result]) -> Result:
    try:
        async with asyncio.timeout(PATIENCE):
            return await work
    except TimeoutError:
        raise ChannelError(f"the place for claims has not answered for {PATIENCE:g} s: is it there?") from None


def checked(channel: Channel, claims: Claims | None) -> Channel:
    """A channel by which bodies of any size go where there are claims; else as it is."""
    return channel if claims is None else ClaimCheck(channel, claims)


class ClaimCheck:
    """A channel by which a body of any size goes: what it does not take is left with the claims, and its message says where."""

    def __init__(self, channel: Channel, claims: Claims) -> None:
        self.channel = channel
        self.claims = claims

    @property
    def capabilities(self) -> ChannelCapabilities:
        """Those of the channel."""
        return msgspec.structs.replace(self.channel.capabilities, claims=True)

    async def publish(
        self, publications: Sequence[Publication], *, producer: str = "", position: int = 0, epoch: int = 0
    ) -> dict[int, str]:
        """Leave what is too large, then publish."""
        room = self.channel.capabilities.room
        fit = [one if len(one.body) <= room else await self._left(one) for one in publications]
        return await self.channel.publish(fit, producer=producer, position=position, epoch=epoch)

    async def _left(self, one: Publication) -> Publication:
        headers = {**one.headers, DATAREF: await _patiently(self.claims.leave(one.body))}
        return msgspec.structs.replace(one, headers=headers, body=b"")

    async def open(self) -> None:
        """Open the channel; the place needs no opening, so that it can be asked while the channel is away."""
        await self.channel.open()

    async def close(self) -> None:
        """Close the channel, then the place."""
        try:
            await self.channel.close()
        finally:
            await self.claims.close()

    async def examine(self, routes: Sequence[Route]) -> list[Finding]:
        """Examine the channel."""
        return await self.channel.examine(routes)

    async def establish(self, routes: Sequence[Route]) -> list[str]:
        """Establish routes on the channel."""
        return await self.channel.establish(routes)

    async def producer_position(self, producer: str) -> int | None:
        """The position that the channel keeps."""
        return await self.channel.producer_position(producer)

    async def subscribe(
        self, group: str, topics: Sequence[str], member: str, start: Start = "beginning"
    ) -> Subscription:
        """Subscribe to the channel; consumers redeem what they take of it."""
        return await self.channel.subscribe(group, topics, member, start)

    async def lag(self, group: str | None = None) -> list[GroupLag]:
        """The lag on the channel."""
        return await self.channel.lag(group)
