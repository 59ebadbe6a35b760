"""Values that the promises are shown with."""

from __future__ import annotations

import itertools
from typing import Any

from headwater.database import Answer, Database, WriteSet
from headwater.inbox import Held, Reason
from headwater.message import JSON, Draft, Metadata, Recorded, encode_metadata
from headwater.store import ANY, Append, CommandKey, Committed
from headwater.table import Column, Table
from headwater.timer import SagaState, Timer

A, B = "bank.Account/a", "bank.Account/b"
META = encode_metadata(Metadata("c-1", "m-0", "", "ada", "acme"))
TIME = 1_767_225_600_000_000

_numbers = itertools.count(1)

KINDS: tuple[str, ...] = ("text", "integer", "real", "boolean", "bytes", "json")
TOTALS = Table("totals", (Column("account", "text"), Column("cents", "integer")))
LINES = Table("lines", (Column("number", "integer"), Column("line", "text"), Column("count", "integer")), keys=2)
EVERYTHING = Table("everything", (Column("id", "text"), *(Column(f"a_{kind}", kind) for kind in KINDS)))


def draft(data: bytes = b'{"cents":1}', **changed: Any) -> Draft:
    """An event to store, with an id that no other has."""
    number = next(_numbers)
    fields: dict[str, Any] = {
        "kind": "event",
        "type": "bank.Withdrawn",
        "type_version": 1,
        "codec": JSON,
        "time": TIME + number,
        "meta": META,
    }
    return Draft(data=data, **{"id": f"id-{number}", **fields, **changed})


def drafts(count: int) -> list[Draft]:
    """So many events."""
    return [draft() for _ in range(count)]


def appending(stream: str = A, expect: int = ANY, count: int = 1, **parts: Any) -> WriteSet:
    """A set that appends events to one stream."""
    return WriteSet(appends=(Append(stream, expect, drafts(count)),), **parts)


def key(name: str = "k", tenant: str = "", of: bytes = b"hash", time: int = TIME) -> CommandKey:
    """A command key."""
    return CommandKey(tenant, name, of, time)


def recorded(stream: str = A, version: int = 1, previous: int | None = None, data: bytes = b"{}") -> Recorded:
    """A message as it came over a channel."""
    before = version - 1 if previous is None else previous
    return Recorded(
        version, stream, version, "event", f"{stream}-{version}", "bank.Withdrawn", 1, JSON, TIME, before, data, META
    )


def held(stream: str = A, version: int = 1, reason: Reason = Reason.RETRY, **fields: Any) -> Held:
    """A message that the consumer `mail` holds, unless `consumer` says another."""
    previous = fields.pop("previous", None)
    data = fields.pop("data", b"{}")
    values: dict[str, Any] = {"consumer": "mail", "key": stream, "since": TIME + version, **fields}
    return Held(message=recorded(stream, version, previous, data), reason=reason, **values)


def timer(name: str = "expiry", due: int = TIME, owner: str = "billing", instance: str = "i-1") -> Timer:
    """A timer of a saga instance."""
    return Timer(
        owner,
        instance,
        name,
        due,
        f"{owner}/{instance}",
        draft(f'{{"name":"{name}"}}'.encode(), id=f"id-{name}", time=TIME),
    )


def state(expect: int, data: bytes = b"{}", ended: bool = False, instance: str = "i-1") -> SagaState:
    """A state of an instance of the saga `billing`."""
    return SagaState("billing", instance, expect, data, ended)


def committed(answer: Answer) -> Committed:
    """The answer, which must be `Committed`."""
    assert isinstance(answer, Committed), answer
    return answer


async def commit_one(database: Database, one: WriteSet) -> Answer:
    """Commit a single set."""
    answers = await database.commit([one])
    assert len(answers) == 1
    return answers[0]


async def committing(database: Database, *sets: WriteSet) -> list[Committed]:
    """Commit sets that must all stand."""
    return [committed(answer) for answer in await database.commit(sets)]


async def versions(database: Database, stream: str = A) -> list[int]:
    """The versions of a stream, in the order they are read."""
    return [one.version for one in await database.read_stream(stream, 0, 100_000)]
