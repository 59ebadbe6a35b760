"""Handlers: your functions, bound by annotation when they are declared, and run lane by lane."""

from __future__ import annotations

import asyncio
import inspect
import typing
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager, ExitStack, contextmanager, nullcontext
from types import CoroutineType
from typing import Any

from msgspec import Struct

from headwater.consumer.arrival import Arrival, Outcome
from headwater.consumer.once import Once
from headwater.consumer.outgoing import Leaving, Outgoing, addressed, collect
from headwater.database import Database, Transaction
from headwater.decider import argument_types, as_messages
from headwater.errors import DeclarationError
from headwater.message import Message, Recorded, stream_key
from headwater.outbox import Outbox
from headwater.schema import Schema

LANES = 64
NOTHING = Leaving()
NOTHING_LENT = nullcontext[dict[str, Any]]({})

Lane = list[tuple[int, Arrival]]
"""The messages of one key in order, each with its index in the batch."""


Lender = Callable[[Transaction], AbstractContextManager[Any]]
"""Gives a handler something of its transaction's, for as long as it runs."""


class Handler(Struct, frozen=True):
    """A function with the message classes it takes, and which further arguments it asked for by annotation."""

    function: Callable[..., Any]
    messages: tuple[type, ...]
    asks: dict[str, type]
    lent: dict[str, Lender]
    is_async: bool

    @property
    def transactional(self) -> bool:
        """Whether it runs inside the transaction."""
        return Transaction in self.asks.values() or bool(self.lent)


def bind(function: Callable[..., Any], messages: Sequence[type] = ()) -> Handler:
    """Read a function's signature: the message first, then what it asks for by annotation."""
    where = getattr(function, "__qualname__", repr(function))
    parameters = list(inspect.signature(function).parameters.values())
    if not parameters:
        raise DeclarationError(f"{where} must take a message as its argument")
    found = tuple(messages) or argument_types(function)
    asks, lent = _asks(function, where, parameters[1:])
    is_async = inspect.iscoroutinefunction(function) or inspect.isasyncgenfunction(function)
    handler = Handler(function, found, asks, lent, is_async)
    if handler.transactional and Once in asks.values():
        raise DeclarationError(
            f"{where} asks for a transaction and Once; an outside call must not wait inside a transaction: use two handlers"
        )
    if Once in asks.values() and not is_async:
        raise DeclarationError(f"{where} asks for Once, which is awaited: declare it with `async def`")
    return handler


def _asks(
    function: Callable[..., Any], where: str, parameters: Sequence[inspect.Parameter]
) -> tuple[dict[str, type], dict[str, Lender]]:
    try:
        hints = typing.get_type_hints(function) if parameters else {}
    except NameError as error:
        raise DeclarationError(f"{where}: an annotation cannot be resolved: {error}") from error
    asks: dict[str, type] = {}
    lent: dict[str, Lender] = {}
    for parameter in parameters:
        wanted = hints.get(parameter.name)
        if wanted in (Message, Transaction, Once):
            asks[parameter.name] = wanted
        elif lender := lender_of(wanted):
            lent[parameter.name] = lender
        elif parameter.default is inspect.Parameter.empty:
            raise DeclarationError(
                f"{where}: {parameter.name} must be annotated as Message, Transaction or Once, or as psycopg's Connection "
                "or SQLAlchemy's Session or Connection (pip install 'headwater[postgres]', 'headwater[sqlalchemy]')"
            )
    return asks, lent


def lender_of(wanted: Any) -> Lender | None:
    """Who lends things of a class, if any package that is installed says so."""
    from importlib.metadata import entry_points  # noqa: PLC0415 - takes as long to import as all the rest

    kind = typing.get_origin(wanted) or wanted
    name = f"{getattr(kind, '__module__', '')}.{getattr(kind, '__qualname__', '')}"
    found = next(iter(entry_points(group="headwater.lenders", name=name)), None)
    return found.load()() if found is not None else None


class HandlerWorker:
    """Runs one handler: lanes side by side, each in order; what it returns is written with the batch."""

    kind = "handler"

    def __init__(self, name: str, handler: Handler, outbox: Outbox, database: Database) -> None:
        self.name = name
        self.handler = handler
        self.schema: Schema = outbox.schema
        self.database = database
        self.transactional = handler.transactional
        self.types = frozenset().union(*(self.schema.names(message) for message in handler.messages))
        self._outgoing = Outgoing(outbox, name, self.types)
        self._thread: ThreadPoolExecutor | None = None

    def wants(self, message: Recorded) -> bool:
        """Events of its classes; replies and timers only if they are its own."""
        return message.type in self.types and addressed(message, self.name)

    async def run(self, arrivals: Sequence[Arrival], transaction: Transaction | None) -> Outcome:
        """Call the handler for each message."""
        results: dict[int, Leaving] = {}
        outcome = Outcome()
        lanes: dict[str, Lane] = {}
        for index, arrival in enumerate(arrivals):
            lanes.setdefault(arrival.message.key, []).append((index, arrival))
        if transaction is not None:
            for lane in lanes.values():
                await self._run_lane(lane, outcome, results, transaction)
        elif self.handler.is_async:
            left = iter(lanes.values())
            await asyncio.gather(*(self._run_lanes(left, outcome, results) for _ in range(min(LANES, len(lanes)))))
        else:
            await self._in_thread(list(lanes.values()), outcome, results)
        collect((results[index] for index in sorted(results)), outcome)
        return outcome

    async def _run_lanes(self, left: Iterator[Lane], outcome: Outcome, results: dict[int, Leaving]) -> None:
        """Run lane after lane, beside others who take from the same ones."""
        for lane in left:
            await self._run_lane(lane, outcome, results, None)

    async def _run_lane(
        self, lane: Lane, outcome: Outcome, results: dict[int, Leaving], transaction: Transaction | None
    ) -> None:
        for place, (index, arrival) in enumerate(lane):
            try:
                if transaction is None:
                    results[index] = await self._call(arrival, None, {})
                else:
                    async with transaction.savepoint():
                        with self._lent(transaction) as lent:
                            results[index] = await self._call(arrival, transaction, lent)
            except asyncio.CancelledError as error:
                task = asyncio.current_task()
                if task is None or task.cancelling():
                    raise
                fail(outcome, lane, place, RuntimeError(f"something in the handler was cancelled: {error!r}"))
                return
            except Exception as error:  # noqa: BLE001 - kept with the message as its cause
                fail(outcome, lane, place, error)
                return

    async def _call(self, arrival: Arrival, transaction: Transaction | None, lent: dict[str, Any]) -> Leaving:
        given = self._arguments(arrival, transaction)
        result = self.handler.function(arrival.payload(self.schema), **given, **lent)
        if type(result) is CoroutineType or (result is not None and inspect.isawaitable(result)):
            result = await result
        if result is not None and inspect.isasyncgen(result):
            result = [one async for one in result]
        return self._leaving(arrival, result)

    def _lent(self, transaction: Transaction) -> AbstractContextManager[dict[str, Any]]:
        """What is lent of a transaction, until the handler is done with it."""
        return _lending(self.handler.lent, transaction) if self.handler.lent else NOTHING_LENT

    def _leaving(self, arrival: Arrival, result: Any) -> Leaving:
        if result is None:
            return NOTHING
        return self._outgoing.leaving(as_messages(result), arrival, stream_key(arrival.message.stream))

    def _arguments(self, arrival: Arrival, transaction: Transaction | None) -> dict[str, Any]:
        given: dict[str, Any] = {}
        for name, wanted in self.handler.asks.items():
            if wanted is Transaction:
                given[name] = transaction
            elif wanted is Message:
                given[name] = arrival.context()
            else:
                given[name] = Once(self.database, self.name, arrival.message.id)
        return given

    async def _in_thread(self, lanes: Sequence[Lane], outcome: Outcome, results: dict[int, Leaving]) -> None:
        if self._thread is None:
            self._thread = ThreadPoolExecutor(1, thread_name_prefix=self.name)
        loop = asyncio.get_running_loop()
        await loop.run_in_executor(self._thread, self._run_plain, lanes, outcome, results)

    def _run_plain(self, lanes: Sequence[Lane], outcome: Outcome, results: dict[int, Leaving]) -> None:
        for lane in lanes:
            for place, (index, arrival) in enumerate(lane):
                try:
                    result = self.handler.function(arrival.payload(self.schema), **self._arguments(arrival, None))
                    results[index] = self._leaving(arrival, result)
                except Exception as error:  # noqa: BLE001 - kept with the message as its cause
                    fail(outcome, lane, place, error)
                    break

    def undo(self) -> None:
        """Nothing is remembered between batches."""
        return


@contextmanager
def _lending(lent: Mapping[str, Lender], transaction: Transaction) -> Iterator[dict[str, Any]]:
    with ExitStack() as ends:
        yield {name: ends.enter_context(lend(transaction)) for name, lend in lent.items()}


def fail(outcome: Outcome, lane: Lane, place: int, error: Exception) -> None:
    """The message at a place of a lane failed: those after it are behind it."""
    outcome.failures[lane[place][0]] = error
    outcome.behind.update(index for index, _ in lane[place + 1 :])
