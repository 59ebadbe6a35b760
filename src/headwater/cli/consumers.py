"""`headwater consumers`."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

import click

from headwater.cli.failures import complain
from headwater.cli.output import print_json, print_table, unknown
from headwater.cli.target import (
    Where,
    app_option,
    channel_option,
    json_option,
    opened_channel,
    opened_database,
    store_option,
    takes_where,
)

if TYPE_CHECKING:
    from headwater.operations import ConsumerState


@click.command()
@store_option
@channel_option
@app_option
@json_option
@takes_where
def command(where: Where, as_json: bool) -> None:
    """How far each consumer is behind, in messages and seconds, and how many messages it holds."""
    states = asyncio.run(_run(where))
    if as_json:
        print_json({"consumers": states})
        return
    if not states:
        complain("note: this service has not run yet, so no consumer is written down")
    columns = ("consumer", "kind", "source", "behind", "seconds", "held", "dead", "uncertain")
    rows = [
        (
            one.name,
            one.kind,
            one.source,
            unknown(one.behind),
            unknown(one.seconds),
            one.held,
            counted(one.dead),
            counted(one.uncertain),
        )
        for one in states
    ]
    print_table(columns, rows, right=columns[3:])


def counted(number: int) -> str:
    """A number that was counted up to a limit."""
    from headwater.operations.consumers import COUNTED

    return f"{number}+" if number >= COUNTED else str(number)


async def _run(where: Where) -> list[ConsumerState]:
    from headwater.clock import SystemClock
    from headwater.operations import list_consumers

    found = where.settings()
    async with opened_database(found.store) as database, opened_channel(found.channel) as carrier:
        return await list_consumers(database, carrier, SystemClock().now())
