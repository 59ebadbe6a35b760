"""An open channel as its parts share it: reads, transactions, and acknowledgements that are written a moment later."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Mapping
from contextlib import suppress
from typing import Any, Final, Protocol, TypeVar

from headwater import fault
from headwater.adapters.postgres.bell import Bell
from headwater.adapters.postgres.channel_schema import DUE, MESSAGES, MOVED, MOVER, NEXT_DUE, PARTITION_ENDS, SETTLE
from headwater.adapters.postgres.channel_seat import Place
from headwater.adapters.postgres.facts import columns, locking
from headwater.adapters.postgres.server import Pool
from headwater.adapters.postgres.statement import Plan, Row, Statement
from headwater.clock import Clock
from headwater.errors import ChannelError, ConfigurationError, HeadwaterError

FLUSH: Final = 0.1
"""Seconds that acknowledgements are gathered for."""
RETRY: Final = 1.0

Result = TypeVar("Result")


class Member(Protocol):
    """Whose acknowledgements these are."""

    def lose(self, place: Place, epoch: int) -> None:
        """One was refused: another member has taken the place since that epoch."""
        ...


class ChannelDesk:
    """All that fails in it is a ChannelError, but for what only a person can mend."""

    def __init__(self, pool: Pool, bell: Bell, clock: Clock) -> None:
        self.bell = bell
        self.clock = clock
        self._pool = pool
        self._acks: dict[tuple[str, str, int], tuple[int, int, Member]] = {}
        self._one_at_a_time = asyncio.Lock()
        self._timer: asyncio.TimerHandle | None = None
        self._flushing: asyncio.Task[None] | None = None

    async def rows(self, statement: Statement) -> list[Row]:
        """The rows of a statement that may run twice."""
        try:
            return (await self._pool.rows(statement))[0]
        except HeadwaterError as error:
            raise channel_error(error) from None

    async def transact(self, plan: Plan[Result]) -> Result:
        """Drive a plan within a transaction."""
        try:
            return await self._pool.transact(plan)
        except HeadwaterError as error:
            raise channel_error(error) from None

    async def ready(self) -> int | None:
        """Put what is due among the messages; when the next is due, in microseconds."""
        due = await self._next_due()
        if due is None or due > self.clock.now():
            return due
        await self.transact(_moving(self.clock.now()))
        self.bell.ring()
        return await self._next_due()

    async def _next_due(self) -> int | None:
        ((due,),) = await self.rows(Statement(NEXT_DUE))
        found: int | None = due
        return found

    # --- acknowledgements ---

    def settle(self, group: str, moved: Mapping[Place, tuple[int, int]], member: Member) -> None:
        """Move cursors, in a moment, to (epoch, position)."""
        for place, (epoch, position) in moved.items():
            self._acks[group, *place] = (epoch, position, member)
        if moved:
            self._flush_in(FLUSH)

    async def flush(self) -> None:
        """Write all acknowledgements now."""
        async with self._one_at_a_time:
            acks, self._acks = self._acks, {}
            if not acks:
                return
            lines: list[Any] = [(*key, epoch, position) for key, (epoch, position, _) in sorted(acks.items(), key=_key)]
            try:
                moved = {(group, topic, partition) for group, topic, partition in await self.rows(_settling(lines))}
            except BaseException:
                self._acks = acks | self._acks
                self._flush_in(RETRY)
                raise
        fault.point("channel.settled")
        for key, (epoch, _, member) in acks.items():
            if key not in moved:
                member.lose(key[1:], epoch)

    async def close(self) -> None:
        """Write what is acknowledged."""
        try:
            await self.flush()
        finally:
            if self._timer is not None:
                self._timer.cancel()
            if self._flushing is not None:
                await self._flushing

    def _flush_in(self, seconds: float) -> None:
        if self._timer is None:
            self._timer = asyncio.get_running_loop().call_later(seconds, self._begin_flush)

    def _begin_flush(self) -> None:
        self._timer = None
        self._flushing = asyncio.get_running_loop().create_task(self._flush())

    async def _flush(self) -> None:
        with suppress(HeadwaterError):  # it is tried again
            await self.flush()


def channel_error(error: HeadwaterError) -> HeadwaterError:
    """The error of a channel for one of its server."""
    return error if isinstance(error, ChannelError | ConfigurationError) else ChannelError(str(error))


def publishing_locks(partitions: Iterable[int]) -> list[Statement]:
    """The locks of those who publish in these partitions."""
    return locking(PARTITION_ENDS, {str(partition) for partition in partitions})


def _key(item: tuple[tuple[str, str, int], Any]) -> tuple[str, str, int]:
    return item[0]


def _settling(lines: list[Any]) -> Statement:
    return Statement(SETTLE, columns(lines))


def _moving(now: int) -> Plan[None]:
    """Put what is due among the messages: one does it at a time."""
    _, due = yield [*locking(MOVER, ["due"]), Statement(DUE, (now,))]
    if due:
        yield publishing_locks(row[2] for row in due)
        yield [Statement(MESSAGES, columns([row[1:] for row in due]))]
        fault.point("channel.moving")
        yield [Statement(MOVED, ([row[0] for row in due],))]
