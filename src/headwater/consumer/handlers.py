"""Handlers: your functions, bound by annotation when they are declared, and run lane by lane."""

from __future__ import annotations

import asyncio
import inspect
import typing
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from msgspec import Struct

from headwater.clock import Clock
from headwater.consumer.arrival import Arrival, Outcome
from headwater.consumer.once import Once
from headwater.consumer.outgoing import Outgoing, addressed
from headwater.database import Database, Transaction
from headwater.decider import argument_types, as_messages
from headwater.errors import DeclarationError
from headwater.message import Message, Recorded, stream_key
from headwater.outbox import Outbox
from headwater.schema import Schema

LANES = 64


class Handler(Struct, frozen=True):
    """A function with the message classes it takes, and which further arguments it asked for by annotation."""

    function: Callable[..., Any]
    messages: tuple[type, ...]
    asks: dict[str, type]
    is_async: bool

    @property
    def transactional(self) -> bool:
        """Whether it runs inside the transaction."""
        return Transaction in self.asks.values()


def bind(function: Callable[..., Any], messages: Sequence[type] = ()) -> Handler:
    """Read a function's signature: the message first, then `Message`, `Transaction` or `Once` by annotation."""
    where = getattr(function, "__qualname__", repr(function))
    found = tuple(messages) or argument_types(function)
    hints = typing.get_type_hints(function)
    asks: dict[str, type] = {}
    for parameter in list(inspect.signature(function).parameters.values())[1:]:
        wanted = hints.get(parameter.name)
        if wanted in (Message, Transaction, Once):
            asks[parameter.name] = wanted
        elif parameter.default is inspect.Parameter.empty:
            raise DeclarationError(f"{where}: {parameter.name} must be annotated as Message, Transaction or Once")
    handler = Handler(function, found, asks, inspect.iscoroutinefunction(function))
    if handler.transactional and Once in asks.values():
        raise DeclarationError(
            f"{where} asks for Transaction and Once; an outside call must not wait inside a transaction: use two handlers"
        )
    if Once in asks.values() and not handler.is_async:
        raise DeclarationError(f"{where} asks for Once, which is awaited: declare it with `async def`")
    return handler


class HandlerWorker:
    """Runs one handler: lanes side by side, each in order; what it returns is written with the batch."""

    kind = "handler"

    def __init__(self, name: str, handler: Handler, outbox: Outbox, database: Database, clock: Clock) -> None:
        self.name = name
        self.handler = handler
        self.outbox = outbox
        self.schema: Schema = outbox.schema
        self.database = database
        self.clock = clock
        self.transactional = handler.transactional
        self.types = frozenset(self.schema.of(message).name for message in handler.messages)
        self._thread: ThreadPoolExecutor | None = None

    def wants(self, message: Recorded) -> bool:
        """Events of its classes; replies and timers only if they are its own."""
        return message.type in self.types and addressed(message, self.name)

    async def run(self, arrivals: Sequence[Arrival], transaction: Transaction | None) -> Outcome:
        """Call the handler for each message."""
        results: dict[int, Any] = {}
        outcome = Outcome()
        lanes: dict[str, list[int]] = {}
        for index, arrival in enumerate(arrivals):
            lanes.setdefault(arrival.message.key, []).append(index)
        if transaction is not None:
            for lane in lanes.values():
                await self._run_lane(arrivals, lane, outcome, results, transaction)
        elif self.handler.is_async:
            gate = asyncio.Semaphore(LANES)
            await asyncio.gather(*(self._run_gated(gate, arrivals, lane, outcome, results) for lane in lanes.values()))
        else:
            await self._in_thread(arrivals, list(lanes.values()), outcome, results)
        self._collect(arrivals, outcome, results)
        return outcome

    async def _run_gated(
        self,
        gate: asyncio.Semaphore,
        arrivals: Sequence[Arrival],
        lane: list[int],
        outcome: Outcome,
        results: dict[int, Any],
    ) -> None:
        async with gate:
            await self._run_lane(arrivals, lane, outcome, results, None)

    async def _run_lane(
        self,
        arrivals: Sequence[Arrival],
        lane: list[int],
        outcome: Outcome,
        results: dict[int, Any],
        transaction: Transaction | None,
    ) -> None:
        for place, index in enumerate(lane):
            try:
                if transaction is None:
                    results[index] = await self._call(arrivals[index], None)
                else:
                    async with transaction.savepoint():
                        results[index] = await self._call(arrivals[index], transaction)
            except Exception as error:  # noqa: BLE001 - kept with the message as its cause
                outcome.failures[index] = error
                outcome.behind.update(lane[place + 1 :])
                return

    async def _call(self, arrival: Arrival, transaction: Transaction | None) -> Any:
        result = self.handler.function(arrival.payload(self.schema), **self._arguments(arrival, transaction))
        if inspect.isawaitable(result):
            result = await result
        return as_messages(result)

    def _arguments(self, arrival: Arrival, transaction: Transaction | None) -> dict[str, Any]:
        given: dict[type, Any] = {Transaction: transaction}
        if self.handler.asks:
            given[Message] = arrival.context()
            given[Once] = Once(self.database, self.name, arrival.message.id)
        return {name: given[wanted] for name, wanted in self.handler.asks.items()}

    async def _in_thread(
        self, arrivals: Sequence[Arrival], lanes: list[list[int]], outcome: Outcome, results: dict[int, Any]
    ) -> None:
        if self._thread is None:
            self._thread = ThreadPoolExecutor(1, thread_name_prefix=self.name)
        await asyncio.get_running_loop().run_in_executor(
            self._thread, self._run_lanes, arrivals, lanes, outcome, results
        )

    def _run_lanes(
        self, arrivals: Sequence[Arrival], lanes: Sequence[list[int]], outcome: Outcome, results: dict[int, Any]
    ) -> None:
        for lane in lanes:
            self._run_plain(arrivals, lane, outcome, results)

    def _run_plain(
        self, arrivals: Sequence[Arrival], lane: list[int], outcome: Outcome, results: dict[int, Any]
    ) -> None:
        for place, index in enumerate(lane):
            arrival = arrivals[index]
            try:
                results[index] = as_messages(
                    self.handler.function(arrival.payload(self.schema), **self._arguments(arrival, None))
                )
            except Exception as error:  # noqa: BLE001 - kept with the message as its cause
                outcome.failures[index] = error
                outcome.behind.update(lane[place + 1 :])
                return

    def _collect(self, arrivals: Sequence[Arrival], outcome: Outcome, results: dict[int, Any]) -> None:
        """Turn what the handlers returned into drafts; a message that cannot be sent is a failure of its handler."""
        outgoing = Outgoing(self.outbox, self.name, self.clock)
        failed: set[str] = set()
        for index in sorted(results):
            arrival = arrivals[index]
            if arrival.message.key in failed:
                outcome.behind.add(index)
                continue
            try:
                outgoing.add(results[index], arrival, stream_key(arrival.message.stream))
            except Exception as error:  # noqa: BLE001 - kept with the message as its cause
                outcome.failures[index] = error
                failed.add(arrival.message.key)
        outgoing.into(outcome)

    def undo(self) -> None:
        """Nothing is remembered between batches."""
        return
