"""The app: what you declare your service on, and how you send commands and read state."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Iterable
from contextlib import AsyncExitStack, asynccontextmanager
from types import TracebackType
from typing import Any, Literal, TypeVar

from msgspec.structs import replace

from headwater.app.adapters import open_channel, open_claims, open_database
from headwater.app.declared import Declarations
from headwater.app.parts import Parts
from headwater.app.routes import routes
from headwater.app.runner import Runner
from headwater.app.wiring import Wiring, WiringOptions, wire
from headwater.channel import Channel, Route, Start
from headwater.claims import checked
from headwater.clock import Clock, SystemClock
from headwater.config import Settings, settings
from headwater.database import Database
from headwater.decider import Aggregate, fold
from headwater.errors import ConfigurationError, DeclarationError, NotFound, Rejected, Stale, Unknown
from headwater.inbox import Reason
from headwater.message import Declared, Metadata, Names, Recorded, named_fields, stream_of
from headwater.projection import Projection, ReadModel, types_of
from headwater.retry import Retry
from headwater.schema import Schema, Upcast
from headwater.store import Committed

Function = TypeVar("Function", bound=Callable[..., Any])
Model = TypeVar("Model", bound=ReadModel)
State = TypeVar("State", bound=Aggregate)

PAGE = 1000
HELD = 100_000
NEAR = 500


class App:
    """A service: its messages, aggregates, read models, sagas and handlers, and where they run.

    `store` and `channel` are URLs; if they are not given they come from `HEADWATER_STORE` and `HEADWATER_CHANNEL`, from
    `[tool.headwater]` in pyproject.toml, or are files in the working folder. `claims` (`HEADWATER_CLAIMS`) says where messages
    are left that are too large for the channel. Use it as `async with app:` to run all of it
    in this process, `async with app.client():` to send and read only, or `headwater run module:app`.
    """

    def __init__(  # noqa: PLR0913 - the settings of a service
        self,
        name: str,
        *,
        store: str = "",
        channel: str = "",
        claims: str = "",
        start: Start = "beginning",
        retry: Retry | None = None,
        batch: int = 500,
        journal: bool = False,
        clock: Clock | None = None,
    ) -> None:
        self.name = name
        self.declared = Declarations(name)
        self.clock: Clock = clock or SystemClock()
        self.options = WiringOptions(start, retry or Retry(), batch, journal)
        self._store_url = store
        self._channel_url = channel
        self._claims_url = claims
        self._wiring: Wiring | None = None
        self._runner: Runner | None = None

    # --- declare ---

    @property
    def schema(self) -> Schema:
        """The message types that the app knows."""
        return self.declared.schema

    def add(self, *declared: Any) -> None:
        """Take on aggregates, decisions, deciders, read models, sagas and message classes. Raises DeclarationError."""
        self._check_not_wired()
        for one in declared:
            self.declared.add(one)

    def adopt(
        self,
        payload: type,
        *,
        kind: Literal["event", "command"],
        stored: str = "",
        version: int = 1,
        service: str = "",
        category: str = "",
        tags: Names = (),
    ) -> None:
        """Take on a dataclass, attrs class or pydantic model as a message, under a stored name."""
        self.declared.adopt(payload, kind, Declared(kind, service, category, stored, version, named_fields(tags)))

    def listen(self, topic: str, event: type, *, key: str = "", named: str = "", once: bool = True) -> None:
        """Take the messages of a topic that are not ours, plain JSON or CloudEvents, as events of a type. Raises DeclarationError.

        `key` is the field that order is kept by (without, the channel's key); `named` the only CloudEvents type that is
        taken. Each takes effect once, by its position in the topic; what the topic has lost cannot show. A channel whose
        messages have no position (RabbitMQ, SQS) needs `once=False`: one may then be handled twice.
        """
        self._check_not_wired()
        self.declared.listen(topic, event, key=key, named=named, once=once)

    def on(self, *messages: type, name: str = "", retry: Retry | None = None) -> Callable[[Function], Function]:
        """Declare a handler for events: retried, de-duplicated, held in order and dead-lettered for you.

        The function takes the event, and by annotation `Message`, `Once`, `Transaction`, or a connection or session that is
        lent of one; it may return messages, which leave in the same transaction. `name` is its stored name (by default the
        function's).
        """

        def declare(function: Function) -> Function:
            self._check_not_wired()
            self.declared.on(function, messages, name, retry)
            return function

        return declare

    def upcast(self, stored: str, version: int, *, to: str = "") -> Callable[[Upcast], Upcast]:
        """Declare how the fields of an old version of a stored type become those of the next; `to` is its new name."""

        def declare(step: Upcast) -> Upcast:
            self.schema.upcast(stored, version, step, to)
            return step

        return declare

    def routes(self) -> list[Route]:
        """Every topic that the app publishes or consumes, with the groups that it knows of. Raises DeclarationError."""
        return routes(self.declared)

    def _check_not_wired(self) -> None:
        if self._wiring is not None:
            raise DeclarationError(f"the app {self.name!r} is running: declare everything before it starts")

    # --- run ---

    def settings(self, *, store: str = "", channel: str = "") -> Settings:
        """The URLs that hold for this app; what is given goes before what the app was made with. Raises ConfigurationError."""
        store, channel = store or self._store_url, channel or self._channel_url
        return settings(self.name, store=store, channel=channel, claims=self._claims_url)

    async def connect(self, database: Database | None = None, channel: Channel | None = None) -> Wiring:
        """Open the store and wire the app to it; `database` and `channel` stand in for the URLs."""
        if self._wiring is None:
            found = self.settings()
            claims = open_claims(found.claims)
            carrier = checked(channel or open_channel(found.channel, self.clock), claims)
            store = database or open_database(found.store, self.clock)
            try:
                if database is None:
                    await store.open()
                self._wiring = await wire(
                    self.declared, store, carrier, self.clock, replace(self.options, claims=claims)
                )
            except BaseException:
                await store.close()
                raise
        return self._wiring

    async def start(self, member: str = "", *, only: Iterable[str] = (), without: Iterable[str] = ()) -> None:
        """Run everything: handlers, read models, sagas, timers and the relay.

        While the channel is away the rest works, and it is joined once it is there. `member` names this process among those
        of the service, the same at every start; without, it takes a free name. `only` these parts run here, by their stored
        names, or all `without` them: others run them.
        """
        if self._runner is not None:
            raise ConfigurationError(f"the app {self.name!r} is running already")
        wiring = await self.connect()
        self._runner = Runner(wiring, member, Parts(frozenset(only), frozenset(without)))
        await self._runner.start()

    async def stop(self) -> None:
        """Stop running and let go of the store and the channel."""
        runner, wiring = self._runner, self._wiring
        self._runner = self._wiring = None
        async with AsyncExitStack() as left:
            if wiring is not None:
                left.push_async_callback(wiring.database.close)
                if runner is not None:
                    left.push_async_callback(wiring.channel.close)
                    left.push_async_callback(runner.stop)

    async def __aenter__(self) -> App:
        try:
            await self.start()
        except BaseException:
            await self.stop()
            raise
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.stop()

    @asynccontextmanager
    async def client(self) -> AsyncIterator[App]:
        """Send commands and read state from this process, and run nothing here."""
        await self.connect()
        try:
            yield self
        finally:
            await self.stop()

    @property
    def wiring(self) -> Wiring:
        """What the app is wired to; ConfigurationError when it is not running."""
        if self._wiring is None:
            raise ConfigurationError(
                f"the app {self.name!r} is not running: use `async with app:` or `async with app.client():`"
            )
        return self._wiring

    # --- write ---

    async def send(self, command: Any, *, key: str = "", metadata: Metadata | None = None) -> Committed:
        """Decide a command and commit its events. Raises Rejected, or Unknown where the outcome is not known.

        With a `key` the command is done once, however often it is sent; the same key with another command is KeyReused.
        """
        answer = await self.attempt(command, key=key, metadata=metadata)
        if isinstance(answer, Committed):
            return answer
        raise answer

    async def attempt(
        self, command: Any, *, key: str = "", metadata: Metadata | None = None
    ) -> Committed | Rejected | Unknown:
        """Like `send`, with the answer as a value, for `match`."""
        known, wiring = key or self.clock.new_id(), self.wiring
        flow = wiring.deciding if type(command) in wiring.deciding.boundaries else wiring.handling
        return await flow.attempt(command, known, metadata or Metadata(known))

    # --- read ---

    async def get(
        self, model: type[Model], *key: Any, after: Committed | None = None, timeout: float = 5.0
    ) -> Model | None:
        """One row of a read model, None if there is none; with `after`, not before the model has passed that answer.

        Raises Stale if it has not within `timeout` seconds.
        """
        projection = self._projection(model)
        if len(key) != len(projection.keys):
            raise ConfigurationError(f"{model.__name__} is found by ({', '.join(projection.keys)}), not by {key}")
        if after is not None:
            await self._passed(projection, after.position, timeout)
        rows = await self.wiring.database.rows(projection.table, [key])
        return projection.to_model(rows[key]) if key in rows else None  # type: ignore[return-value]

    async def find(
        self,
        model: type[Model],
        *,
        limit: int = 100,
        after: Committed | None = None,
        timeout: float = 5.0,
        **where: Any,
    ) -> list[Model]:
        """Rows of a read model whose columns equal the given values, in key order. Raises Stale as `get` does."""
        projection = self._projection(model)
        unknown = set(where) - set(projection.table.names)
        if unknown:
            raise ConfigurationError(
                f"{model.__name__} has no column {sorted(unknown)[0]!r}; it has {', '.join(projection.table.names)}"
            )
        if after is not None:
            await self._passed(projection, after.position, timeout)
        rows = await self.wiring.database.find(projection.table, where, limit)
        return [projection.to_model(row) for row in rows]  # type: ignore[misc]

    async def load(
        self, aggregate: type[State], key: str, *, version: int | None = None, at: int | None = None, tenant: str = ""
    ) -> State:
        """An aggregate as it is, as it was at a version, or at a time (microseconds). Raises NotFound."""
        decider = self.declared.aggregates.get(aggregate)
        if decider is None:
            raise ConfigurationError(
                f"{aggregate.__name__} is not part of {self.name}; add it: app.add({aggregate.__name__})"
            )
        stream = stream_of(decider.category, key, tenant)
        state: Any = decider.initial()
        found = False
        async for recorded in self.history(stream):
            if (version is not None and recorded.version > version) or (at is not None and recorded.time > at):
                break
            found = True
            payload = self.schema.decode(recorded.type, recorded.type_version, recorded.data)
            state = fold(decider.evolve, state, (payload,))
        if not found:
            raise NotFound(f"{stream} has no events{' by then' if version is not None or at is not None else ''}")
        return state  # type: ignore[no-any-return]

    async def history(self, stream: str, after: int = 0) -> AsyncIterator[Recorded]:
        """Every message of a stream above a version, in order: the full audit trail."""
        while page := await self.wiring.database.read_stream(stream, after, PAGE):
            for recorded in page:
                yield recorded
            after = page[-1].version

    def _projection(self, model: type[ReadModel]) -> Projection:
        for projection in self.declared.projections.values():
            if projection.model is model:
                return projection
        raise ConfigurationError(f"{model.__name__} is not part of {self.name}; add it: app.add({model.__name__})")

    async def _passed(self, projection: Projection, position: int, timeout: float) -> None:
        if projection.model.__inline__:
            return
        name = f"{self.name}.{projection.table.name}"
        deadline = self.clock.monotonic() + timeout
        pause = 0.001
        checkpoint = self.wiring.database.checkpoint
        while (at := await checkpoint(name)) < position and not await self._idle(projection, at, position):
            if self.clock.monotonic() >= deadline:
                raise Stale(f"{name} is at position {at}, and {position} was asked for; is the service running?")
            await self.clock.sleep(pause)
            pause = min(0.05, pause * 1.5)
        if await self._holds(name, position):
            raise Stale(f"{name} holds the message at position {position}: it failed; see `headwater dead-letters`")

    async def _idle(self, projection: Projection, after: int, position: int) -> bool:
        """Whether a read model has nothing to fold up to a position: its checkpoint follows in a moment."""
        types = types_of(projection, self.schema)
        recorded = await self.wiring.database.read(after, min(position - after, NEAR))
        reached = bool(recorded) and recorded[-1].position >= position
        return reached and not any(one.type in types and one.position <= position for one in recorded)

    async def _holds(self, name: str, position: int) -> bool:
        database = self.wiring.database
        if (await database.held_count(name))[0] == 0:
            return False
        held = await database.held_list(name, list(Reason), HELD)
        return any(row.message.position == position for row in held)
