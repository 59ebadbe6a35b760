"""Runs a saga: loads the instances a batch touches, evolves and reacts in order, and writes their rows by compare-and-set."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from typing import Any

import msgspec
from msgspec import Struct

from headwater import fault
from headwater.consumer import Arrival, Outcome, run_purely
from headwater.consumer.arrival import Faulty, Waiting
from headwater.consumer.outgoing import Encoded, Leaving, Outgoing, addressed, collect, instance_of
from headwater.database import Database, Transaction
from headwater.decider import as_messages, field_types
from headwater.errors import SchemaError
from headwater.message import Recorded, stream_key
from headwater.outbox import Outbox
from headwater.saga.declare import Compensate, End, Reactions, Undo
from headwater.timer import SagaState


class NotStarted(Waiting):
    """A message came for an instance that has not begun; it is held until one does."""


class Remembered(Struct, frozen=True):
    """A command kept by `Undo`, as it will be sent."""

    type: str
    version: int
    service: str
    data: msgspec.Raw


class Instance(Struct):
    """A saga instance in memory: the version of its row, its state, and what compensates it."""

    version: int
    state: Any
    undo: list[Remembered]
    ended: bool = False


class Stored(Struct, frozen=True):
    """The stored form of an instance; its state is encoded by itself."""

    state: msgspec.Raw
    undo: list[Remembered] = []


class SagaWorker:
    """Runs one saga class."""

    kind = "saga"
    transactional = False

    def __init__(self, name: str, reactions: Reactions, outbox: Outbox, database: Database) -> None:
        self.name = name
        self.reactions = reactions
        self.outbox = outbox
        self.schema = outbox.schema
        self.database = database
        self.types = frozenset().union(*map(self.schema.names, {*reactions.react, *reactions.evolve}))
        self._outgoing = Outgoing(outbox, name, self.types)
        hints = field_types(reactions.saga)
        fields = [(field, hint, default_of(getattr(reactions.saga, field))) for field, hint in hints.items()]
        self._fields = tuple(hints)
        self._decoder = msgspec.json.Decoder(msgspec.defstruct(reactions.saga.__name__, fields))
        self._row = msgspec.json.Decoder(Stored)

    def wants(self, message: Recorded) -> bool:
        """Events of its classes; replies and timers only if they are its own."""
        return message.type in self.types and addressed(message, self.name)

    def key_of(self, arrival: Arrival) -> str:
        """The key of the instance that a message is for."""
        message = arrival.message
        if message.kind == "timer":
            return stream_key(message.stream)
        if message.kind == "reply":
            return stream_key(arrival.payload(self.schema).stream)
        return str(getattr(arrival.payload(self.schema), self.reactions.saga.__key__))

    async def run(self, arrivals: Sequence[Arrival], transaction: Transaction | None) -> Outcome:
        """Evolve and react, message by message."""
        keys: list[str | Exception] = []
        for arrival in arrivals:
            try:
                keys.append(self.key_of(arrival))
            except Exception as error:  # noqa: BLE001 - kept with the message as its cause
                keys.append(error)
        outcome = await run_purely(arrivals, lambda todo: self._fold(arrivals, keys, todo))
        fault.point("saga.reacted")
        return outcome

    async def _fold(
        self, arrivals: Sequence[Arrival], keys: Sequence[str | Exception], todo: Sequence[int], *, check: bool = False
    ) -> Outcome:
        """Fold messages into their instances; `check` each state at once, to find the message that spoils one."""
        instances = {index: instance_of(str(keys[index]), arrivals[index].metadata.tenant) for index in todo}
        stored = await self.database.sagas(self.name, list(set(instances.values())))
        leaving: list[Leaving] = []
        live: dict[str, Instance] = {}
        for index in todo:
            key, name = keys[index], instances[index]
            try:
                if isinstance(key, Exception):
                    raise key
                instance = live.get(name) or self._load(arrivals[index], name, stored)
                if not instance.ended:
                    live[name] = instance
                    leaving.append(self._meet(arrivals[index], key, instance))
                    if check:
                        self._state(name, instance)
            except Exception as error:
                raise Faulty(index, error) from error
        try:
            outcome = Outcome(sagas=[self._state(name, instance) for name, instance in live.items()])
        except SchemaError:
            return await self._fold(arrivals, keys, todo, check=True)
        collect(leaving, outcome)
        return outcome

    def _meet(self, arrival: Arrival, key: str, instance: Instance) -> Leaving:
        payload = arrival.payload(self.schema)
        change = self.reactions.evolve.get(type(payload))
        if change is not None:
            changed = change(instance.state, payload)
            instance.state = instance.state if changed is None else changed
        reaction = self.reactions.react.get(type(payload))
        results = as_messages(reaction(instance.state, payload)) if reaction is not None else ()
        return self._outgoing.leaving(self._apply(results, instance), arrival, key)

    def _apply(self, results: Sequence[Any], instance: Instance) -> list[Any]:
        """Keep what concerns the instance itself; give what leaves it."""
        leaving: list[Any] = []
        for result in results:
            if isinstance(result, End):
                instance.ended = True
            elif isinstance(result, Undo):
                found = self.schema.of(type(result.command))
                data = msgspec.Raw(found.to_bytes(result.command))
                instance.undo.append(Remembered(found.name, found.version, found.service, data))
            elif isinstance(result, Compensate):
                leaving += [
                    Encoded(one.type, one.version, one.service, bytes(one.data)) for one in reversed(instance.undo)
                ]
                instance.undo = []
            else:
                leaving.append(result)
        return leaving

    def _load(self, arrival: Arrival, name: str, stored: dict[str, SagaState]) -> Instance:
        row = stored.get(name)
        if row is None:
            if type(arrival.payload(self.schema)) not in self.reactions.starts:
                raise NotStarted(f"there is no {self.name} for {name} yet; the message is held until one starts")
            return Instance(0, self.reactions.saga(), [])
        if row.ended:
            return Instance(row.expect, None, [], ended=True)
        decoded = self._row.decode(row.data)
        fields = self._decoder.decode(decoded.state)
        return Instance(
            row.expect, self.reactions.saga(**{field: getattr(fields, field) for field in self._fields}), decoded.undo
        )

    def _state(self, name: str, instance: Instance) -> SagaState:
        """The row of an instance. Raises SchemaError for a state that would not come back as it is."""
        state = {field: getattr(instance.state, field) for field in self._fields}
        try:
            encoded = msgspec.json.encode(state)
            back = self._decoder.decode(encoded)
            same = {field: getattr(back, field) for field in self._fields} == state
        except (TypeError, ValueError, OverflowError, RecursionError) as error:
            raise SchemaError(f"{self.name} {name}: its state cannot be stored: {error}") from error
        if not same:
            raise SchemaError(f"{self.name} {name}: its state would change when stored: {state}")
        data = msgspec.json.encode(Stored(msgspec.Raw(encoded), instance.undo))
        return SagaState(self.name, name, instance.version, data, instance.ended)

    def undo(self) -> None:
        """Nothing is remembered between batches."""
        return


def default_of(value: Any) -> Any:
    """The default of a stored field that an older row lacks: a copy, since a state may change it."""
    return msgspec.field(default_factory=lambda: copy.deepcopy(value))
