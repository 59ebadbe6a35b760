"""What the flow tests share: tests as coroutines, faults at chosen commits, and messages put on a channel by hand."""

from __future__ import annotations

import asyncio
import functools
from collections.abc import Awaitable, Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import msgspec

from headwater.channel import Publication
from headwater.clock import iso
from headwater.database import Failed, WriteSet
from headwater.inbox import Held, Reason, Release
from headwater.message import Recorded
from headwater.testing.harness import Harness

SECONDS = 1_000_000


class Killed(BaseException):
    """The process ends here: nothing catches it."""


def played(test: Callable[..., Awaitable[None]]) -> Callable[..., None]:
    """A test that is a coroutine; one that hangs fails."""

    @functools.wraps(test)
    def run(*arguments: Any, **options: Any) -> None:
        asyncio.run(asyncio.wait_for(test(*arguments, **options), 30))

    return run


@contextmanager
def failing_commits(
    database: Any,
    error: BaseException,
    when: Callable[[Sequence[WriteSet]], bool],
    *,
    after: bool = False,
    times: int = 1,
    answered: bool = False,
) -> Iterator[None]:
    """The first `times` commits for which `when` holds raise, or answer Failed: before they are written, or after."""
    commit, left = database.commit, [times]

    async def fail(writes: Sequence[WriteSet]) -> Any:
        hit = left[0] > 0 and when(writes)
        if not hit:
            return await commit(writes)
        left[0] -= 1
        await asyncio.sleep(0)  # as a commit does
        if after:
            await commit(writes)
        if answered:
            return [Failed(error) for _ in writes]
        raise error

    database.commit = fail
    try:
        yield
    finally:
        del database.commit


def any_set(test: Callable[[WriteSet], Any]) -> Callable[[Sequence[WriteSet]], bool]:
    return lambda writes: any(test(write) for write in writes)


def settles(consumer: str) -> Callable[[Sequence[WriteSet]], bool]:
    """Commits that settle a batch of a consumer: they move its marks or its checkpoint."""
    return any_set(
        lambda write: (
            any(mark.consumer == consumer for mark in write.marks)
            or any(checkpoint.name == consumer for checkpoint in write.checkpoints)
        )
    )


async def killed(world: Harness, app: Any) -> None:
    """Let the services work until the one dies, and start it again."""
    try:
        await world.settle()
    except Killed:
        await world.restart(app)
        return
    raise AssertionError("nobody was killed")


def publication(
    stream: str,
    version: int,
    type_: str,
    body: Any,
    *,
    previous: int | None = None,
    kind: str = "event",
    topic: str = "",
    **headers: str,
) -> Publication:
    """A message as another service would publish it."""
    source = stream.rpartition(":")[2].partition(".")[0]
    attributes = {
        "specversion": "1.0",
        "id": f"{stream}@{version}",
        "source": source,
        "type": type_,
        "subject": stream,
        "time": iso(1_767_225_600_000_000),
        "datacontenttype": "application/json",
        "streamversion": str(version),
        **({} if kind == "event" else {"kind": kind}),
        **({} if previous is None else {"previous": str(previous)}),
        **headers,
    }
    data = body if isinstance(body, bytes) else msgspec.json.encode(body)
    return Publication(topic or stream.rpartition(":")[2].partition("/")[0], stream, attributes, data)


async def redrive(world: Harness, app: Any, row: Held) -> None:
    """What an operator does to let a parked message run again."""
    again = msgspec.structs.replace(row, reason=Reason.RETRY, due=world.clock.now(), attempts=0, crashes=0)
    await world.databases[app.name].commit(
        [WriteSet(releases=[Release(row.consumer, row.message.stream, row.message.version)], holds=[again])]
    )


async def log_of(world: Harness, app: Any) -> list[Recorded]:
    return await world.databases[app.name].read(0, 100_000)


async def types_in(world: Harness, app: Any) -> list[str]:
    return [one.type.partition(".")[2] for one in await log_of(world, app)]


async def payloads(world: Harness, app: Any, kind: type) -> list[Any]:
    """What an app has written of one event class, in order."""
    name = app.schema.of(kind).name
    return [
        app.schema.decode(one.type, one.type_version, one.data) for one in await log_of(world, app) if one.type == name
    ]


def in_order(pairs: Sequence[tuple[str, int]]) -> bool:
    """Whether the numbers of each key are 1, 2, 3 …"""
    found: dict[str, list[int]] = {}
    for key, n in pairs:
        found.setdefault(key, []).append(n)
    return all(numbers == list(range(1, len(numbers) + 1)) for numbers in found.values())


class Lossy:
    """Loses publications of a channel that it is told to lose."""

    def __init__(self, world: Harness) -> None:
        self.lose: list[tuple[str, int]] = []
        self.deaf: set[str] = set()
        self.drop: Callable[[Publication], bool] = lambda _: False
        self.lost = 0
        self.sent: list[Publication] = []
        self._publish = world.channel.publish
        world.channel.publish = self.publish  # type: ignore[method-assign]

    async def publish(self, publications: Sequence[Publication], **options: Any) -> Any:
        kept: list[Publication] = []
        for one in publications:
            place = (one.headers["subject"], int(one.headers["streamversion"]))
            if one.topic in self.deaf:
                continue
            if self.drop(one):
                self.lost += 1
                continue
            if place in self.lose:
                self.lose.remove(place)
                self.lost += 1
            else:
                kept.append(one)
        self.sent += kept
        return await self._publish(kept, **options)
