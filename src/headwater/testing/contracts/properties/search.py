"""How a machine is run: many examples, each in an event loop and a folder of its own."""

from __future__ import annotations

import asyncio
import tempfile
from collections.abc import Callable, Coroutine
from contextlib import ExitStack
from pathlib import Path
from typing import Any, TypeVar

import hypothesis
from hypothesis.stateful import RuleBasedStateMachine, run_state_machine_as_test

from headwater.testing.clock import VirtualClock

Result = TypeVar("Result")


class Machine(RuleBasedStateMachine):
    """An example: coroutines of an adapter are run to their end, a step at a time, on a clock that stands still."""

    def __init__(self) -> None:
        super().__init__()
        self._closing = ExitStack()
        self._loop = self._closing.enter_context(asyncio.Runner())
        self.folder = Path(self._closing.enter_context(tempfile.TemporaryDirectory()))
        self.clock = VirtualClock()

    def run(self, step: Coroutine[Any, Any, Result]) -> Result:
        """The result of a coroutine."""
        return self._loop.run(step)

    async def end(self) -> None:
        """Close what is open."""
        raise NotImplementedError

    def teardown(self) -> None:
        """End the example, also after a failure."""
        with self._closing:
            self.run(self.end())


class Properties:
    """How much is tried: so many examples of at most so many steps; the same ones every time, where there is no `seed`.

    One that fails is made as short as it may be, unless `shrink` is false.
    """

    examples = 100
    steps = 20
    seed: int | None = None
    shrink = True

    def search(self, machine: Callable[[], Machine]) -> None:
        """Run examples until one fails; the shortest that fails is told."""
        if self.seed is not None:
            machine = hypothesis.seed(self.seed)(machine)
        settings = hypothesis.settings(
            max_examples=self.examples,
            stateful_step_count=self.steps,
            derandomize=self.seed is None,
            database=None,
            deadline=None,
            phases=[phase for phase in hypothesis.Phase if self.shrink or phase is hypothesis.Phase.generate],
            suppress_health_check=list(hypothesis.HealthCheck),
        )
        run_state_machine_as_test(machine, settings=settings)  # type: ignore[arg-type]  # a function will do
