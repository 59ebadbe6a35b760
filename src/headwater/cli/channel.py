"""`headwater channel`: plan, apply."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import TypeVar

import click

from headwater.app import open_channel
from headwater.channel import Channel, Finding, Route
from headwater.cli.failures import CHECK_FAILED
from headwater.cli.output import print_json, print_line, print_table
from headwater.cli.target import Where, app_option, channel_option, json_option, takes_where
from headwater.clock import SystemClock

Result = TypeVar("Result")


@click.group()
def command() -> None:
    """Show what an app needs of its channel, and make it."""


@command.command()
@channel_option
@app_option
@json_option
@takes_where
def plan(where: Where, *, as_json: bool) -> int:
    """The topics that an app publishes or consumes, their groups, and what is missing or unsafe; exit code 7 if it cannot run."""
    routes, findings = asyncio.run(_on(where, _examined))
    lacking = any(one.state != "unsafe" for one in findings)
    if as_json:
        print_json({"routes": routes, "findings": findings})
        return CHECK_FAILED if lacking else 0
    print_table(("topic", "groups"), [(route.topic, ", ".join(route.groups) or "-") for route in routes])
    if findings:
        print_line()
        print_table(("state", "what", "why"), [(one.state, one.what, one.why) for one in findings])
    print_line()
    print_line("make what is missing: headwater channel apply" if lacking else "nothing is missing")
    return CHECK_FAILED if lacking else 0


@command.command()
@channel_option
@app_option
@json_option
@takes_where
def apply(where: Where, *, as_json: bool) -> None:
    """Make the topics, queues and groups that an app needs and its channel has not; what is there stays as it is."""
    made = asyncio.run(_on(where, lambda channel, routes: channel.establish(routes)))
    if as_json:
        print_json({"made": made})
        return
    for name in made:
        print_line(f"made {name}")
    if not made:
        print_line("nothing was missing")


async def _examined(channel: Channel, routes: list[Route]) -> tuple[list[Route], list[Finding]]:
    return routes, await channel.examine(routes)


async def _on(where: Where, work: Callable[[Channel, list[Route]], Awaitable[Result]]) -> Result:
    """Do something with the routes of an app on its channel."""
    app = where.app()
    channel = open_channel(where.settings_of(app).channel, SystemClock())
    await channel.open()
    try:
        return await work(channel, app.routes())
    finally:
        await channel.close()
