"""`headwater projections`: list, rebuild."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

import click

from headwater.cli.failures import complain
from headwater.cli.output import print_json, print_line, print_table, unknown
from headwater.cli.target import (
    Where,
    channel_option,
    json_option,
    opened_channel,
    opened_database,
    store_option,
    takes_where,
    words_after_app,
)

if TYPE_CHECKING:
    from headwater.operations import ProjectionState
    from headwater.operations.projections import Progress

REPORT_EVERY = 5.0


@click.group()
def command() -> None:
    """List read models, and fill one anew."""


@command.command("list")
@words_after_app()
@store_option
@channel_option
@json_option
@takes_where
def list_(where: Where, as_json: bool) -> None:
    """The read models of an app: where each stands, and its rows."""
    states = asyncio.run(_list(where))
    if as_json:
        print_json({"projections": states})
        return
    rows = [
        (
            one.name,
            "inline" if one.inline else "catch-up",
            unknown(one.position),
            unknown(one.behind),
            unknown(one.seconds),
            unknown(one.rows),
        )
        for one in states
    ]
    columns = ("projection", "kind", "position", "behind", "seconds", "rows")
    print_table(columns, rows, right=columns[2:])


async def _list(where: Where) -> list[ProjectionState]:
    from headwater.operations import list_projections

    app = where.app()
    found = where.settings_of(app)
    async with opened_database(found.store) as database, opened_channel(found.channel) as carrier:
        return await list_projections(app, database, carrier)


@command.command()
@words_after_app("projection")
@store_option
@json_option
@takes_where
def rebuild(where: Where, projection: str, as_json: bool) -> None:
    """Fill a read model anew from the whole log; its readers see the old rows until the new ones are complete."""
    from headwater.operations import find_projection, rebuild_projection

    app = where.app()
    name, _ = find_projection(app, projection)

    async def run() -> int:
        async with opened_database(where.settings_of(app).store) as database:
            with progress_on_stderr(name) as progress:
                return await rebuild_projection(app, database, projection, progress)

    position = asyncio.run(run())
    if as_json:
        print_json({"projection": name, "position": position})
    else:
        print_line(f"{name} is rebuilt up to position {position}")


@contextmanager
def progress_on_stderr(what: str) -> Iterator[Progress]:
    """A bar on a terminal; elsewhere a line every 5 seconds."""
    if sys.stderr.isatty():
        with _bar(what) as progress:
            yield progress
    else:
        yield _lines(what)


@contextmanager
def _bar(what: str) -> Iterator[Progress]:
    from rich.console import Console
    from rich.progress import Progress as Bar

    with Bar(console=Console(stderr=True), transient=True) as bar:
        task = bar.add_task(what, total=None)
        yield lambda done, total: bar.update(task, completed=done, total=total)


def _lines(what: str) -> Progress:
    from headwater.clock import SystemClock

    clock = SystemClock()
    said = clock.monotonic()

    def progress(done: int, total: int) -> None:
        nonlocal said
        if clock.monotonic() - said >= REPORT_EVERY:
            said = clock.monotonic()
            complain(f"{what}: position {done} of {total}")

    return progress
