"""`headwater aggregate show`."""

from __future__ import annotations

import asyncio
from typing import Any

import click
import msgspec

from headwater.cli.output import print_facts, print_json, print_line, print_payload, print_table
from headwater.cli.target import Where, json_option, opened_database, store_option, takes_where, words_after_app


@click.group()
def command() -> None:
    """Show an aggregate as it is or was, and how it came to be so."""


def moment(ctx: click.Context, parameter: click.Parameter, value: str | None) -> int | None:
    """A time as RFC 3339 text, in microseconds."""
    from headwater.clock import parse_iso

    try:
        return None if value is None else parse_iso(value)
    except (ValueError, OverflowError):
        raise click.BadParameter(f"{value!r} is no time; write for example 2026-11-23T06:30:00Z") from None


@command.command()
@words_after_app("category", "key")
@click.option("--version", type=click.IntRange(1), help="As it was at this version.")
@click.option(
    "--at", callback=moment, metavar="TIME", help="As it was at this time (RFC 3339; UTC if it says no zone)."
)
@click.option("--tenant", default="", help="Of this tenant.")
@store_option
@json_option
@takes_where
def show(
    where: Where, category: str, key: str, version: int | None, at: int | None, tenant: str, as_json: bool
) -> None:
    """The state of an aggregate and the events behind it: CATEGORY is its category or class name."""
    from headwater.operations.aggregates import AggregateState, aggregate_state

    app = where.app()

    async def run() -> AggregateState:
        async with opened_database(where.settings_of(app).store) as database:
            return await aggregate_state(app, database, category, key, version=version or 0, at=at, tenant=tenant)

    found = asyncio.run(run())
    if as_json:
        print_json(found)
        return
    print_facts([("stream", found.stream), ("version", found.version), ("time", found.time)])
    print_line()
    print_payload(found.state)
    print_line()
    rows = [(one.version, one.time, one.type, one.actor, _compact(one.data)) for one in found.history]
    print_table(("version", "time", "type", "actor", "data"), rows, right=("version",))


def _compact(data: Any) -> str:
    return data if isinstance(data, str) else msgspec.json.encode(data).decode()
