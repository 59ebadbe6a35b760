"""`headwater events`: list, show, tail."""

from __future__ import annotations

import asyncio
import functools
import sys
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import click
import msgspec

from headwater.cli.output import print_facts, print_json, print_line, print_payload, print_table, safe
from headwater.cli.target import Where, app_option, json_option, opened_database, store_option, takes_where
from headwater.message import Recorded

if TYPE_CHECKING:
    from headwater.operations.events import Filter


def filter_options(function: Callable[..., Any]) -> Callable[..., Any]:
    """`--stream`, `--category` and `--type` as one argument, `wanted`."""

    @functools.wraps(function)
    def gathered(*arguments: Any, stream: str, category: str, type_: str, **options: Any) -> Any:
        from headwater.operations.events import Filter

        return function(*arguments, wanted=Filter(stream, category, type_), **options)

    gathered = click.option("--type", "type_", default="", metavar="NAME", help="Only messages of this type.")(gathered)
    gathered = click.option("--category", default="", metavar="NAME", help="Only streams of this category.")(gathered)
    return click.option("--stream", default="", metavar="STREAM", help="Only this stream.")(gathered)


@click.group()
def command() -> None:
    """List, show and follow the events of a log."""


@command.command("list")
@filter_options
@click.option("--after", type=click.IntRange(0), metavar="POSITION", help="The first after it, instead of the last.")
@click.option("--limit", type=click.IntRange(1), default=20, show_default=True, help="How many at most.")
@store_option
@app_option
@json_option
@takes_where
def list_(where: Where, wanted: Filter, after: int | None, limit: int, as_json: bool) -> None:
    """The last events of a log, or the first after a position; oldest first."""
    from headwater.operations.events import list_events, to_line

    async def run() -> list[Recorded]:
        async with opened_database(where.settings().store) as database:
            return await list_events(database, wanted, after=after, limit=limit)

    lines = [to_line(one) for one in asyncio.run(run())]
    if as_json:
        print_json({"events": lines})
    else:
        rows = [(one.position, one.time, one.stream, one.version, one.type, one.id) for one in lines]
        print_table(("position", "time", "stream", "version", "type", "id"), rows, right=("position", "version"))


@command.command()
@click.argument("event")
@store_option
@app_option
@json_option
@takes_where
def show(where: Where, event: str, as_json: bool) -> None:
    """One event with its payload: EVENT is its position, stream@version, or id."""
    from headwater.operations.events import find_event, to_detail

    async def run() -> Recorded:
        async with opened_database(where.settings().store) as database:
            return await find_event(database, event)

    found = to_detail(asyncio.run(run()))
    if as_json:
        print_json(found)
        return
    facts = msgspec.structs.asdict(found)
    facts.update(facts.pop("metadata"))
    data = facts.pop("data")
    print_facts([(name.replace("_", " "), value) for name, value in facts.items()])
    print_line()
    print_payload(data)


@command.command()
@filter_options
@click.option("--after", type=click.IntRange(0), metavar="POSITION", help="Begin after it, instead of now.")
@click.option("--limit", type=click.IntRange(1), help="End after so many.")
@store_option
@app_option
@click.option("--json", "as_json", is_flag=True, help="Print JSON lines.")
@takes_where
def tail(where: Where, wanted: Filter, after: int | None, limit: int | None, as_json: bool) -> None:
    """Events as they are committed, until interrupted."""
    from headwater.operations.events import tail_events, to_line

    async def run() -> None:
        left = limit
        async with opened_database(where.settings().store) as database:
            async for recorded in tail_events(database, wanted, after=after):
                one = to_line(recorded)
                if as_json:
                    print_json(one)
                else:
                    print_line(
                        f"{one.position:>8}  {one.time}  {safe(one.stream)} @{one.version}  {one.type}  {one.id}"
                    )
                sys.stdout.flush()
                left = None if left is None else left - 1
                if left == 0:
                    return

    asyncio.run(run())
