"""Several processes of one service: started, watched, started again, and ended together."""

from __future__ import annotations

import asyncio
import logging
import os
import signal
from collections.abc import Sequence
from types import FrameType
from typing import Final

from headwater.cli.run import AT_MOST, PARENT
from headwater.telemetry import signal as say

FATAL: Final = frozenset({2, 3})
"""Exit codes of a worker that another try would end with as well: usage and configuration."""

FIRST_PAUSE: Final = 0.5
LONGEST_PAUSE: Final = 30.0
SOUND: Final = 30.0
"""Seconds after which a worker counts as sound, so that its next end is its first."""


class Workers:
    """The processes of one command. They end when this one does: each holds an end of a pipe that closes with it."""

    def __init__(self, arguments: Sequence[str]) -> None:
        self.arguments = arguments
        self.stopping = asyncio.Event()
        self.code = 0
        self._asked = False
        self._loop = asyncio.get_running_loop()
        self._running: dict[int, asyncio.subprocess.Process] = {}
        self._read_end, self._write_end = os.pipe()

    def listen(self) -> None:
        """Pass signals on from now on."""
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, self._hear)

    def _hear(self, number: int, frame: FrameType | None) -> None:
        if self._asked:
            self._send(signal.SIGKILL)
            os._exit(128 + number)
        self._asked = True
        self._loop.call_soon_threadsafe(self._stop, number)

    def _stop(self, number: int) -> None:
        self.stopping.set()
        self._send(number)

    def _send(self, number: int) -> None:
        for process in list(self._running.values()):
            try:
                process.send_signal(number)
            except ProcessLookupError:
                continue

    async def tend(self, worker: int) -> None:
        """Keep one worker running until all are told to stop."""
        failures = 0
        while not self.stopping.is_set():
            began = self._loop.time()
            code = await self._run(worker)
            if self.stopping.is_set():
                return
            if code in FATAL:
                self.give_up(code)
                return
            failures = 1 if self._loop.time() - began >= SOUND else failures + 1
            pause = min(LONGEST_PAUSE, FIRST_PAUSE * 2.0 ** (failures - 1))
            say("worker.ended", logging.ERROR, worker=worker, code=code, again_in=pause)
            await self._pause(pause)

    def give_up(self, code: int) -> None:
        """End all, since one cannot run."""
        self.code = code
        self._stop(signal.SIGTERM)

    async def _run(self, worker: int) -> int:
        process = await asyncio.create_subprocess_exec(
            *self.arguments,
            stdin=asyncio.subprocess.DEVNULL,
            env={**os.environ, PARENT: str(self._read_end)},
            pass_fds=(self._read_end,),
            process_group=0,  # a terminal's interrupt reaches this process alone, which passes it on once
        )
        self._running[worker] = process
        if self.stopping.is_set():
            process.send_signal(signal.SIGTERM)
        say("worker.started", worker=worker, pid=process.pid)
        try:
            return await process.wait()
        finally:
            self._running.pop(worker, None)

    async def _pause(self, seconds: float) -> None:
        try:
            await asyncio.wait_for(self.stopping.wait(), seconds)
        except TimeoutError:
            return

    async def run(self, count: int) -> int:
        """Run so many until told to stop; the exit code."""
        tending = [asyncio.ensure_future(self.tend(worker)) for worker in range(1, count + 1)]
        stopping = asyncio.ensure_future(self.stopping.wait())
        await asyncio.wait({stopping, *tending}, return_when=asyncio.FIRST_COMPLETED)
        stopping.cancel()
        if not self.stopping.is_set():  # one could not even be started
            self._stop(signal.SIGTERM)
        _, late = await asyncio.wait(tending, timeout=AT_MOST + 1)
        if late:
            self._send(signal.SIGKILL)
            await asyncio.wait(late)
        for task in tending:
            task.result()
        return self.code


async def supervise(arguments: Sequence[str], count: int) -> int:
    """Run `count` processes of a command until told to stop; the exit code."""
    workers = Workers(arguments)
    workers.listen()
    return await workers.run(count)
