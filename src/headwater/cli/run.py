"""`headwater run`: one service, in this process or in several."""

from __future__ import annotations

import asyncio
import io
import itertools
import logging
import os
import signal
import sys
import threading
from collections.abc import Callable, Sequence
from contextlib import suppress
from types import FrameType
from typing import Final

import click

from headwater.app import App, Parts, Wiring, open_channel, open_database
from headwater.cli.target import Where, channel_option, store_option, takes_where
from headwater.config import scheme_of
from headwater.errors import ChannelError, ConfigurationError
from headwater.telemetry import log_json

PARENT: Final = "HEADWATER_PARENT_FD"
"""Names a descriptor that ends when the process that started this one does."""

AT_MOST: Final = 12.0
"""Seconds for everything after the first signal: 10 to finish what is in hand, 2 to let go."""

LEVELS: Final = ("debug", "info", "warning", "error")


@click.command()
@click.argument("target", metavar="MODULE:APP", envvar="HEADWATER_APP")
@click.option("--workers", type=click.IntRange(1), default=1, show_default=True, help="Processes that share the work.")
@click.option("--only", multiple=True, metavar="PART", help="Run nothing but this read model, saga or handler.")
@click.option("--without", multiple=True, metavar="PART", help="Leave this part to another process.")
@store_option
@channel_option
@click.option("--log-level", type=click.Choice(LEVELS), default="info", show_default=True, help="What goes to stderr.")
@takes_where
def command(where: Where, *, workers: int, only: tuple[str, ...], without: tuple[str, ...], log_level: str) -> int:
    """Run a service until it is told to stop, with its log on stderr as JSON lines.

    SIGTERM or SIGINT: it fetches nothing more, finishes what is in hand within 10 seconds, and exits 0. A second one ends
    it at once; nothing is lost by that.
    """
    app = where.app()
    log_json(sys.stderr, getattr(logging, log_level.upper()))
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(line_buffering=True)  # what handlers print is seen when it is printed
    if workers == 1:
        return asyncio.run(serve(app, where, only, without))
    from headwater.cli.workers import supervise

    found = where.settings_of(app)
    if "memory" in (scheme_of(found.store), scheme_of(found.channel)):
        raise ConfigurationError("memory:// lives in one process: leave out --workers, or use sqlite:///")
    asyncio.run(_try(app, where, Parts(frozenset(only), frozenset(without))))
    return asyncio.run(supervise(_child(where, log_level, only, without), workers))


async def _try(app: App, where: Where, parts: Parts) -> None:
    """Fail once, here, for what would fail in every worker."""
    try:
        wiring = await _connected(app, where)
        wiring.check(parts)
        with suppress(ChannelError):  # a channel that is away is waited for
            await wiring.channel.open()
        await wiring.channel.close()
    finally:
        await app.stop()


def _child(where: Where, log_level: str, only: Sequence[str], without: Sequence[str]) -> list[str]:
    """The command line of one worker."""
    urls = [(name, url) for name, url in (("--store", where.store), ("--channel", where.channel)) if url]
    parts = [("--only", part) for part in only] + [("--without", part) for part in without]
    options = itertools.chain(("--log-level", log_level), *urls, *parts)
    return [sys.executable, "-m", "headwater", "run", str(where.target), *options]


async def serve(app: App, where: Where, only: Sequence[str] = (), without: Sequence[str] = ()) -> int:
    """Run an app in this process until it is told to stop."""
    stop = asyncio.Event()
    Stopping(asyncio.get_running_loop(), stop.set).listen()
    waiting = asyncio.ensure_future(stop.wait())
    starting = asyncio.ensure_future(_start(app, where, only, without))
    try:
        await asyncio.wait({starting, waiting}, return_when=asyncio.FIRST_COMPLETED)
        if starting.done():
            starting.result()
            await waiting
        else:
            starting.cancel()
            await asyncio.wait({starting})
    finally:
        waiting.cancel()
        await app.stop()
    return 0


async def _start(app: App, where: Where, only: Sequence[str], without: Sequence[str]) -> None:
    await _connected(app, where)
    await app.start(only=only, without=without)


async def _connected(app: App, where: Where) -> Wiring:
    database = open_database(where.store, app.clock) if where.store else None
    channel = open_channel(where.channel, app.clock) if where.channel else None
    if database is not None:
        await database.open()
    return await app.connect(database, channel)


class Stopping:
    """The first signal, or the end of the parent process, asks for an orderly end; a second signal is the end.

    The handlers are plain ones, not the loop's: they are heard even while user code keeps the loop busy.
    """

    def __init__(self, loop: asyncio.AbstractEventLoop, ask: Callable[[], object]) -> None:
        self._loop = loop
        self._ask = ask
        self._asked = False

    def listen(self) -> None:
        """Listen from now on."""
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, self._hear)
        parent = os.environ.pop(PARENT, "")
        if parent:
            threading.Thread(target=self._watch, args=(int(parent),), daemon=True, name="parent").start()

    def _hear(self, number: int, frame: FrameType | None) -> None:
        if self._asked:
            os._exit(128 + number)
        self._end()

    def _watch(self, parent: int) -> None:
        os.read(parent, 1)
        if not self._asked:
            self._end()

    def _end(self) -> None:
        self._asked = True
        deadline = threading.Timer(AT_MOST, os._exit, (0,))
        deadline.daemon = True
        deadline.start()
        self._loop.call_soon_threadsafe(self._ask)
