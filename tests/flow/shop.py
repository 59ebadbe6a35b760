"""A service that states facts, and one that takes them: what most flow tests play with."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from headwater import Aggregate, App, Command, Event, Message, ReadModel, Retry, decide, evolve


class Bump(Command, service="shop"):
    key: str
    say: str = ""


class Bumped(Event, service="shop", category="Counter"):
    key: str
    n: int
    say: str = ""


class Counter(Aggregate, key="key"):
    n: int = 0

    @decide
    def bump(self, command: Bump) -> Bumped:
        return Bumped(command.key, self.n + 1, command.say)

    @evolve
    def bumped(self, event: Bumped) -> None:
        self.n = event.n


class Noted(Event):
    key: str
    n: int


class Tally(ReadModel, key="key"):
    numbers: list[int] = []

    @evolve
    def bumped(self, event: Bumped) -> None:
        self.numbers.append(event.n)


def shop(**options: Any) -> App:
    app = App("shop", **options)
    app.add(Counter)
    return app


class Taker:
    """The handler `note` of a service: what it was called with, and what it should do about some of it."""

    def __init__(self, name: str = "mail", *, retry: Retry | None = None, model: bool = True, **options: Any) -> None:
        self.app = App(name, retry=retry or Retry(), **options)
        if model:
            self.app.add(Tally)
        self.calls: list[tuple[str, int]] = []
        self.attempts: list[int] = []
        self.faults: dict[tuple[str, int], Callable[[], Any]] = {}
        self.outage: BaseException | None = None
        self.app.on(name="note")(self.note)

    async def note(self, event: Bumped, message: Message) -> Noted:
        self.calls.append((event.key, event.n))
        self.attempts.append(message.attempt)
        if self.outage is not None:
            raise self.outage
        if fault := self.faults.get((event.key, event.n)):
            fault()
        return Noted(event.key, event.n)

    def fail(self, key: str, n: int, error: BaseException | None = None, *, times: int = 10**9) -> None:
        left = [times]

        def fault() -> None:
            if left[0] > 0:
                left[0] -= 1
                raise error or RuntimeError(f"{key} {n} is bad")

        self.faults[key, n] = fault

    def mend(self) -> None:
        self.faults.clear()
        self.outage = None
