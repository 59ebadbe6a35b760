"""Deciding over events of several streams: query -> decide -> append, on the condition that nothing relevant has come since.

Decisions of one process that have a tag in common wait for one another: only what other processes write makes one collide,
and then it reads what is new and is made again. States stay warm, by what they rest on.
"""

from __future__ import annotations

import asyncio
from collections import OrderedDict
from collections.abc import AsyncIterator, Iterable
from contextlib import AsyncExitStack, asynccontextmanager
from typing import Any, Final
from weakref import WeakValueDictionary

from msgspec import Struct

from headwater import fault
from headwater.database import Collision, Failed, WriteSet
from headwater.decider import as_messages
from headwater.decision import Boundary, Query, query_of
from headwater.errors import Conflict, DeclarationError, Rejected, Unknown
from headwater.handling import ATTEMPTS, WARM, Handling
from headwater.message import Draft, Metadata, encode_metadata
from headwater.store import ANY, Append, CommandKey, Committed, Condition, Item, Seen

DOUBTS: Final = 5
"""After so many collisions, what is warm may be of another log: a copy from before."""
Rests = tuple[str, tuple[Item, ...]]
"""What a state is known by: the category of its boundary, and the items that it rests on."""


class Warm(Struct):
    """The state of a boundary for some items, after what was `seen`."""

    state: Any
    seen: Seen


class Deciding:
    """Decides commands over their boundaries; what it has in common with the decisions of aggregates is `handling`."""

    def __init__(self, handling: Handling, boundaries: Iterable[Boundary]) -> None:
        self.handling = handling
        self.database = handling.database
        self.schema = handling.schema
        self.boundaries: dict[type, Boundary] = {}
        self._warm: OrderedDict[Rests, Warm] = OrderedDict()
        self._turns = Turns()
        for boundary in boundaries:
            self.add(boundary)

    def add(self, boundary: Boundary) -> None:
        """Take on a boundary; each command class has one, or an aggregate."""
        for command in boundary.decide:
            if command in self.boundaries or command in self.handling.deciders:
                raise DeclarationError(f"{command.__name__} is decided twice; a command has one decider")
            self.boundaries[command] = boundary

    def stream(self, command: Any, tenant: str) -> str:
        """The stream that the events of a command go to, also of one that an aggregate decides."""
        return self.handling.stream(command, tenant, self.boundaries.get(type(command)))

    def query(self, command: Any) -> Query:
        """What a decision on a command asks for."""
        return query_of(self.boundaries[type(command)], command, self.schema)

    async def attempt(self, command: Any, key: str, metadata: Metadata) -> Committed | Rejected | Unknown:
        """Decide one command and commit: the answer as a value. The same key again is answered as the first time."""
        command_key = self.handling.command_key(command, key, metadata.tenant)
        meta = encode_metadata(metadata)
        try:
            stream = self.stream(command, metadata.tenant)
        except Rejected as refusal:
            return refusal
        query = self.query(command)
        async with self._turns.of(query.items):
            for tried in range(ATTEMPTS):
                if tried == DOUBTS:
                    self._warm.clear()
                answer = await self._try(command, command_key, query, stream, meta)
                if answer is not None:
                    return answer
                await self.handling.clock.sleep(self.handling.clock.random() * 0.001 * tried)
        raise Conflict(f"what {stream} rests on changed {ATTEMPTS} times meanwhile; try again later")

    async def _try(
        self, command: Any, key: CommandKey, query: Query, stream: str, meta: bytes
    ) -> Committed | Rejected | Unknown | None:
        """Decide and commit; None where it must be decided again. A refusal rests on what has just been read."""
        boundary = self.boundaries[type(command)]
        warm = await self.load(boundary, query)
        fault.point("deciding.read")
        try:
            drafts = self.decide(command, warm.state, meta)
        except Exception as error:
            repeated = await self.handling.repeated(key)
            if repeated is not None:
                return repeated
            if isinstance(error, Rejected):
                return error
            raise
        fault.point("deciding.decided")
        return await self._commit(Append(stream, ANY, drafts), Condition(query.items, warm.seen), key)

    async def _commit(self, append: Append, condition: Condition, key: CommandKey) -> Committed | Unknown | None:
        [answer] = await self.database.commit([WriteSet([append], key=key, conditions=[condition])])
        fault.point("deciding.committed")
        if isinstance(answer, Committed):
            return answer
        if isinstance(answer, Unknown):
            return Unknown(key.key, str(answer.__cause__ or ""))
        if isinstance(answer, Collision):
            return None
        raise answer.error if isinstance(answer, Failed) else answer

    async def load(self, boundary: Boundary, query: Query) -> Warm:
        """The state that a decision rests on, brought up to what is stored now."""
        rests = (boundary.category, query.items)
        before = self._warm.pop(rests) if rests in self._warm else cold(boundary)
        warm = self._warm[rests] = await self.read(query, before)
        if len(self._warm) > WARM:
            self._warm.popitem(last=False)
        return warm

    async def read(self, query: Query, before: Warm) -> Warm:
        """A state with what has come since; the one before is used up."""
        if not query.items:
            return before
        relevant = await self.database.read_relevant(query.items, before.seen)
        decode = self.schema.decode
        events = [(decode(one.type, one.type_version, one.data), places) for one, places in relevant.events]
        return Warm(query.fold(before.state, events), relevant.seen)

    def decide(self, command: Any, state: Any, meta: bytes) -> list[Draft]:
        """The drafts of what is decided on a state. Raises Rejected, or whatever the decision raises."""
        boundary = self.boundaries[type(command)]
        events = as_messages(boundary.decide[type(command)](state, command))
        return [self.handling.draft(event, meta, boundary.category) for event in events]


def cold(boundary: Boundary) -> Warm:
    """The state before any event."""
    return Warm(boundary.initial(), Seen())


class Sitting:
    """The decisions of one batch, of which nothing is committed: each rests on what those before it decided as well.

    All of them stand if the `conditions` hold.
    """

    def __init__(self, deciding: Deciding) -> None:
        self.deciding = deciding
        self._decided: list[Draft] = []
        self._states: dict[Rests, tuple[Warm, int]] = {}
        self._conditions: dict[Rests, Condition] = {}

    @property
    def conditions(self) -> list[Condition]:
        """What the decisions so far rest on, those that were refused too."""
        return list(self._conditions.values())

    async def load(self, commands: Iterable[Any]) -> None:
        """Read what the decisions on some commands rest on."""
        asked: dict[Rests, tuple[Query, Boundary]] = {}
        for command in commands:
            boundary, query = self.deciding.boundaries[type(command)], self.deciding.query(command)
            asked[boundary.category, query.items] = query, boundary
        reads = [self.deciding.read(query, cold(boundary)) for query, boundary in asked.values()]
        for rests, warm in zip(asked, await asyncio.gather(*reads), strict=True):
            self._states[rests] = warm, 0

    def add(self, drafts: Iterable[Draft]) -> None:
        """Events that the batch has decided otherwise."""
        self._decided += drafts

    def decide(self, command: Any, meta: bytes) -> list[Draft]:
        """The drafts of what is decided on a command that was loaded. Raises Rejected, or whatever the decision raises."""
        query = self.deciding.query(command)
        rests = (self.deciding.boundaries[type(command)].category, query.items)
        warm, known = self._states.pop(rests)
        self._conditions[rests] = Condition(query.items, warm.seen)
        new = [(one, query.takers(one.type, one.tags)) for one in self._decided[known:]]
        decode = self.deciding.schema.decode
        events = [(decode(one.type, one.type_version, one.data), places) for one, places in new if places]
        warm.state = query.fold(warm.state, events)
        self._states[rests] = warm, len(self._decided)
        drafts = self.deciding.decide(command, warm.state, meta)
        self._decided += drafts
        return drafts


class Turns:
    """Who decides on events with the same tag, or types where there is none, goes one after the other."""

    def __init__(self) -> None:
        self._locks: WeakValueDictionary[str, asyncio.Lock] = WeakValueDictionary()

    @asynccontextmanager
    async def of(self, items: Iterable[Item]) -> AsyncIterator[None]:
        """Wait for one's turn at all of these, in an order that is the same for everybody."""
        names = {name for item in items for name in (item.tags or item.types)}
        async with AsyncExitStack() as held:
            for name in sorted(names):
                lock = self._locks.get(name)
                if lock is None:
                    lock = self._locks[name] = asyncio.Lock()
                await held.enter_async_context(lock)
            yield
