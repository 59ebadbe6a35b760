"""`headwater republish`."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

import click

from headwater.app import open_channel, open_claims
from headwater.claims import checked
from headwater.cli.output import print_json, print_line
from headwater.cli.target import (
    Where,
    app_option,
    channel_option,
    json_option,
    opened_database,
    store_option,
    takes_where,
)
from headwater.clock import SystemClock

if TYPE_CHECKING:
    from headwater.operations import Republished


@click.command()
@app_option
@click.option(
    "--from", "start", type=click.IntRange(1), required=True, metavar="POSITION", help="From there in the log on."
)
@click.option("--topic", default="", help="Only what goes to this topic.")
@click.option("--for", "group", default="", metavar="GROUP", help="For this group alone: a consuming service's name.")
@store_option
@channel_option
@json_option
@takes_where
def command(where: Where, start: int, *, topic: str, group: str, as_json: bool) -> None:
    """Publish again what a service has published, from its log; consumers drop what they have taken before."""
    done = asyncio.run(_run(where, start, topic, group))
    if as_json:
        print_json(done)
        return
    to = f" for {group}" if group else ""
    span = f", positions {done.first} to {done.last}" if done.messages else ""
    print_line(f"published {done.messages:,} messages again{to}{span}")


async def _run(where: Where, start: int, topic: str, group: str) -> Republished:
    from headwater.operations import republish

    app = where.app()
    found = where.settings_of(app)
    channel = checked(open_channel(found.channel, SystemClock()), open_claims(found.claims))
    async with opened_database(found.store) as database:
        await channel.open()
        try:
            return await republish(app.name, database, channel, start, topic=topic, group=group)
        finally:
            await channel.close()
