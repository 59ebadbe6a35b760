"""Processes that are forked to do something at once, and what each of them answers."""

from __future__ import annotations

import asyncio
import multiprocessing
import traceback
from collections.abc import Awaitable, Callable
from multiprocessing.connection import Connection
from multiprocessing.process import BaseProcess
from typing import Any

PATIENCE = 60.0

Run = Callable[[int, Callable[[], object]], Awaitable[Any]]
"""What the process of a number does; it calls what it is given when it is ready, and goes on when all are."""


class Racers:
    """So many processes, from here to the end of the block. They are forked: the caller has no threads as yet."""

    def __init__(self, count: int, run: Run) -> None:
        self._count = count
        self._run = run
        self._members: list[tuple[BaseProcess, Connection]] = []

    def __enter__(self) -> Racers:
        context = multiprocessing.get_context("fork")
        start = context.Barrier(self._count)
        for number in range(self._count):
            ours, theirs = context.Pipe(duplex=False)
            words = (self._run, number, lambda: start.wait(PATIENCE), theirs)
            process = context.Process(target=_answer, args=words)
            process.start()
            theirs.close()
            self._members.append((process, ours))
        return self

    def __exit__(self, *_: object) -> None:
        for process, pipe in self._members:
            process.kill()
            process.join()
            pipe.close()

    @property
    def done(self) -> bool:
        """Whether each has an answer, or has died."""
        return all(pipe.poll() for _, pipe in self._members)

    def answers(self) -> list[Any]:
        """What each answers, once it does. Raises RuntimeError where one fell."""
        return [_take(pipe) for _, pipe in self._members]


def _take(pipe: Connection) -> Any:
    if not pipe.poll(PATIENCE):
        raise RuntimeError(f"a process was not done within {PATIENCE:.0f} s")
    try:
        answer, fell = pipe.recv()
    except EOFError:
        raise RuntimeError("a process died") from None
    if fell:
        raise RuntimeError(fell)
    return answer


def _answer(run: Run, number: int, ready: Callable[[], object], pipe: Connection) -> None:
    async def main() -> Any:
        return await run(number, ready)

    try:
        pipe.send((asyncio.run(main()), ""))
    except BaseException:  # noqa: BLE001 - whatever it was, it is told
        pipe.send((None, traceback.format_exc()))
