"""A channel file as this process has it open: reads, writes with the acknowledgements riding along, and waiting for news."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, Final, Protocol, TypeVar

import apsw

from headwater import fault
from headwater.adapters.sqlite.channel_schema import COMPONENT, LOOK, MIGRATIONS
from headwater.adapters.sqlite.channel_writes import WIDTH, Cursor, MoveDue, Place, Publish, Settle, Write
from headwater.adapters.sqlite.faults import translate
from headwater.adapters.sqlite.file import File, Reader
from headwater.adapters.sqlite.migrations import migrate
from headwater.adapters.sqlite.wake import EVERYTHING, Wake, subjects_of
from headwater.adapters.sqlite.writer import Writer
from headwater.clock import Clock
from headwater.errors import ChannelError, ConfigurationError, HeadwaterError, Unknown

Result = TypeVar("Result")

FLUSH: Final = 0.1
"""Seconds that an acknowledgement may wait for a write that takes it along."""
RETRY: Final = 1.0


class Member(Protocol):
    """Whose acknowledgements these are."""

    def lose(self, place: Place, epoch: int) -> None:
        """One was refused: another member has taken the place since that epoch."""
        ...


class ChannelFile:
    """An open channel file. All that fails in it is a ChannelError, but for what only a person can mend."""

    def __init__(self, path: Path, clock: Clock) -> None:
        self.clock = clock
        self.path = path
        with self.translated():
            file = File(path)
            self.path = file.path
            migrate(file, COMPONENT, MIGRATIONS, clock.now())
            self._reader, self._counter = Reader(file), Reader(file)
            self._wake = Wake(file, self._reader.version)
            self._writer: Writer[Write[Any], Any] = Writer(file, self._work, self._committed)
        self._news = 0
        self._acks: dict[tuple[str, str, int], tuple[Cursor, Member]] = {}
        self._under_way = 0
        self._timer: asyncio.TimerHandle | None = None
        self._flushing: asyncio.Task[None] | None = None

    async def close(self) -> None:
        """Write what is queued and close the file."""
        try:
            await self.flush()
        finally:
            if self._timer is not None:
                self._timer.cancel()
            if self._flushing is not None:
                await self._flushing
            await self._writer.close()
            self._wake.close()
            self._reader.close()
            self._counter.close()

    @contextmanager
    def translated(self) -> Iterator[None]:
        """Raise errors of a channel for those of its file."""
        try:
            yield
        except (apsw.Error, OSError) as error:
            raise self._channel_error(translate(error, self.path)) from error
        except HeadwaterError as error:
            if (ours := self._channel_error(error)) is error:
                raise
            raise ours from error

    # --- reading and waiting ---

    def rows(self, sql: str, parameters: Sequence[Any] = ()) -> list[tuple[Any, ...]]:
        """All rows of a short read."""
        try:
            return self._reader.rows(sql, parameters)
        except HeadwaterError as error:
            raise self._channel_error(error) from error

    def value(self, sql: str, parameters: Sequence[Any] = ()) -> Any:
        """The first column of the first row; None where there is no row."""
        found = self.rows(sql, parameters)
        return found[0][0] if found else None

    async def count(self, sql: str, parameters: Sequence[Any] = ()) -> list[tuple[Any, ...]]:
        """All rows of a read that may take long: it runs in a thread, on a connection of its own."""
        with self.translated():
            return await asyncio.to_thread(self._counter.rows, sql, parameters)

    async def wait(self, still_waiting: Callable[[], bool], timeout: float, subjects: int) -> bool:
        """Wait until `still_waiting` is false, at most `timeout` seconds; whether it is. It is asked when there is news.

        `subjects` are bits of the topics whose news it is.
        """
        with self.translated():
            return await self._wake.wait(still_waiting, timeout, subjects)

    def look(self) -> tuple[int, int | None]:
        """The last position there has been, and when the next delayed message is due, in microseconds."""
        head, due = self.rows(LOOK)[0]
        return head or 0, due

    async def ready(self) -> tuple[int, int | None]:
        """Put what is due among the messages, and look."""
        found = self.look()
        now = self.clock.now()
        if found[1] is None or found[1] > now:
            return found
        await self.write(MoveDue(now))
        return self.look()

    # --- writing ---

    async def write(self, request: Write[Result]) -> Result:
        """Write durably, with all acknowledgements that wait for a write."""
        result: Result | HeadwaterError = (await self._submit(request))[-1]
        if isinstance(result, HeadwaterError):
            raise self._channel_error(result)
        return result

    def settle(self, moved: Sequence[Cursor], member: Member) -> None:
        """Move cursors with the next write, or in a moment."""
        for one in moved:
            self._acks[one[:3]] = (one, member)
        if moved:
            self._flush_in(FLUSH)

    async def flush(self) -> None:
        """Write all acknowledgements now."""
        while self._acks or self._under_way:
            for result in await self._submit(Settle(())):
                if isinstance(result, HeadwaterError):
                    raise self._channel_error(result)

    async def _submit(self, request: Write[Any]) -> list[Any]:
        acks, self._acks = self._acks, {}
        carried = [Settle([cursor for cursor, _ in acks.values()])] if acks else []
        self._under_way += len(carried)
        written = False
        try:
            with self.translated():
                results = await self._writer.submit([*carried, request])
            if acks and not isinstance(results[0], HeadwaterError):
                written = True
                fault.point("channel.settled")
                for group, topic, partition, epoch, _ in results[0]:
                    acks[group, topic, partition][1].lose((topic, partition), epoch)
            return results
        finally:
            self._under_way -= len(carried)
            if acks and not written:
                self._acks = acks | self._acks
                self._flush_in(RETRY)

    def _flush_in(self, seconds: float) -> None:
        if self._timer is None:
            self._timer = asyncio.get_running_loop().call_later(seconds, self._begin_flush)

    def _begin_flush(self) -> None:
        self._timer = None
        if self._acks and (self._flushing is None or self._flushing.done()):
            self._flushing = asyncio.get_running_loop().create_task(self._flush())

    async def _flush(self) -> None:
        with suppress(HeadwaterError):  # it is tried again, and who publishes is told
            await self.flush()

    def _channel_error(self, error: HeadwaterError) -> HeadwaterError:
        match error:
            case ChannelError() | ConfigurationError():
                return error
            case Unknown():
                return ChannelError(
                    f"{self.path}: the disk failed, and it is not known what was written ({error}): publish again"
                )
            case _:
                return ChannelError(str(error))

    # --- in the writer's thread ---

    def _work(self, connection: apsw.Connection, requests: Sequence[Write[Any]]) -> list[Any]:
        for request in requests:
            self._news |= _news_of(request)
        return [request.apply(connection) for request in requests]

    def _committed(self) -> None:
        if self._news:
            news, self._news = self._news, 0
            self._wake.hint(news)


def _news_of(request: Write[Any]) -> int:
    """The topics that get messages by a request."""
    match request:
        case Publish():
            return subjects_of(request.messages[::WIDTH])
        case MoveDue():
            return EVERYTHING
        case _:
            return 0
