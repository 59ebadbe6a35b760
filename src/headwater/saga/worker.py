"""Runs a saga: loads the instances a batch touches, evolves and reacts in order, and writes their rows by compare-and-set."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import msgspec
from msgspec import Struct

from headwater.consumer import Arrival, Outcome, run_purely
from headwater.consumer.arrival import Faulty
from headwater.consumer.outgoing import Outgoing, addressed, refused
from headwater.database import Database, Transaction
from headwater.decider import as_messages, field_types
from headwater.errors import HeadwaterError
from headwater.message import Recorded, stream_key
from headwater.outbox import Outbox
from headwater.saga.declare import Compensate, End, Reactions, Undo
from headwater.timer import SagaState


class NotStarted(HeadwaterError):
    """A message came for an instance that has not begun; it is held until one does."""

    retryable = True


class Remembered(Struct, frozen=True):
    """A command kept by `Undo`."""

    type: str
    version: int
    data: msgspec.Raw


class Instance(Struct):
    """A saga instance in memory: the version of its row, its state, and what compensates it."""

    version: int
    state: Any
    undo: list[Remembered]
    ended: bool = False


class Row(Struct, frozen=True):
    """The stored form of an instance."""

    state: dict[str, Any]
    undo: list[Remembered] = []


class StoredRow(Struct, frozen=True):
    """A stored instance, its state not yet decoded."""

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
        self.types = frozenset(self.schema.of(message).name for message in {*reactions.react, *reactions.evolve})
        fields = [(name, hint, getattr(reactions.saga, name)) for name, hint in field_types(reactions.saga).items()]
        self._fields = tuple(name for name, _, _ in fields)
        self._decoder = msgspec.json.Decoder(
            msgspec.defstruct(reactions.saga.__name__, [_with_default(*field) for field in fields])
        )
        self._row = msgspec.json.Decoder(StoredRow)

    def wants(self, message: Recorded) -> bool:
        """Events of its classes; replies and timers only if they are its own."""
        return message.type in self.types and addressed(message, self.name)

    def key_of(self, arrival: Arrival) -> str:
        """The key of the instance that a message is for."""
        message = arrival.message
        if message.kind == "timer":
            return stream_key(message.stream)
        if message.kind == "reply":
            return stream_key(refused.decode(message.data).stream)
        return str(getattr(arrival.payload(self.schema), self.reactions.saga.__key__))

    async def run(self, arrivals: Sequence[Arrival], transaction: Transaction | None) -> Outcome:
        """Evolve and react, message by message."""
        keys: list[str | Exception] = []
        for arrival in arrivals:
            try:
                keys.append(self.key_of(arrival))
            except Exception as error:  # noqa: BLE001 - kept with the message as its cause
                keys.append(error)
        stored = await self.database.sagas(self.name, list({key for key in keys if isinstance(key, str)}))
        return run_purely(arrivals, lambda todo: self._fold(arrivals, keys, todo, stored))

    def _fold(
        self,
        arrivals: Sequence[Arrival],
        keys: Sequence[str | Exception],
        todo: Sequence[int],
        stored: dict[str, SagaState],
    ) -> Outcome:
        outgoing = Outgoing(self.outbox, self.name, self.outbox.clock)
        live: dict[str, Instance] = {}
        for index in todo:
            key = keys[index]
            try:
                if isinstance(key, Exception):
                    raise key
                self._meet(arrivals[index], key, live, stored, outgoing)
            except Exception as error:
                raise Faulty(index, error) from error
        outcome = Outcome(sagas=[self._state(key, instance) for key, instance in live.items()])
        outgoing.into(outcome)
        return outcome

    def _meet(
        self, arrival: Arrival, key: str, live: dict[str, Instance], stored: dict[str, SagaState], outgoing: Outgoing
    ) -> None:
        payload = arrival.payload(self.schema)
        instance = live.get(key) or self._load(key, payload, stored)
        if instance.ended:
            return
        live[key] = instance
        state = instance.state
        change = self.reactions.evolve.get(type(payload))
        if change is not None:
            instance.state = state = change(state, payload) or state
        reaction = self.reactions.react.get(type(payload))
        results = as_messages(reaction(state, payload)) if reaction is not None else ()
        outgoing.add(self._apply(results, instance), arrival, key)

    def _apply(self, results: Sequence[Any], instance: Instance) -> list[Any]:
        """Keep what concerns the instance itself; give what leaves it."""
        leaving: list[Any] = []
        for result in results:
            if isinstance(result, End):
                instance.ended = True
            elif isinstance(result, Undo):
                found = self.schema.of(type(result.command))
                instance.undo.append(Remembered(found.name, found.version, msgspec.Raw(found.to_bytes(result.command))))
            elif isinstance(result, Compensate):
                leaving += [
                    self.schema.decode(one.type, one.version, bytes(one.data)) for one in reversed(instance.undo)
                ]
                instance.undo = []
            else:
                leaving.append(result)
        return leaving

    def _load(self, key: str, payload: Any, stored: dict[str, SagaState]) -> Instance:
        row = stored.get(key)
        if row is None:
            if type(payload) not in self.reactions.starts:
                raise NotStarted(f"there is no {self.name} for {key} yet; the message is held until one starts")
            return Instance(0, self.reactions.saga(), [])
        if row.ended:
            return Instance(row.expect, None, [], ended=True)
        decoded = self._row.decode(row.data)
        fields = self._decoder.decode(decoded.state)
        return Instance(
            row.expect, self.reactions.saga(**{name: getattr(fields, name) for name in self._fields}), decoded.undo
        )

    def _state(self, key: str, instance: Instance) -> SagaState:
        data = msgspec.json.encode(Row(instance.state.__dict__, instance.undo))
        return SagaState(self.name, key, instance.version, data, instance.ended)

    def undo(self) -> None:
        """Nothing is remembered between batches."""
        return


def _with_default(name: str, hint: Any, default: Any) -> tuple[str, Any, Any]:
    if isinstance(default, list | dict | set | bytearray):
        return name, hint, msgspec.field(default_factory=type(default))
    return name, hint, default
