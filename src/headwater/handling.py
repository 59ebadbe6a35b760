"""Handling: command -> decide -> append. Transaction 1.

Aggregates stay warm in a cache that is checked by version on append. Decisions on one stream may follow one another
before the first is on disk: each expects the version that the one before will leave, and that that one stands, so that
they share a commit, and all that came after a failed one are decided again.
"""

from __future__ import annotations

import asyncio
import hashlib
from collections import OrderedDict
from collections.abc import Iterable, Sequence
from typing import Any, cast

from msgspec import Struct

from headwater import fault
from headwater.clock import Clock
from headwater.database import Answer, Collision, Database, Failed, WriteSet
from headwater.decider import Decider, as_messages, fold
from headwater.decision import Boundary
from headwater.errors import Conflict, DeclarationError, KeyReused, Rejected, Unknown
from headwater.message import Draft, Metadata, encode_metadata, stream_of
from headwater.outbox import Outbox
from headwater.schema import Schema
from headwater.store import Append, CommandKey, Committed, Past

ATTEMPTS = 100
WARM = 20_000


class Warm(Struct):
    """A cached aggregate: its state after `version`. `pending` is the commit of `key` that its last events wait for."""

    version: int
    state: Any
    decider: Decider
    pending: asyncio.Future[Answer] | None = None
    key: CommandKey | None = None


class Proposal(Struct, frozen=True):
    """What a decision wants to append, with the version it was decided on."""

    stream: str
    expect: int
    drafts: Sequence[Draft]


class Handling:
    """Decides commands against their aggregates and appends the events."""

    def __init__(
        self, database: Database, schema: Schema, outbox: Outbox, clock: Clock, deciders: Iterable[Decider]
    ) -> None:
        self.database = database
        self.schema = schema
        self.outbox = outbox
        self.clock = clock
        self.deciders: dict[type, Decider] = {}
        self.categories: dict[str, Decider] = {}
        self._warm: OrderedDict[str, Warm] = OrderedDict()
        for decider in deciders:
            self.add(decider)

    def add(self, decider: Decider) -> None:
        """Take on a decider; each command class has one."""
        for command in decider.decide:
            if command in self.deciders:
                raise DeclarationError(f"{command.__name__} is decided twice; a command has one decider")
            self.deciders[command] = decider
        self.categories[decider.category] = decider

    def stream(self, command: Any, tenant: str, boundary: Boundary | None = None) -> str:
        """The stream that a command is decided on, or that its events go to where it is decided over a boundary."""
        decider = boundary if boundary is not None else self.decider(type(command))
        key = getattr(command, decider.key)
        if key is None or key == "":
            raise Rejected(f"{type(command).__name__}.{decider.key} is empty: it names the stream")
        if "/" in tenant or ":" in tenant:
            raise Rejected(f"the tenant {tenant!r} cannot name streams: it must be without / and :")
        return stream_of(decider.category, str(key), tenant)

    def decider(self, command: type) -> Decider:
        """The decider of a command class."""
        found = self.deciders.get(command)
        if found is None:
            raise DeclarationError(
                f"nothing decides {command.__name__}: give an aggregate a @decide method for it and add it to the app"
            )
        return found

    async def attempt(self, command: Any, key: str, metadata: Metadata) -> Committed | Rejected | Unknown:
        """Decide one command and commit: the answer as a value. The same key again is answered as the first time."""
        command_key = self.command_key(command, key, metadata.tenant)
        meta = encode_metadata(metadata)
        try:
            stream = self.stream(command, metadata.tenant)
        except Rejected as refusal:
            return refusal
        for tried in range(ATTEMPTS):
            await self.load([(stream, command)])
            warm = self._warm.get(stream)
            if warm is None:
                continue
            version, pending = warm.version, warm.pending
            try:
                proposal = self.propose(stream, command, meta)
            except Exception as error:
                repeated = await self.repeated(command_key)
                if repeated is not None:
                    return repeated
                if not await self._on_disk(stream, version, pending, warm):
                    continue
                if isinstance(error, Rejected):
                    return error
                raise
            answer = await self._commit(proposal, warm, command_key)
            if answer is not None:
                return answer
            await self.clock.sleep(self.clock.random() * 0.001 * tried)
        raise Conflict(f"{stream} changed {ATTEMPTS} times while the command was being decided; try again later")

    def command_key(self, command: Any, key: str, tenant: str) -> CommandKey:
        """A key with the hash of its command."""
        found = self.schema.of(type(command))
        data = found.to_bytes(command)
        digest = hashlib.blake2b(data, digest_size=16, key=found.name.encode()[:64]).digest()
        return CommandKey(tenant, key, digest, self.clock.now())

    async def repeated(self, key: CommandKey) -> Committed | None:
        """The answer to a command key that was committed before."""
        settled = await self.database.settled(key.tenant, key.key)
        if settled is None:
            return None
        if settled.hash != key.hash:
            raise KeyReused(f"the command key {key.key!r} was used before for a different command; use a new key")
        return Committed(settled.position, settled.version, repeated=True)

    async def _on_disk(self, stream: str, version: int, pending: asyncio.Future[Answer] | None, warm: Warm) -> bool:
        """Whether a decision on a version that may still wait for its commit rests on what is, and is the newest."""
        if pending is not None:
            await asyncio.wait([pending])
            newest = not pending.cancelled() and is_new(pending.result())
        else:
            stored = await self.database.read_stream(stream, max(version - 1, 0), 2)
            newest = [one.version for one in stored] == ([version] if version else [])
        if not newest:
            self._drop(stream, warm)
        return newest

    async def _commit(self, proposal: Proposal, warm: Warm, key: CommandKey) -> Committed | Unknown | None:
        """Commit a proposal; None where it must be decided again."""
        write = WriteSet(
            appends=[Append(proposal.stream, proposal.expect, proposal.drafts)],
            key=key,
            after=warm.key if warm.pending is not None else None,
        )
        fault.point("handling.decided")
        pending: asyncio.Future[Answer] = asyncio.get_running_loop().create_future()
        warm.pending, warm.key = pending, key
        try:
            [answer] = await self.database.commit([write])
        except BaseException:  # also where the caller is cancelled: whether it stands shows when it is decided on
            pending.cancel()
            self._drop(proposal.stream, warm)
            raise
        pending.set_result(answer)
        fault.point("handling.committed")
        if warm.pending is pending:
            warm.pending = None
        if is_new(answer):
            return cast(Committed, answer)
        self._drop(proposal.stream, warm)
        if isinstance(answer, Unknown):
            return Unknown(key.key, str(answer.__cause__ or ""))
        if isinstance(answer, Committed):
            return answer
        if isinstance(answer, Collision):
            return None
        raise answer.error if isinstance(answer, Failed) else answer

    def _drop(self, stream: str, warm: Warm) -> None:
        """Forget a cached aggregate, unless it was read anew meanwhile."""
        if self._warm.get(stream) is warm:
            self.forget(stream)

    async def load(self, targets: Sequence[tuple[str, Any]]) -> None:
        """Make the aggregates of (stream, command) warm, reading all that are cold at once."""
        cold: dict[str, Decider] = {}
        for stream, command in targets:
            if stream in self._warm:
                self._warm.move_to_end(stream)
            else:
                cold[stream] = self.decider(type(command))
        if not cold:
            return
        stored = await self.database.read_streams(dict.fromkeys(cold, 0))
        for stream, decider in cold.items():
            self._warm.setdefault(stream, self._warmed(decider, stored.get(stream, ())))
        while len(self._warm) > max(WARM, len(targets)):
            self._warm.popitem(last=False)

    def _warmed(self, decider: Decider, past: Sequence[Past]) -> Warm:
        decode = self.schema.decode
        events = [decode(name, version, data) for _, kind, name, version, data in past if kind == "event"]
        return Warm(past[-1][0] if past else 0, fold(decider.evolve, decider.initial(), events), decider)

    def version(self, stream: str) -> int | None:
        """The version that a warm aggregate is at; None if it is not warm."""
        warm = self._warm.get(stream)
        return warm.version if warm is not None else None

    def propose(self, stream: str, command: Any, meta: bytes) -> Proposal:
        """Decide on a warm aggregate and move it on, as if it were committed; `forget` the stream if it is not.

        Raises Rejected, or whatever the decision raises; the aggregate is then as before, or forgotten.
        """
        warm = self._warm[stream]
        self._warm.move_to_end(stream)
        decider = warm.decider
        events = as_messages(decider.decide[type(command)](warm.state, command))
        drafts = [self.draft(event, meta, decider.category) for event in events]
        expect = warm.version
        try:
            warm.state = fold(decider.evolve, warm.state, events)
        except BaseException:
            self.forget(stream)
            raise
        warm.version += len(drafts)
        return Proposal(stream, expect, drafts)

    def draft(self, event: Any, meta: bytes, category: str) -> Draft:
        """The draft of a decided event. Raises DeclarationError where it is not the service's own."""
        found = self.schema.of(type(event))
        if found.kind != "event" or found.service != self.outbox.service:
            raise DeclarationError(
                f"{category} decided {found.name}, a {found.kind} of {found.service}; it decides its own events"
            )
        return self.outbox.draft_as(found, event, meta, "event")

    def forget(self, stream: str) -> None:
        """Drop a cached aggregate: it is read again when it is needed."""
        self._warm.pop(stream, None)


def is_new(answer: Answer) -> bool:
    """Whether a set was written now; one whose command key was known has written nothing."""
    return isinstance(answer, Committed) and not answer.repeated
