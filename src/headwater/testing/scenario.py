"""Given / when / then for what you declare: aggregates, decisions, read models and sagas, with no database and no loop.

given(Account, AccountOpened("a1", "Ada")).when(Withdraw("a1", 50)).then_rejected("not enough money")
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

from headwater.decider import Aggregate, Decide, as_messages, decider_of, fold
from headwater.decision import Decision, Query, boundary_of, query_of
from headwater.errors import DeclarationError, Rejected
from headwater.projection import ReadModel, projection_of
from headwater.saga import Compensate, Saga, Undo
from headwater.saga.declare import End, Reactions, reactions_of
from headwater.schema import Schema

SERVICE = "scenario"


class Outcome:
    """What came of a message: check it with `then…`."""

    def __init__(
        self, messages: Sequence[Any], state: Any, refusal: Rejected | None = None, *, ended: bool = False
    ) -> None:
        self.messages = tuple(messages)
        self.state = state
        self.refusal = refusal
        self.ended = ended

    def then(self, *messages: Any) -> Outcome:
        """Exactly these messages came of it, in this order."""
        if self.refusal is not None:
            raise AssertionError(f"rejected: {self.refusal.reason!r}; expected {messages}")
        if self.messages != messages:
            raise AssertionError(f"expected {messages}\n     got {self.messages}")
        return self

    def then_nothing(self) -> Outcome:
        """Nothing came of it, and it was not refused."""
        return self.then()

    def then_rejected(self, reason: str = "", **details: Any) -> Outcome:
        """It was refused, with this reason and details where they are given."""
        if self.refusal is None:
            raise AssertionError(f"expected a rejection, got {self.messages}")
        if reason and self.refusal.reason != reason:
            raise AssertionError(f"expected the reason {reason!r}, got {self.refusal.reason!r}")
        if details and self.refusal.details != details:
            raise AssertionError(f"expected the details {details}, got {self.refusal.details}")
        return self

    def then_state(self, **fields: Any) -> Outcome:
        """The state afterwards has these values."""
        found = {name: getattr(self.state, name, "(no such field)") for name in fields}
        if found != fields:
            raise AssertionError(f"expected {fields}\n     got {found}")
        return self

    def then_ended(self) -> Outcome:
        """The saga instance is over."""
        if not self.ended:
            raise AssertionError(f"the saga has not ended; it is {self.state}")
        return self


class Given:
    """A state made of messages."""

    def __init__(self, declared: type, history: Sequence[Any]) -> None:
        self.declared = declared
        self.history = history

    def when(self, message: Any) -> Outcome:
        """Give a command to an aggregate or a decision, or a message to a saga.

        What comes of a message to a saga is what leaves it: what `Undo` remembers is not seen before `Compensate` sends it,
        and `END` shows in `then_ended`.
        """
        if issubclass(self.declared, Aggregate):
            decider = decider_of(self.declared, SERVICE)
            return self._decide(decider.decide, message, lambda state, events: fold(decider.evolve, state, events))
        if issubclass(self.declared, Decision):
            return self._decide_over_boundary(self.declared, message)
        if issubclass(self.declared, Saga):
            return self._react(self.declared, message)
        raise DeclarationError(
            f"when() takes an Aggregate, a Decision or a Saga; for {self.declared.__name__} use then_rows()"
        )

    def then_rows(self, *rows: ReadModel) -> None:
        """A read model has exactly these rows after the events, in any order."""
        if not issubclass(self.declared, ReadModel):
            raise DeclarationError(f"then_rows() is for a ReadModel; {self.declared.__name__} is none")
        projection = projection_of(self.declared)
        events = [event for event in self.history if type(event) in projection.evolve]
        found = sorted(map(repr, map(projection.to_model, projection.fold({}, events).rows)))
        if found != sorted(map(repr, map(projection.to_model, map(projection.to_row, rows)))):
            raise AssertionError(f"expected rows {list(rows)}\n          got {found}")

    def _decide_over_boundary(self, declared: type[Decision], command: Any) -> Outcome:
        """Of the history, the decision sees what carries the tags of the command."""
        boundary = boundary_of(declared, SERVICE)
        schema = Schema(SERVICE)

        def evolve(state: Any, events: Iterable[Any]) -> Any:
            kinds = [(event, schema.of(type(event))) for event in events]
            return query.fold(state, [(event, query.takers(kind.name, kind.tags_of(event))) for event, kind in kinds])

        query = query_of(boundary, command, schema) if type(command) in boundary.decide else Query((), ())
        return self._decide(boundary.decide, command, evolve)

    def _decide(
        self, decide: Mapping[type, Decide], command: Any, evolve: Callable[[Any, Iterable[Any]], Any]
    ) -> Outcome:
        decision = decide.get(type(command))
        if decision is None:
            raise DeclarationError(f"{self.declared.__name__} decides no {type(command).__name__}")
        state = evolve(self.declared(), self.history)
        before = copy.deepcopy(state)
        try:
            events = as_messages(decision(state, command))
        except Rejected as refusal:
            return Outcome((), state, refusal)
        if state != before:
            raise AssertionError(f"the decision on {command} changed the state; only @evolve may:\n{before}\n{state}")
        return Outcome(events, evolve(state, events))

    def _react(self, saga: type[Saga], message: Any) -> Outcome:
        reactions = reactions_of(saga)
        if type(message) not in {*reactions.react, *reactions.evolve}:
            raise DeclarationError(f"{saga.__name__} takes no {type(message).__name__}")
        life = _Life(reactions)
        for one in self.history:
            life.meet(one)
        leaving = life.meet(message)
        return Outcome(leaving, life.state, ended=life.ended)


class _Life:
    """An instance of a saga, as its messages move it on."""

    def __init__(self, reactions: Reactions) -> None:
        self.reactions = reactions
        self.state: Any = None
        self.undo: list[Any] = []
        self.ended = False

    def meet(self, message: Any) -> list[Any]:
        """What leaves after a message; nothing once it has ended."""
        if self.ended:
            return []
        if self.state is None:
            if type(message) not in self.reactions.starts:
                raise AssertionError(f"no instance has begun: {message} would be held until one does")
            self.state = self.reactions.saga()
        self.state = fold(self.reactions.evolve, self.state, (message,))
        reaction = self.reactions.react.get(type(message))
        return self._leaving(as_messages(reaction(self.state, message)) if reaction is not None else ())

    def _leaving(self, results: Sequence[Any]) -> list[Any]:
        leaving: list[Any] = []
        for result in results:
            if isinstance(result, End):
                self.ended = True
            elif isinstance(result, Undo):
                self.undo.append(result.command)
            elif isinstance(result, Compensate):
                leaving += reversed(self.undo)
                self.undo = []
            else:
                leaving.append(result)
        return leaving


def given(declared: type, *history: Any) -> Given:
    """Start a scenario: an aggregate, decision, read model or saga class, and what has happened so far."""
    return Given(declared, history)
