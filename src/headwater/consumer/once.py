"""Outside effects: an intent is committed before the call and its outcome after; a crash between is for a person to settle."""

from __future__ import annotations

import hashlib
from collections.abc import Awaitable, Callable
from typing import Any

import msgspec

from headwater import fault
from headwater.database import Database, WriteSet
from headwater.errors import DatabaseError, NotDone, SchemaError, Uncertain
from headwater.inbox import Step
from headwater.store import Committed

Call = Callable[[str], Awaitable[Any]]


class Once:
    """Ask for it in a handler: `await once("charge", call)` calls `call(key)` at most once for this message and name.

    The outcome (plain JSON values) is stored and given again on every later attempt. `key` is a stable idempotency key for
    the callee. If `call` raises `NotDone`, nothing happened and it may be tried again; any other exception leaves the
    effect uncertain, unless `repeat=True` says that the callee honours the key, so that calling again is safe.
    """

    def __init__(self, database: Database, consumer: str, message_id: str) -> None:
        self._database = database
        self._consumer = consumer
        self._message_id = message_id

    async def __call__(self, name: str, call: Call, *, repeat: bool = False) -> Any:
        """Run the effect, or give its stored outcome. Raises Uncertain where it may or may not have happened."""
        steps = await self._database.steps(self._consumer, self._message_id)
        known = next((step for step in steps if step.name == name), None)
        if known is not None and known.done:
            return msgspec.json.decode(known.outcome)
        if known is not None and not repeat:
            raise Uncertain(
                f"{name!r} was begun and its outcome is not known; look at the other side, then redrive with --done or --not-done"
            )
        await self._store(Step(self._consumer, self._message_id, name, new=known is None))
        fault.point("once.intended")
        try:
            outcome = await call(self.key(name))
        except NotDone:
            fault.point("once.not_done")
            await self._store(Step(self._consumer, self._message_id, name, clear=True))
            raise
        except Exception as error:
            if repeat:
                raise
            raise Uncertain(f"{name!r} ended in {type(error).__name__}: it may have happened") from error
        fault.point("once.called")
        encoded = self._encode(name, outcome)
        await self._store(Step(self._consumer, self._message_id, name, done=True, outcome=encoded))
        fault.point("once.stored")
        return msgspec.json.decode(encoded)

    def key(self, name: str) -> str:
        """The idempotency key of an effect: the same for every attempt on this message."""
        text = f"{self._consumer}\n{self._message_id}\n{name}".encode()
        return hashlib.blake2b(text, digest_size=16).hexdigest()

    def _encode(self, name: str, outcome: Any) -> bytes:
        try:
            return msgspec.json.encode(outcome)
        except (TypeError, ValueError) as error:
            raise SchemaError(
                f"the outcome of {name!r} cannot be stored: {error}; return plain values from the call"
            ) from error

    async def _store(self, step: Step) -> None:
        [answer] = await self._database.commit([WriteSet(steps=[step])])
        if not isinstance(answer, Committed):
            raise DatabaseError(f"the effect {step.name!r} could not be noted: {answer}")
