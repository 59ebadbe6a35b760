"""A message in a consumer's hands, what running some of them gives, and the workers that run them."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from typing import Any, Protocol

from msgspec import Struct, field

from headwater.checkpoint import Checkpoint
from headwater.claims import Claims, redeem
from headwater.database import Transaction
from headwater.errors import HeadwaterError
from headwater.message import Message, Metadata, Recorded
from headwater.schema import Schema
from headwater.store import Append, Condition
from headwater.table import Upsert
from headwater.timer import Cancel, SagaState, Timer


class Arrival:
    """One message with its payload and metadata, decoded once for all consumers of a feed. `attempt` counts from 1."""

    __slots__ = ("_body", "_metadata", "_payload", "attempt", "message", "strict")

    def __init__(self, message: Recorded, *, strict: bool, attempt: int = 1) -> None:
        self.message = message
        self.attempt = attempt
        self.strict = strict
        self._body: bytes | HeadwaterError = message.data
        self._payload: Any = None
        self._metadata: Metadata | None = None

    async def redeem(self, claims: Claims | None) -> None:
        """Fetch a body that was left elsewhere; where it cannot be had, asking for the payload says why."""
        try:
            self._body = await redeem(claims, self.message.data.decode())
        except HeadwaterError as error:
            self._body = error

    def payload(self, schema: Schema) -> Any:
        """The decoded payload. Raises SchemaError, or ChannelError where its body was left elsewhere and is not there."""
        if self._payload is None:
            if isinstance(self._body, HeadwaterError):
                raise self._body
            decode = schema.decode_strict if self.strict else schema.decode
            self._payload = decode(self.message.type, self.message.type_version, self._body)
        return self._payload

    @property
    def metadata(self) -> Metadata:
        """The decoded metadata."""
        if self._metadata is None:
            self._metadata = self.message.metadata
        return self._metadata

    def context(self) -> Message:
        """What a handler sees of the message besides its payload."""
        one = self.message
        return Message(one.id, one.type, one.stream, one.version, self.attempt, one.time, self.metadata)


class Outcome(Struct):
    """What running some arrivals gives: effects to write, failures by index, and the indexes not run behind a failure."""

    appends: Sequence[Append] = ()
    conditions: Sequence[Condition] = ()
    timers: Sequence[Timer] = ()
    cancels: Sequence[Cancel] = ()
    sagas: Sequence[SagaState] = ()
    upserts: Sequence[Upsert] = ()
    checkpoints: Sequence[Checkpoint] = ()
    failures: dict[int, Exception] = field(default_factory=dict)
    behind: set[int] = field(default_factory=set)


class Worker(Protocol):
    """Runs the messages of a consumer. Nothing that it does counts until its outcome is committed."""

    kind: str
    transactional: bool
    types: frozenset[str]

    def wants(self, message: Recorded) -> bool:
        """Whether the message is for this consumer."""
        ...

    async def run(self, arrivals: Sequence[Arrival], transaction: Transaction | None) -> Outcome:
        """Run messages, those of one key in order; after a failure nothing more of its key."""
        ...

    def undo(self) -> None:
        """The last outcome was not committed: forget what was assumed."""
        ...


class Waiting(HeadwaterError):
    """It is not a message's turn yet: it is held and tried again for as long as it takes, and no attempt is counted."""

    retryable = True


class Faulty(Exception):
    """Running the arrival at `index` failed."""

    def __init__(self, index: int, error: Exception) -> None:
        super().__init__(str(error))
        self.index = index
        self.error = error


async def run_purely(arrivals: Sequence[Arrival], fold: Callable[[Sequence[int]], Awaitable[Outcome]]) -> Outcome:
    """Fold arrivals with a function that has no effects of its own, again without each key that fails.

    `fold` takes the indexes to run, reads the states that they touch, and raises `Faulty` at the first failure.
    """
    failures: dict[int, Exception] = {}
    behind: set[int] = set()
    todo = list(range(len(arrivals)))
    while True:
        try:
            outcome = await fold(todo)
        except Faulty as fault:
            failures[fault.index] = fault.error
            key = arrivals[fault.index].message.key
            after = {one for one in todo if one > fault.index and arrivals[one].message.key == key}
            behind |= after
            todo = [one for one in todo if one != fault.index and one not in after]
            continue
        outcome.failures = failures
        outcome.behind = behind
        return outcome
